"""Networks as blocks that may be transferred and a head that a task owns. Knows nothing of sharing."""

from lasem.nets.abstract import AbstractNet
from lasem.nets.block import AbstractBlock, ConvBlock, LinearBlock, Value, Weights
from lasem.nets.changed_block import ChangedBlock
from lasem.nets.cut_block import CutBlock
from lasem.nets.cut_net import CutNet, cut
from lasem.nets.exact import full_precision
from lasem.nets.from_timm import from_timm
from lasem.nets.from_transformers import from_transformers
from lasem.nets.head import Head
from lasem.nets.initial import InitialWeights, start_generator
from lasem.nets.net import Net
from lasem.nets.paper import NETS, ImageShape, cifar, digits, for_images, office_home, resnet, stl10
from lasem.nets.resnet import ClosingBlock, OpeningBlock, ResNet
from lasem.nets.stored import rebuild

__all__ = [
    "NETS",
    "AbstractBlock",
    "AbstractNet",
    "ChangedBlock",
    "ClosingBlock",
    "ConvBlock",
    "CutBlock",
    "CutNet",
    "Head",
    "ImageShape",
    "InitialWeights",
    "LinearBlock",
    "Net",
    "OpeningBlock",
    "ResNet",
    "Value",
    "Weights",
    "cifar",
    "cut",
    "digits",
    "for_images",
    "from_timm",
    "from_transformers",
    "full_precision",
    "office_home",
    "rebuild",
    "resnet",
    "start_generator",
    "stl10",
]
