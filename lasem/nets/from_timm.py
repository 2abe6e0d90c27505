"""Models of timm as networks, by name (optional extra ``timm``).

timm needs a torchvision that fits torch, which machines without a GPU often have not; see the tests for what was run.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from lasem.errors import ConfigError, nearest
from lasem.nets.cut_net import Blocks, CutNet, cut


def from_timm(
    name: str,
    *,
    pretrained: bool = False,
    image_shape: tuple[int, int, int] | None = None,
    blocks: Blocks = "auto",
    rank: int | None = None,
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
) -> CutNet:
    """The model of that name without its classifier, cut into blocks.

    A saved learner holds the name: ``Learner.load`` builds the model again, with ``pretrained`` from the copy of its
    weights that timm keeps on the machine, or from the network.

    Args:
        name: as ``timm.list_models()`` has it.
        pretrained: whether its weights are the first shared knowledge; timm downloads them.
        image_shape: channels, height and width of the images; None: what the model was made for.
        blocks: see ``cut``.
        rank: see ``cut``.
        hidden: see ``cut``.
        dropout: see ``cut``.

    Raises:
        ConfigError: if timm cannot be imported, knows no such model, or the model cannot be cut.
    """
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"from_timm needs the package timm, which does not import here ({error}). Install it with a torchvision "
            f"that fits torch: pip install 'lasem[timm]'."
        ) from error
    if not timm.is_model(name):
        raise ConfigError(f"timm has no model '{name}'.{nearest(name, timm.list_models())}")
    model = _created(timm, name, pretrained, image_shape)
    given = tuple(int(size) for size in model.pretrained_cfg["input_size"]) if image_shape is None else image_shape
    net = cut(
        model,
        blocks,
        image_shape=(given[0], given[1], given[2]),
        pretrained=pretrained,
        rank=rank,
        classifier=None,
        hidden=hidden,
        dropout=dropout,
    )
    groups = blocks if isinstance(blocks, str) else [[b] if isinstance(b, str) else list(b) for b in blocks]
    return net.built_from({"kind": "timm", "name": name, "cut": groups, "rank": rank})


def _created(timm: Any, name: str, pretrained: bool, image_shape: tuple[int, int, int] | None) -> Any:
    settings: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0}
    if image_shape is None:
        return timm.create_model(name, **settings)
    settings["in_chans"] = image_shape[0]
    size = {"img_size": tuple(image_shape[1:])}  # only models with positions ask for it, some for one at a time
    for further in ({**size, "dynamic_img_size": False}, size):
        with suppress(TypeError):
            return timm.create_model(name, **settings, **further)
    return timm.create_model(name, **settings)
