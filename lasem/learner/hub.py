"""Models on the Hugging Face hub, or in a folder that others can read: the model's own files, and a card.

Of a model's folder only what its index names is pushed, so no state of training, no lock and nothing that a person put
there. What is pulled is checked as a model is that is loaded: no code is run, and a checksum names each file.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import lasem
from lasem.errors import ConfigError, LasemError, StorageError, printable, quoted
from lasem.files import MAX_INDEX_BYTES, locked, read_bytes, sync_folder, write_file
from lasem.learner.answers import ModelOverview
from lasem.learner.growing import GrowingModel, Place
from lasem.learner.model_folder import ModelFolder, as_storage_error, part_from_plain
from lasem.methods.model import StoredPart
from lasem.nets.backbone import first_line, from_hub, optional
from lasem.settings import to_yaml

_INDEX, _CARD, _LIBRARY = "config.json", "README.md", "library_name: lasem"


def push(model: Place | GrowingModel, repo: str, *, licence: str | None = None, public: bool = False) -> str:
    """Write a model and a card that describes it to a repository, in one step.

    Args:
        model: its folder.
        repo: ``USER/NAME`` on the hub, which is made if it is not there; or a folder, such as ``./shared`` or a
            ``file://`` address, that is new or was pushed to before.
        licence: what the card says of it, such as ``apache-2.0``; None: that none was given.
        public: whether everybody can read a repository that is made; one that is there stays what it is.

    Returns:
        Where it is now.

    Raises:
        ConfigError: if huggingface_hub is not installed, or the name cannot be one.
        StorageError: if there is no model, it is damaged, the hub cannot be reached, or the folder holds other things.
    """
    growing = model if isinstance(model, GrowingModel) else GrowingModel(model)
    folder = ModelFolder(growing.directory)

    def collected(data: bytes) -> tuple[bytes, dict[str, StoredPart], str]:
        parts = {f"parts/{part.checksum}.safetensors": part for part in parts_in(folder.parse(data))}
        for name, part in parts.items():
            _read(growing.directory, name, part)
        return data, parts, card(growing.show(), repo, licence)

    data, parts, text = folder.read(collected)
    place = _local(repo)
    if place is not None:
        _check_pushed(place)
        for name, part in parts.items():
            if not ModelFolder(place).has(part):
                write_file(place / name, _read(growing.directory, name, part))
        write_file(place / _CARD, text)
        write_file(place / _INDEX, data)  # last, as a model is saved
        ModelFolder(place).sweep()
        return str(place)
    with _hub(repo) as hub:
        api = hub.HfApi()
        api.create_repo(repo, private=not public, exist_ok=True)
        steps: list[Any] = [
            hub.CommitOperationDelete(old)
            for old in api.list_repo_files(repo)
            if old.startswith("parts/") and old not in parts
        ]
        steps += [hub.CommitOperationAdd(name, str(growing.directory / name)) for name in parts]
        steps += [hub.CommitOperationAdd(_CARD, text.encode()), hub.CommitOperationAdd(_INDEX, data)]
        return str(api.create_commit(repo, steps, commit_message=f"Model of lasem {lasem.__version__}").commit_url)


def pull(repo: str, model: Place, *, revision: str | None = None) -> GrowingModel:
    """Fetch a model into a new folder, which is there whole or not at all.

    Args:
        repo: as in ``push``. What was fetched from the hub before is taken from its cache on this machine.
        model: the folder, which must be new or empty.
        revision: a branch, tag or commit of the hub; None: its main branch.

    Raises:
        ConfigError: if huggingface_hub is not installed, or the name cannot be one.
        StorageError: if there is no such model, it is damaged, the hub cannot be reached, or the folder is not empty.
    """
    directory, place = Path(os.path.abspath(model)), _local(repo)
    if os.path.lexists(directory) and not (directory.is_dir() and not any(directory.iterdir())):
        raise StorageError(f"Expected a new folder for the model; {directory} is there already. Give another one.")
    work = directory.with_name(f".{directory.name}.pull")
    with locked(work, f"Another process is fetching a model into {directory}."):
        try:
            shutil.rmtree(work / "model", ignore_errors=True)  # of one that was killed
            if place is not None:
                ModelFolder(place).read(lambda _: _fetch(place, place.joinpath, work / "model", repo))
            else:
                _fetch_from_hub(repo, revision, work / "model")
            if directory.exists():
                directory.rmdir()
            os.rename(work / "model", directory)
            sync_folder(directory.parent)
        except OSError as error:
            raise StorageError(f"Cannot write {directory}: {error.strerror}.") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return GrowingModel(model)


def _fetch_from_hub(repo: str, revision: str | None, work: Path) -> None:
    with _hub(repo, pulls=True) as hub:
        first = Path(hub.hf_hub_download(repo, _INDEX, revision=revision))
        commit = first.parent.name  # all files are of one commit, whatever is pushed meanwhile
        _fetch(first.parents[2], lambda name: Path(hub.hf_hub_download(repo, name, revision=commit)), work, repo)


def _fetch(inside: Path, download: Callable[[str], Path], work: Path, repo: str) -> None:
    """Copy what the index names, each file checked; links may not lead out of ``inside``."""
    data = read_bytes(download(_INDEX), inside=inside, max_bytes=MAX_INDEX_BYTES)
    parts = {f"parts/{part.checksum}.safetensors": part for part in parts_in(ModelFolder(repo).parse(data))}
    with ThreadPoolExecutor(8) as threads:
        for (name, part), path in zip(parts.items(), threads.map(download, parts), strict=True):
            write_file(work / name, read_bytes(path, part.checksum, inside=inside, max_bytes=part.num_bytes))
    write_file(work / _INDEX, data)


def parts_in(entry: Any) -> Iterator[StoredPart]:
    """Yield every part that an index names; StorageError if an entry is damaged."""
    with as_storage_error("Expected the index of a model"):
        if isinstance(entry, dict) and {"checksum", "bytes", "numbers"} <= entry.keys():
            yield part_from_plain(entry)
        elif isinstance(entry, dict | list):
            for value in entry.values() if isinstance(entry, dict) else entry:
                yield from parts_in(value)


def card(overview: ModelOverview, repo: str, licence: str | None) -> str:
    """Return the text of a model's README.md: what it has learned, how well, from how much, and how it is used."""
    kind = "image" if overview.reads == "images" else "text"
    tags = ["lasem", "continual-learning", f"{kind}-classification"]
    head = {"library_name": "lasem", "pipeline_tag": tags[-1], "tags": tags}
    head |= {} if licence is None else {"license": licence}
    origin, channels = overview.settings["net"].get("origin"), overview.image_shape[0]
    size = (
        f"{overview.image_shape[2]} tokens at most"
        if kind == "text"
        else f"{'x'.join(map(str, overview.image_shape[1:]))}"
    )
    colour = {1: ", grey", 3: ", colour"}.get(channels, "") if kind == "image" else ""
    lines = [
        f"---\n{to_yaml(head)}---\n",
        f"# A model of {len(overview.tasks)} task{'' if len(overview.tasks) == 1 else 's'}\n",
        f"One network that has learned its tasks one after another with lasem {lasem.__version__}. It reads "
        f"{overview.reads} ({size}{colour}); a question names its task.\n",
        f"| task | classes | {overview.reads} to train, validate, test | valid | test | temperature | layers |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in overview.tasks:
        tested = "-" if task.test_accuracy is None else f"{100 * task.test_accuracy:.1f} %"
        counts = f"{task.num_train:,}, {task.num_valid:,}, {task.num_test:,}"
        lines.append(
            f"| {task.name} | {len(task.classes)} | {counts} | {100 * task.valid_accuracy:.1f} % | {tested} | "
            f"{task.temperature:.3g} | {_code(task.configuration)} |"
        )
    name = "REPO" if _local(repo) is not None else repo
    task_name = quoted(overview.tasks[0].name) if overview.tasks else "TASK"
    question = "photo.jpg" if kind == "image" else "--text 'A text'"
    lines += [
        "\nAccuracies were measured when a task was learned. Logits are divided by the temperature, which was fitted to"
        " the validation data so that probabilities are calibrated (1: as the network gives them). Layers, input side "
        f"first: T is transferred, S is the task's own{_named(overview.layers)}.\n",
        f"{overview.num_shared_parameters:,} parameters are shared, {overview.num_parameters:,} are there in all.",
        *([f"Backbone: {_code(origin)}."] if origin else []),
        f"Licence: {'none was given' if licence is None else licence}.\n",
        "## How to use it\n\n```sh\npip install 'lasem[hub]'",
        f"lasem pull {name} model\nlasem predict model --task {task_name} {question}\n```",
    ]
    return "\n".join(lines) + "\n"


def _named(layers: tuple[str, ...]) -> str:
    return f": {', '.join(map(_code, layers))}" if layers else ""


def _code(text: object) -> str:
    """A text of a stranger, as Markdown's code in a cell of a table."""
    shown = printable(str(text)).replace("`", "'").replace("|", "/")
    return f"`{shown}`"


def _read(directory: Path, name: str, part: StoredPart) -> bytes:
    return read_bytes(directory / name, part.checksum, inside=directory, max_bytes=part.num_bytes)


def _local(repo: str) -> Path | None:
    """The folder that a person names; None: it is a name on the hub."""
    if repo.startswith("file:"):
        return Path(url2pathname(urlsplit(repo).path))
    return Path(repo).expanduser() if repo.startswith((".", "~")) or os.path.isabs(repo) else None


def _check_pushed(place: Path) -> None:
    """Raise StorageError if a folder holds anything but what was pushed there before."""
    names = set(ModelFolder(place).names() or ()) - {"parts"}
    with_card = _CARD in names and _LIBRARY in read_bytes(place / _CARD, max_bytes=MAX_INDEX_BYTES).decode(
        errors="replace"
    )
    if any(not name.startswith(".") for name in names) and not with_card:
        raise StorageError(
            f"Expected a new folder, or one that a model was pushed to; {place} holds others. Give another."
        )


@contextmanager
def _hub(repo: str, *, pulls: bool = False) -> Iterator[Any]:
    """Give the library; say in one line what it fails at."""
    with optional("huggingface_hub", f"{repo} on the hub", "Install it: pip install 'lasem[hub]'"):
        import huggingface_hub as hub
        from huggingface_hub import errors
    try:
        with from_hub():
            yield hub
    except LasemError:
        raise
    except errors.HFValidationError as error:
        raise ConfigError(
            f"Expected USER/NAME on the hub, or a folder such as ./{repo}; {first_line(error)}."
        ) from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        cached = f", and {repo} is not in its cache on this machine" if pulls else ""
        raise StorageError(f"The hub cannot be reached (no network, or HF_HUB_OFFLINE is set){cached}.") from error
    except (errors.RepositoryNotFoundError, errors.EntryNotFoundError, errors.RevisionNotFoundError) as error:
        raise StorageError(
            f"There is no model of lasem in {repo} on the hub, or only others may read it (hf auth login)."
        ) from error
    except OSError as error:  # of HTTP, too
        raise StorageError(f"The hub refuses {repo}: {first_line(error)}. Is hf auth login done?") from error
