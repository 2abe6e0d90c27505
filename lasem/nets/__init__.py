"""Networks as blocks that may be transferred and a head that a task owns. Knows nothing of sharing."""

from lasem.nets.backbone import from_timm
from lasem.nets.block import (
    AbstractBlock,
    AbstractNet,
    ConvBlock,
    Head,
    InitialWeights,
    LinearBlock,
    PoolBorder,
    Preprocessing,
    Value,
    Weights,
    as_float32,
    full_precision,
    part_of,
    start_generator,
)
from lasem.nets.cut_block import CutBlock
from lasem.nets.cut_net import CutNet, cut
from lasem.nets.net import NETS, ImageShape, Net, cifar, digits, for_images, of_paper, office_home, rebuild, stl10
from lasem.nets.pretrained import from_transformers
from lasem.nets.resnet import ClosingBlock, OpeningBlock, ResNet, padded_resnet, resnet
from lasem.nets.small import NormalisedBlock, SmallNet, small
from lasem.nets.tracing import stage_groups

__all__ = [
    "NETS",
    "AbstractBlock",
    "AbstractNet",
    "ClosingBlock",
    "ConvBlock",
    "CutBlock",
    "CutNet",
    "Head",
    "ImageShape",
    "InitialWeights",
    "LinearBlock",
    "Net",
    "NormalisedBlock",
    "OpeningBlock",
    "PoolBorder",
    "Preprocessing",
    "ResNet",
    "SmallNet",
    "Value",
    "Weights",
    "as_float32",
    "cifar",
    "cut",
    "digits",
    "for_images",
    "from_timm",
    "from_transformers",
    "full_precision",
    "of_paper",
    "office_home",
    "padded_resnet",
    "part_of",
    "rebuild",
    "resnet",
    "small",
    "stage_groups",
    "start_generator",
    "stl10",
]
