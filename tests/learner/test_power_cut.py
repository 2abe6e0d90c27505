"""A model's folder after a failure, a kill or a power cut at every single step of a save."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from lasem import Branch, Fixed, Learner, TrainingConfig
from lasem.errors import StorageError

from .fixture import tiny_net, tiny_task

QUICK = TrainingConfig(epochs=1, batch_size=5, learning_rate=0.01)


class Disk:
    """Watches every call by which files change below a folder, and knows what a power cut would leave of them.

    What is certain to be left is what was asked for by fsync: of a file its content, of a folder the names in it. The
    rest is taken to be lost, which is the worst that a file system may do.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.calls, self.fail_at = root, 0, -1
        self.before: Callable[[], Any] = lambda: None
        self.looking = False
        self.contents: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {}
        for path in (root, *root.rglob("*")):
            self.keep(path)

    def step(self) -> None:
        if self.looking:  # whoever looks at the folder changes nothing in it
            return
        self.looking = True
        self.before()
        self.looking = False
        self.calls += 1
        if self.calls - 1 == self.fail_at:
            raise OSError(28, "No space left on device")

    def image(self, place: Path) -> Path:
        """What a power cut now would leave."""
        self._restore(self.root.stat().st_ino, place)
        return place

    def keep(self, path: Path) -> None:
        if path.is_dir():
            self.names[path.stat().st_ino] = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
        else:
            self.contents[path.stat().st_ino] = path.read_bytes()

    def _restore(self, inode: int, place: Path) -> None:
        place.mkdir(parents=True)
        for name, of_entry in self.names.get(inode, {}).items():
            if of_entry in self.names:
                self._restore(of_entry, place / name)
            else:
                (place / name).write_bytes(self.contents.get(of_entry, b""))  # its content was never asked for


@contextmanager
def watched(disk: Disk) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        fsync, open_path = os.fsync, Path.open

        def watched_fsync(handle: int) -> None:
            disk.step()
            fsync(handle)
            disk.keep(Path(os.readlink(f"/proc/self/fd/{handle}")))

        def stepped(call: Callable[..., Any]) -> Callable[..., Any]:
            def watched_call(*arguments: Any, **more: Any) -> Any:
                disk.step()
                return call(*arguments, **more)

            return watched_call

        def watched_open(path: Path, mode: str = "r", *arguments: Any, **more: Any) -> Any:
            if mode[0] not in "wx":
                return open_path(path, mode, *arguments, **more)
            disk.step()
            return Writing(open_path(path, mode, *arguments, **more), disk)

        patch.setattr(os, "fsync", watched_fsync)
        for name in ("replace", "mkdir", "unlink", "rmdir"):
            patch.setattr(os, name, stepped(getattr(os, name)))
        patch.setattr(Path, "open", watched_open)
        yield


class Writing:
    """A file whose content comes in two steps."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self._file, self._disk = file, disk

    def __enter__(self) -> "Writing":
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        self._disk.step()
        self._file.write(data[: len(data) // 2])
        self._file.flush()
        self._disk.step()
        self._file.write(data[len(data) // 2 :])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks a and b."""
    place = tmp_path_factory.mktemp("states") / "model"
    first = Learner(tiny_net(), search=Fixed("TS"), training=QUICK, protect=Branch())
    for name in ("a", "b"):
        first.learn(tiny_task(name))
    first.save(place)
    return place


@pytest.fixture
def learner(model: Path) -> Learner:
    """It has forgotten a and b and learned c and another a since."""
    learner = Learner.load(model)
    for name in ("a", "b"):
        learner.forget(name)
    for name in ("c", "a"):
        learner.learn(tiny_task(name, 3, seed=4))
    return learner


def state_of(place: Path) -> tuple[str, ...]:
    """What a folder holds: every tensor of it is read and checked."""
    learner = Learner.load(place)
    return (*learner.task_names, str(len(learner.classes("a"))))


BEFORE, AFTER = ("a", "b", "2"), ("c", "a", "3")


def test_a_power_cut_at_any_step_leaves_a_model_before_or_after(model: Path, learner: Learner, tmp_path: Path) -> None:
    place = Path(shutil.copytree(model, tmp_path / "model"))
    disk, found = Disk(place), list[tuple[str, ...]]()

    def cut() -> None:
        found.append(state_of(disk.image(tmp_path / f"cut-{len(found)}")))  # what fsync promised
        found.append(state_of(place))  # what a kill at this moment leaves

    disk.before = cut
    with watched(disk):
        learner.save(place)
    disk.before()
    assert len(found) > 40
    assert set(found[::2]) == set(found[1::2]) == {BEFORE, AFTER}
    assert found[::2] == sorted(found[::2], key=(BEFORE, AFTER).index)  # once it is after, it stays so
    assert found[-2:] == [AFTER, AFTER]


def test_a_failing_call_is_told_and_the_model_is_before_or_after(model: Path, learner: Learner, tmp_path: Path) -> None:
    for fail_at in count():
        place = Path(shutil.copytree(model, tmp_path / str(fail_at)))
        disk = Disk(place)
        disk.fail_at = fail_at
        told = ""
        with watched(disk):
            try:
                learner.save(place)
            except StorageError as failure:
                told = str(failure)
        state = state_of(place)
        if not told:  # only what comes behind the last step that matters may fail without a word
            assert state == AFTER
        else:
            assert "No space left on device" in told
            assert state == (AFTER if "config.json" in told and "untouched" not in told else BEFORE), told
        if disk.calls <= fail_at:  # there is no such call any more
            break
        learner.save(place)  # when the reason is gone, the next save succeeds and leaves nothing behind
        assert state_of(place) == AFTER
        assert not list(place.rglob("*.tmp"))
        assert len(list((place / "parts").iterdir())) == 4  # two tasks, the latest and an earlier version of a layer
    assert fail_at > 20
