"""``lasem learn``: add a task to a growing model."""

from pathlib import Path
from typing import Annotated, Any, Literal

from lasem.cli.choices import MODEL, layered, nested
from lasem.cli.command import Typed
from lasem.cli.main import say
from lasem.cli.model import percent
from lasem.errors import ConfigError, quoted
from lasem.settings import Range


def learn(
    typed: Typed,
    model: str,
    *,
    task: str | None = None,
    train: Path | None = None,
    valid: Path | None = None,
    test: Path | None = None,
    image_column: str = "image",
    label_column: str = "label",
    text_column: str | None = None,
    image_size: Annotated[int, Range(least=1, most=8192)] | None = None,
    channels: Literal[1, 3] | None = None,
    seed: int | None = None,
    update: bool = False,
    resume: bool = False,
    restart: bool = False,
    skip_damaged: bool = False,
    wait: Annotated[float, Range(least=0)] = 0,
    checkpoint_seconds: Annotated[float, Range(least=0)] = 30,
    quiet: bool = False,
    **settings: Annotated[str, MODEL],
) -> int:
    """Add a task to the model in a folder; the first one makes the model.

    Args:
        train: a folder CLASS/*.png, parquet, or texts (--text-column).
        valid: images to stop by (default: a share of --train).
        test: images that only measure.
        image_size: side of a new model's images (default: that of the first ones).
        channels: of a new model, 1 for grey or 3 for colour (default: as the first images).
        seed: of a new model's random numbers (default: 0).
        update: learn a new version of a task, from all its images.
        resume: go on with the task that was interrupted.
        restart: throw away what was learned of an unfinished task.
        skip_damaged: leave out images that cannot be decoded.

    Examples:
        lasem learn model --task cats --train photos/cats    photos/cats/CLASS/*.png
        lasem learn model --resume
    """
    import torch

    from lasem.cli.progress import EpochLines, make_observer
    from lasem.data.labelled import and_left_out
    from lasem.experiments import ExperimentConfig
    from lasem.experiments.parts import resolve
    from lasem.learner import GrowingModel, Source
    from lasem.methods import Branch

    if not resume and (task is None or train is None):
        missing = "--task" if task is None else "--train"
        raise ConfigError(f"Expected {missing}; got none. See lasem learn --help.")
    held = GrowingModel(model).settings(begun=resume)
    above = nested(settings)
    if held is None and train is not None and text_column is None:
        _take_backbone(above, train, image_size, image_column, label_column)
    if held is None and "search" in above:  # its settings alone do not choose another one
        above = MODEL.started(above)
    stored = _stored(held) if held else {"protect": {"name": Branch.name}}
    below = {k: v for k, v in stored.items() if k in ("protect", "method")} if "preset" in above else stored
    config = ExperimentConfig.from_plain(layered(below, above))
    if config.threads:
        torch.set_num_threads(config.threads)
    given: dict[str, Any] = {"image_size": image_size, "channels": channels, "seed": seed}
    typed_parts = resolve(above) if "name" in above.get("method", {}) else above
    for part in set(MODEL.parts) & set(config.parts):
        if part in typed_parts or ("preset" in above and (held is None or part != "net")):
            given[part] = getattr(config, part)
    if held and "method" in held and "name" in above.get("method", {}) and config.method is None:
        raise ConfigError(
            f"The model in {model} was made with method = {held['method']['name']}; got {above['method']['name']}. "
            f"Leave method out, or begin another model."
        )
    growing = GrowingModel(model, **given, device=config.device, checkpoint_seconds=checkpoint_seconds)

    def images(path: Path | None) -> Source | None:
        named: dict[str, Any] = {"image_column": image_column, "label_column": label_column}
        named |= {"text_column": text_column, "skip_damaged": skip_damaged}
        return None if path is None else Source(path=str(path), **named)

    shown = make_observer(quiet=quiet)
    again = quoted(*(word for word in typed if word != "--restart"))
    lines = EpochLines(shown, model, config.training.epochs, again)
    with shown.explained():
        learned = growing.learn(
            task,
            images(train),
            valid=images(valid),
            test=images(test),
            update=update,
            resume=resume,
            restart=restart,
            wait=wait,
            on_epoch=lines.epoch_ends,
            note=shown.line,
        )
    tested = "" if learned.test_accuracy is None else f", test {percent(learned.test_accuracy)}"
    say(
        f"{learned.name}: {learned.configuration} ({learned.layers}), valid {percent(learned.valid_accuracy)}{tested}, "
        f"{len(learned.classes)} classes, {learned.num_parameters:,} parameters of its own"
        f"{and_left_out(learned.left_out)}"
    )
    return 0


def _take_backbone(above: dict[str, Any], train: Path, side: int | None, image_column: str, label_column: str) -> None:
    """Name the pretrained network in the settings of a new model, where nothing else is chosen and it suits images."""
    from lasem.experiments.parts import resolve
    from lasem.learner import Source
    from lasem.nets.net import AUTO, pretrained_for

    net = above.get("net", {})
    if set(net) - {"name"} or net.get("name", AUTO) != AUTO or "preset" in above or "method" in resolve(above):
        return
    source = Source(path=str(train), image_column=image_column, label_column=label_column)
    found, _ = pretrained_for(side or max(max(sides) for sides in source.first_sizes()))
    if found is not None:
        above["net"] = {"name": found.name}


def _stored(held: dict[str, Any]) -> dict[str, Any]:
    """A model's settings by part, but for the network and a user's classes: a folder never names code to import."""
    kept = [part for part in MODEL.parts if part in held and part != "net"]
    parts = {part: held[part] for part in kept if "." not in str(held[part].get("name"))}
    return {part: {k: v for k, v in entry.items() if v is not None or k != "name"} for part, entry in parts.items()}
