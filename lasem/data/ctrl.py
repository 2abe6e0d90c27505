"""CTrL-mini: streams of any labelled images, of which it is known which earlier task helps a later one, and how.

Made after the CTrL benchmark ([Veniat2021]_), whose streams come from six data sets. Here one data set gives all
tasks. These are the differences, apart from sizes: CTrL has four tasks between the first and the last one; here a task
never has an image of another one; the transformations of ``s-in`` are CTrL's change of a background's colour replaced
by changes that suit any image; and ``s-long`` has 30 tasks with a known source where CTrL has 100 random ones.

.. [Veniat2021] T. Veniat, L. Denoyer, M. Ranzato. Efficient Continual Learning with Modular Networks and Task-Driven
   Priors. ICLR 2021.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Final, Literal, final

import torch
from torch import Tensor

from lasem.data.benchmarks.hub import Cifar100Reader
from lasem.data.decode import Channels
from lasem.data.digits import labelled_digits
from lasem.data.images import AbstractImages, TensorImages
from lasem.data.labelled import Labelled
from lasem.data.parquet import ParquetReader
from lasem.data.sources import Source
from lasem.data.split import Part, StandardiseSettings
from lasem.data.task import AbstractReader, Count, Task, TaskStream, Truth, child_generator, make_task
from lasem.errors import ConfigError, DataError
from lasem.settings import Range

Kind = Literal["s-minus", "s-plus", "s-in", "s-out", "s-pl", "s-long"]
Change = Literal["none", "labels", "channels", "inverted", "noise"]

_CLASSES, _IMAGES, _NOISE, _CHANGE, _ORDER = range(5)  # what a child generator is for
_TEST_SHARE: Final = 0.2
_NOISE_STD: Final = 40  # of 255
_SHARED: Final[dict[Change, Literal["all", "last"]]] = {"none": "all", "labels": "all"}


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What a task is, before any image is chosen."""

    large: bool = False
    source: int | None = None
    """The earlier task whose classes it has."""
    change: Change = "none"


@final
@dataclass(frozen=True, kw_only=True)
class CtrlReader(StandardiseSettings, AbstractReader):
    """A stream whose last task is related to its first one in a known way; see ``kind``.

    Between the two are tasks of other classes, which distract. Each task's truth goes into the records of a run: which
    earlier task is the right source, and which layers it shares (all but the head, the last ones, or none).
    """

    name: ClassVar[str] = "ctrl"

    kind: Kind = "s-minus"
    """``s-minus``: the last task has the classes of the first with fewer images (share all). ``s-plus``: with more
    images, the first has the fewer. ``s-in``: fewer images, and these are transformed (own first layers, share the
    last). ``s-out``: fewer images, and the labels are permuted (share all, but not the head). ``s-pl``: other classes,
    many images (share nothing). ``s-long``: half of the tasks have new classes and many images; each of the others is
    one of these again, in the way of ``s-minus``, ``s-out`` or ``s-in``."""
    source: Literal["digits", "cifar100", "files"] = "digits"
    """The images: those of scikit-learn, CIFAR-100, or a folder, list or parquet file at ``path``."""
    path: str | None = None
    """A file or folder; for cifar100 the folder of its files, none: ``~/.cache/lasem/cifar100``."""
    image_column: str = "image"
    """Of parquet files and lists."""
    label_column: str = "label"
    """Of parquet files and lists."""
    image_size: Annotated[int, Range(least=1, most=8192)] | None = None
    """Side that images of files are resized to; none: all must be equally large."""
    channels: Channels = 3
    """Of images of files: 3 for colour, 1 for grey."""
    classes_per_task: Annotated[int, Range(least=2)] | None = None
    """Classes of each task; none: as in CTrL 10, with ``s-long`` 5, or a third of the classes if that is fewer."""
    distractors: Annotated[int, Range(least=0)] = 5
    """Tasks between the first and the last one; not of ``s-long``."""
    num_tasks: Annotated[int, Range(least=2)] = 30
    """Tasks of ``s-long``."""
    train_large: Count = 90
    """Training images of each class, of tasks with many."""
    valid_large: Count = 10
    """Validation images of each class, of tasks with many."""
    train_small: Count = 10
    """Training images of each class, of all other tasks."""
    valid_small: Count = 5
    """Validation images of each class, of all other tasks."""
    test_per_class: Count | None = None
    """Test images of each class; none: as many as there are for all tasks with the class. If the data have no test
    split, they are taken from a fifth of the images that is set apart."""
    transformation: Literal["drawn", "channels", "inverted", "noise"] = "drawn"
    """What ``s-in`` does to images: permute the channels, invert them, or add noise; ``drawn``: one by the seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source == ("files" if self.path is None else "digits"):
            raise ConfigError(
                f"CtrlReader.path is needed for source files, may be set for cifar100, and is not used for digits; got "
                f"source {self.source} and path {self.path}."
            )

    def open(self, seed: int) -> TaskStream:
        data = self._labelled()
        num_channels = data.take(torch.arange(1)).shape[0]
        plans = self._plans(seed, num_channels)
        classes = self._classes(data, plans, seed)
        positions = self._positions(data, plans, classes, seed)

        def task_at(index: int) -> Task:
            plan, numbers, generator = plans[index], classes[index], child_generator(seed, _CHANGE, index)
            channels = _permuted(torch.arange(num_channels), generator)
            if plan.change == "labels":
                numbers = _permuted(numbers, generator)
            answer = {number: label for label, number in enumerate(numbers.tolist())}
            parts: list[tuple[AbstractImages, Tensor]] = []
            for part, used in zip(Part, positions[index], strict=True):
                images = data.take(used)
                if plan.change not in ("none", "labels"):
                    noise = child_generator(seed, _NOISE, index, part)
                    images = TensorImages(_changed(images.take(torch.arange(len(used))), plan.change, channels, noise))
                parts.append((images, torch.tensor([answer[number] for number in data.labels[used].tolist()])))
            names = [data.class_names[number] for number in numbers.tolist()]
            task = make_task(f"{self.name}-{index}", names, parts, self.standardise)
            known = Truth(f"{self.name}-{plan.source}", _SHARED.get(plan.change, "last"))
            return replace(task, truth=Truth(None, "none") if plan.source is None else known)

        return TaskStream.made_by(task_at, name=self.name, num_tasks=len(plans))

    def _labelled(self) -> Labelled:
        if self.source == "digits":
            return labelled_digits()
        if self.source == "cifar100":
            folder = Cifar100Reader(path=self.path).find()
            return ParquetReader(path=str(folder), image_column="img", label_column="fine_label").labelled()
        assert self.path is not None
        files = Source(path=self.path, image_column=self.image_column, label_column=self.label_column)
        return files.labelled(self.image_size, self.channels)

    def _plans(self, seed: int, channels: int) -> list[_Plan]:
        """Decide what every task is."""
        generator = child_generator(seed, _ORDER)
        suitable: list[Change] = ["channels", "inverted", "noise"][channels == 1 :]  # type: ignore[assignment]
        if self.transformation == "channels" and channels == 1:
            raise ConfigError("CtrlReader.transformation channels needs images in colour; got grey ones.")

        def transformed() -> Change:
            drawn = suitable[int(torch.randint(len(suitable), (), generator=generator))]
            return drawn if self.transformation == "drawn" else self.transformation

        if self.kind != "s-long":
            between = [_Plan()] * self.distractors
            if self.kind == "s-pl":
                return [_Plan(), *between, _Plan(large=True)]
            change: Change = {"s-in": transformed(), "s-out": "labels"}.get(self.kind, "none")
            more = self.kind == "s-plus"
            return [_Plan(large=not more), *between, _Plan(large=more, source=0, change=change)]
        plans, fresh, turn = [_Plan(large=True)], [0], 0
        new_left = (self.num_tasks - 1) // 2
        for index in range(1, self.num_tasks):
            # each source is repeated once: their images last, however many tasks there are
            if fresh and (new_left == 0 or bool(torch.randint(2, (), generator=generator))):
                source = fresh.pop(int(torch.randint(len(fresh), (), generator=generator)))
                changes: tuple[Change, ...] = ("none", "labels", transformed())
                plans.append(_Plan(source=source, change=changes[turn % 3]))
                turn += 1
            else:
                plans.append(_Plan(large=True))
                fresh.append(index)
                new_left -= 1
        return plans

    def _classes(self, data: Labelled, plans: list[_Plan], seed: int) -> list[Tensor]:
        """Draw every task's classes, ascending. Only tasks that distract may have classes in common."""
        present = torch.unique(data.labels)
        num = self.classes_per_task or max(2, min(5 if self.kind == "s-long" else 10, len(present) // 3))
        drawn = _permuted(present, child_generator(seed, _CLASSES))
        apart = [k for k, plan in enumerate(plans) if plan.source is None and (plan.large or k == 0)]
        between = [k for k, plan in enumerate(plans) if plan.source is None and k not in apart]
        least = num * (len(apart) + bool(between))
        if least > len(present):
            raise ConfigError(
                f"Stream ctrl, {self.kind}, needs {least} classes for its tasks of {num}; there are {len(present)}. "
                f"Set fewer classes_per_task{' or num_tasks' if self.kind == 's-long' else ''}."
            )
        chosen = dict(zip(apart, torch.split(drawn[: num * len(apart)], num), strict=True))
        rest, start = drawn[num * len(apart) :], 0
        for k in between:
            chosen[k] = rest[torch.arange(start, start + num) % len(rest)]
            start += num
        return [chosen[k if plan.source is None else plan.source].sort().values for k, plan in enumerate(plans)]

    def _positions(
        self, data: Labelled, plans: list[_Plan], classes: list[Tensor], seed: int
    ) -> list[tuple[Tensor, ...]]:
        """Deal the images of every class to the tasks that have it, each image once."""
        times = Counter(number for task in classes for number in task.tolist())
        apart = bool((data.parts == Part.TEST).any())
        left: dict[int, tuple[Tensor, Tensor]] = {}
        for number in times:
            of_class = torch.nonzero(data.labels == number).flatten()
            test = of_class[data.parts[of_class] == Part.TEST]
            train = _permuted(of_class[data.parts[of_class] != Part.TEST], child_generator(seed, _IMAGES, number))
            if not apart:
                test, train = torch.tensor_split(train, [round(_TEST_SHARE * len(train))])
            left[number] = train, _permuted(test, child_generator(seed, _IMAGES, number, Part.TEST))
        num_test = {number: self.test_per_class or max(1, len(left[number][1]) // num) for number, num in times.items()}
        dealt = []
        for plan, task in zip(plans, classes, strict=True):
            sizes = (self.train_large, self.valid_large) if plan.large else (self.train_small, self.valid_small)
            of_task: list[tuple[Tensor, ...]] = []
            for number in task.tolist():
                train, test = left[number]
                if len(train) < sum(sizes) or len(test) < num_test[number]:
                    raise DataError(
                        f"Class '{data.class_names[number]}' has too few images for the {times[number]} tasks with it, "
                        f"which share none: one needs {sum(sizes)} to train and validate and {num_test[number]} to "
                        f"test, {len(train)} and {len(test)} are left. Set smaller sizes (train_large, ...)."
                    )
                *mine, train = torch.tensor_split(train, [sizes[0], sum(sizes)])
                tested, test = test[: num_test[number]], test[num_test[number] :]
                of_task.append((*mine, tested))
                left[number] = train, test
            dealt.append(tuple(torch.cat(of_part).sort().values for of_part in zip(*of_task, strict=True)))
        return dealt


def _permuted(values: Tensor, generator: torch.Generator) -> Tensor:
    """Shuffle; two or more values never stay as they are."""
    while True:
        order = torch.randperm(len(values), generator=generator)
        if len(values) < 2 or not torch.equal(order, torch.arange(len(values))):
            return values[order]


def _changed(pixels: Tensor, change: Change, channels: Tensor, generator: torch.Generator) -> Tensor:
    """Transform uint8 images (N, channels, height, width)."""
    if change == "channels":
        return pixels[:, channels]
    if change == "inverted":
        return 255 - pixels
    noise = _NOISE_STD * torch.randn(pixels.shape, generator=generator)
    return (pixels + noise).round().clamp(0, 255).to(torch.uint8)
