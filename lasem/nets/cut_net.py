"""Torch modules as networks: cut into blocks that may be transferred, with a head for each task after them."""

import copy
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from lasem.data import Tokenizer, Vocabulary
from lasem.errors import ConfigError, StorageError, nearest
from lasem.nets.block import AbstractBlock, AbstractNet, Head, InitialWeights, Preprocessing, check_image_shape
from lasem.nets.cut_block import ChangedBlock, CutBlock
from lasem.nets.tracing import Flow, automatic_borders, borders, without_dropout
from lasem.settings import Range, flat, from_plain, to_plain

Blocks = Literal["auto"] | Sequence[str | Sequence[str]]
Statistics = Literal["pretrained", "measured"]
Trainable = Literal["all", "norm"]


@final
class CutNet(AbstractNet):
    """The result of ``cut``. A saved model describes it and holds none of its code."""

    initial: InitialWeights = "he"

    def __init__(
        self,
        blocks: tuple[CutBlock, ...] | tuple[ChangedBlock, ...],
        head: Head,
        image_shape: tuple[int, int, int],
    ) -> None:
        """Take the parts."""
        self._blocks, self._head, self.image_shape = blocks, head, image_shape
        self._source: dict[str, Any] = {"kind": "cut"}

    @property
    def blocks(self) -> tuple[AbstractBlock, ...]:
        return self._blocks

    @property
    def head(self) -> Head:
        return self._head

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        if self._source["kind"] == "cut" or not self.pretrained:
            return {}
        return {name: value for block in self._blocks for name, value in block.module_tensors.items()}

    def for_images(self, image_shape: tuple[int, int, int], side: int | None) -> "CutNet":
        """Return the same network for images that it enlarges to a side first; None: as they are."""
        self._blocks[0].enlarge_to(side)
        net = copy.copy(self)
        net.image_shape = image_shape
        return net

    def built_from(
        self,
        source: dict[str, Any],
        vocabulary: Vocabulary | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> "CutNet":
        """Return the same network with what it is built from again, if it can be without its module.

        With a ``vocabulary`` if it reads texts, or ``preprocessing``.
        """
        net = copy.copy(self)
        net._source, net.vocabulary, net.preprocessing = source, vocabulary, preprocessing
        net.origin = str(source.get("origin", ""))
        return net

    @property
    def source(self) -> dict[str, Any]:
        """What the network is built from again."""
        return dict(self._source)

    def description(self) -> dict[str, Any]:
        """Describe names and shapes of everything, with checksums of tensors that a saved model does not hold.

        These are constants, and the weights of a pretrained module, from which later tasks' own layers start.
        """
        blocks = [
            {
                "name": block.name,
                "weights": {name: list(shape) for name, shape in block.shapes.items()},
                "statistics": {name: list(shape) for name, shape in block.statistics.items()},
            }
            for block in self._blocks
        ]
        return {
            **self._source,
            "image_shape": list(self.image_shape),
            **({} if self._blocks[0].side is None else {"side": self._blocks[0].side}),
            "blocks": blocks,
            "head": {**asdict(self._head), "hidden": list(self._head.hidden)},
            "constants": self._sums[0],
            "pretrained": self._sums[1],
            **({} if self.preprocessing is None else {"preprocessing": to_plain(self.preprocessing)}),
        }

    @cached_property
    def _sums(self) -> tuple[str, str | None]:
        start = [block.initial(torch.Generator(), self.initial) for block in self._blocks if block.pretrained]
        return _checksum([block.constants for block in self._blocks]), _checksum(start) if start else None


@final
class StoredNet(AbstractNet):
    """A cut network that a saved model describes. It is built when its blocks are first needed."""

    initial: InitialWeights = "he"

    def __init__(self, description: Mapping[str, Any], build: Callable[[Mapping[str, Any]], CutNet]) -> None:
        """Take a description and the function that builds its network."""
        self._description, self._build = description, build
        channels, height, width = map(int, description["image_shape"])
        self.image_shape, self.origin = (channels, height, width), str(description.get("origin", ""))
        if "preprocessing" in description:
            self.preprocessing = from_plain(Preprocessing, description["preprocessing"], "preprocessing")
        if "vocabulary" in description.get("texts", {}):
            self.vocabulary = replace(
                from_plain(Vocabulary, description["texts"]["vocabulary"], "vocabulary"), tokenizer=self._tokenizer
            )

    @property
    def depth(self) -> int:
        return len(self._description["blocks"])

    @property
    def pretrained(self) -> bool:
        return self._description["pretrained"] is not None

    @property
    def block_names(self) -> Sequence[str]:
        return [str(block["name"]) for block in self._description["blocks"]]

    @property
    def block_shapes(self) -> Sequence[Mapping[str, tuple[int, ...]]]:
        return [{k: tuple(v) for k, v in block["weights"].items()} for block in self._description["blocks"]]

    @property
    def head(self) -> Head:
        head = self._description["head"]
        return Head(int(head["in_features"]), tuple(map(int, head["hidden"])), float(head["dropout"]))

    @property
    def blocks(self) -> tuple[AbstractBlock, ...]:
        return self._net.blocks

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return self._net.tensors

    def description(self) -> dict[str, Any]:
        return dict(self._description)

    def _tokenizer(self) -> Tokenizer | None:
        tokenizer = self._net.vocabulary and self._net.vocabulary.tokenizer
        return tokenizer() if tokenizer else None

    @cached_property
    def _net(self) -> CutNet:
        net = self._build(self._description)
        check_described(self._description, net)
        return net


def check_described(description: Mapping[str, Any], net: AbstractNet) -> None:
    """Raise StorageError unless a network is the one that a saved model describes."""
    stored, found = flat(description), flat(net.description())
    differing = sorted(name for name in stored.keys() | found.keys() if stored.get(name) != found.get(name))
    if differing:
        first = "; ".join(f"{n}: {stored.get(n, 'none')}, got {found.get(n, 'none')}" for n in differing[:3])
        raise StorageError(f"The model was saved with another network ({first}). Pass net=... as it was then.")


def _checksum(tensors: Sequence[Mapping[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for i, part in enumerate(tensors):
        for name, value in sorted(part.items()):
            digest.update(f"{i} {name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def cut(
    module: nn.Module,
    blocks: Blocks = "auto",
    *,
    image_shape: tuple[int, int, int],
    pretrained: bool = True,
    rank: int | None = None,
    trainable: Trainable = "all",
    classifier: str | None = "auto",
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
    example: Tensor | None = None,
    statistics: Statistics = "measured",
) -> CutNet:
    """Cut a module into blocks that may be transferred, and put every task's own head after them.

    Between two blocks one tensor passes; skip connections lie within a block. The module is copied: training does not
    change it. Normalisation layers measure running statistics for each task (and, while configurations are searched,
    for each path through the network by itself), unless ``statistics`` says otherwise. Dropout and stochastic
    depth within blocks are switched off, and the network's ``remark`` says so.

    Args:
        module: from images (batch, channels, height, width) to one tensor (batch, ...).
        blocks: ``"auto"``: every stretch of the module with a matrix or a convolution between two places that one
            tensor passes. Or names of submodules, input side first, each a block; a tuple of names is one block of
            several submodules. A step without weights, such as activation and pooling, goes with the block before it.
        image_shape: channels, height and width of the images.
        pretrained: whether the module's weights are the first shared knowledge, and the start of task-specific weights
            that take nothing over. If not, only its structure is used, and weights are drawn with the learner's seed.
        rank: of a pretrained module, all of whose weights then stay as they are: tasks transfer or learn for themselves
            a change of its kernels of this rank (``ChangedBlock``); None: they transfer or learn the weights.
        trainable: of a pretrained module: which weights tasks transfer or learn: ``"all"``, or only scales and shifts
            of normalisation layers, ``"norm"``; all else stays the module's, and blocks without any join others if
            ``blocks`` is ``"auto"``.
        classifier: name of the linear layer that heads replace; ``"auto"``: the last layer of the module, if it is
            linear; None: there is none.
        hidden: hidden layers of the head.
        dropout: share of the features that training drops, once, where the head begins; in [0, 1).
        example: two images (2, channels, height, width) for a trial of the module; None: random numbers.
        statistics: of a pretrained module's normalisation layers: ``"pretrained"``: always the module's.
            ``"measured"``: each task measures its own, but of frozen layers (``train_shared=False``) that it transfers.

    Raises:
        ConfigError: if the module cannot be cut like that. The message says which submodule is in the way.
    """
    Range(least=0, below=1).check("dropout", dropout)
    if rank is not None:
        Range(least=1).check("rank", rank)
        if not pretrained:
            raise ConfigError("With a rank the module's weights stay as they are, so pretrained must be True.")
    if trainable != "all" and (rank is not None or not pretrained):
        raise ConfigError("With trainable='norm' all else stays the module's: pretrained must be True, and rank None.")
    check_image_shape("image_shape", image_shape)
    module = copy.deepcopy(module).float().cpu()
    still = without_dropout(module)
    given = () if isinstance(blocks, str) else blocks
    groups = [(entry,) if isinstance(entry, str) else tuple(entry) for entry in given]
    names = [name for group in groups for name in group]
    if isinstance(blocks, str) and blocks != "auto":
        raise ConfigError(f"blocks must be 'auto' or a sequence of submodules' names; got '{blocks}'.")
    if blocks != "auto" and (not groups or not all(groups)):
        raise ConfigError("blocks needs at least one submodule in each block; got none.")
    known = [name for name, _ in module.named_modules() if name]
    for name in (name for name in names if name not in known):
        direct = ", ".join(name for name, _ in module.named_children()) or "none"
        raise ConfigError(
            f"{type(module).__name__} has no submodule '{name}' (there are: {direct}).{nearest(name, known)}"
        )
    flow = Flow(module, names)
    replaced = flow.cut_before_classifier(classifier, names)
    if not flow.steps:
        raise ConfigError(f"{type(module).__name__} has nothing before its classifier; there is no layer to transfer.")
    begins = borders(flow, groups) if groups else automatic_borders(flow)
    if trainable == "norm":
        for part in module.modules():
            if "norm" not in type(part).__name__.lower():
                for parameter in part.parameters(recurse=False):
                    parameter.requires_grad_(False)
        if not groups:
            ends = [*begins[1:], len(flow.steps)]
            with_any = [a for a, b in zip(begins, ends, strict=True) if any(map(flow.parameters_of, flow.steps[a:b]))]
            begins = [0, *with_any[1:]]
    stretches = list(zip(begins, [*begins[1:], len(flow.steps)], strict=True))
    parts = [flow.part(*stretch) for stretch in stretches]
    x = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0)) if example is None else example
    expected = _features_of(module, replaced, x)
    titles = [group[0] for group in groups] or [flow.title(*stretch) for stretch in stretches]
    cut_blocks, features = _make_blocks(parts, titles, x, pretrained=pretrained, statistics=statistics)
    if not agree(features, expected):
        raise ConfigError(
            f"The blocks of {type(module).__name__} one after another give something else than the module does: it "
            f"changes values in place, or keeps some between its steps. Use fewer, larger blocks."
        )
    head = Head(math.prod(features.shape[1:]), tuple(hidden), dropout)
    changed = cut_blocks if rank is None else _changed_blocks(cut_blocks, rank, x)
    net = CutNet(changed, head, (image_shape[0], image_shape[1], image_shape[2]))
    if still:
        further = f" and {len(still) - 3} more" if len(still) > 3 else ""
        net.remark = f"Dropout within {type(module).__name__} is off ({', '.join(still[:3])}{further})."
    return net


def agree(found: Tensor, expected: Tensor) -> bool:
    """Return whether two results are the same up to rounding, which grows with the largest number."""
    if found.shape != expected.shape:
        return False
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@torch.no_grad()
def _features_of(module: nn.Module, classifier: nn.Linear | None, x: Tensor) -> Tensor:
    """Return the inputs of a module's classifier for images, in evaluation; without a classifier, the outputs."""
    seen: list[Any] = []
    handle = classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0])) if classifier else None
    try:
        out = module.eval()(x)
    except Exception as error:  # anything that the module's own code raises
        raise ConfigError(
            f"{type(module).__name__} cannot take images of shape {tuple(x.shape[1:])}: {error}. Give the image_shape "
            f"that it is made for."
        ) from error
    finally:
        if handle is not None:
            handle.remove()
    features = seen[0] if seen else out
    if not isinstance(features, Tensor):
        raise ConfigError(f"{type(module).__name__} gives a {type(features).__name__}; expected one tensor.")
    return features


@torch.no_grad()
def _make_blocks(
    parts: Sequence[nn.Module], names: Sequence[str], x: Tensor, *, pretrained: bool, statistics: Statistics
) -> tuple[tuple[CutBlock, ...], Tensor]:
    """Make blocks of the parts of a module, for two random images, and return them with the output of the last."""
    blocks: list[CutBlock] = []
    block_of: dict[int, str] = {}
    for part, name in zip(parts, names, strict=True):
        for path, parameter in part.named_parameters():
            other = block_of.setdefault(id(parameter), name)
            if other != name:
                raise ConfigError(
                    f"Parameter '{path}' is used in two blocks, '{other}' and '{name}'. Group them into one block."
                )
        if not any(parameter.requires_grad for parameter in part.parameters()):
            raise ConfigError(
                f"Block '{name}' has no weights that require gradients (or, with trainable='norm', no normalisation "
                f"with any). Group it with another block."
            )
        trained = copy.deepcopy(part).train()
        changed = _changed_by(trained, x, name)
        measured = frozenset[str]() if pretrained and statistics == "pretrained" else changed
        block = CutBlock(part, name, statistics=measured, pretrained=pretrained)
        out = _evaluated(part, x, name)
        _check_same(block, part, x, out)
        block.any_layout = x.ndim == 4 and _takes_channels_last(block, part, x, out)
        block.forgets = not _follows(block, trained, x[:1])
        blocks.append(block)
        x = out
    return tuple(blocks), x


@torch.no_grad()
def _changed_blocks(blocks: Sequence[CutBlock], rank: int, x: Tensor) -> tuple[ChangedBlock, ...]:
    """Make blocks whose weights are changes, which layers compute by themselves where a trial agrees."""
    changed_blocks = []
    for block in blocks:
        changed, source = ChangedBlock(block, rank), torch.Generator().manual_seed(0)
        drawn = {n: torch.randn(s, generator=source) / math.sqrt(s[-1]) for n, s in changed.shapes.items()}
        expected = changed.apply(drawn, x)
        changed.is_apart = True
        try:
            changed.is_apart = agree(changed.apply(drawn, x), expected)
        except Exception:  # anything that the module's own code raises where layers are called in another way
            changed.is_apart = False
        changed_blocks.append(changed)
        x = block.apply({}, x)
    return tuple(changed_blocks)


def _check_same(block: CutBlock, part: nn.Module, x: Tensor, expected: Tensor) -> None:
    """Raise ConfigError if the block with the part's weights does not compute the same as the part."""
    difference = "something else than its submodules do"
    try:
        if agree(block.apply({**dict(part.named_parameters()), **dict(part.named_buffers())}, x.clone()), expected):
            return
    except Exception as error:  # anything that the module's own code raises
        difference = f"{type(error).__name__}: {error}"
    raise ConfigError(
        f"Block '{block.name}' cannot be run with weights that are given to it ({difference}): it computes with "
        f"tensors that are neither its parameters nor its buffers. Register them, or write that layer in plain "
        f"operations."
    )


def _takes_channels_last(block: CutBlock, part: nn.Module, x: Tensor, expected: Tensor) -> bool:
    block.any_layout = True
    weights = {**dict(part.named_parameters()), **dict(part.named_buffers())}
    try:
        found = block.apply(weights, x.clone(memory_format=torch.channels_last))
    except RuntimeError:
        return False
    return bool(agree(found, expected))


def _follows(block: CutBlock, trained: nn.Module, x: Tensor) -> bool:
    """Return whether a block that has run follows other weights, as the same module does that was only trained."""
    changed = {name: value * 1.1 + 0.1 * value.roll(1) for name, value in block.start.items()}
    given = block.constants | block.initial_statistics() | changed
    expected = torch.func.functional_call(trained.eval(), given, (x.clone(),))
    return agree(block.apply(given, x.clone()), expected)


def _changed_by(trained: nn.Module, x: Tensor, name: str) -> frozenset[str]:
    """Train a module on a mini-batch, and return the names of buffers that change."""
    before = {key: value.clone() for key, value in trained.named_buffers()}
    with torch.random.fork_rng(devices=[]):
        source = torch.random.get_rng_state()
        trained(x.clone())
        if not torch.equal(source, torch.random.get_rng_state()):
            raise ConfigError(
                f"Block '{name}' draws random numbers in training; blocks must be functions of weights and inputs. "
                f"Set its rates to 0 (the head has cut's dropout=...)."
            )
    return frozenset(key for key, value in trained.named_buffers() if not torch.equal(value, before[key]))


def _evaluated(part: nn.Module, x: Tensor, name: str) -> Tensor:
    given = x.clone()
    out = part.eval()(given)
    if not isinstance(out, Tensor) or out.ndim < 2 or len(out) != len(x):
        what = f"a tensor of shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise ConfigError(
            f"Block '{name}' gives {what} for {len(x)} images; expected one tensor of shape ({len(x)}, ...). Group it "
            f"with the block after it."
        )
    if not torch.equal(given, x):
        raise ConfigError(
            f"Block '{name}' changes its input in place, which other branches need as it is. Set inplace=False in its "
            f"first layer, or group it with the block before it."
        )
    if not agree(part(x[:1]), out[:1]):
        raise ConfigError(
            f"What block '{name}' gives for an image depends on the other images of the batch, also in evaluation. "
            f"Normalisation layers need running statistics (track_running_stats=True)."
        )
    return out
