"""Networks as blocks that may be transferred and a head that a task owns. Knows nothing of sharing."""

from lasem.nets.block import AbstractBlock, ConvBlock, LinearBlock, Weights
from lasem.nets.head import Head
from lasem.nets.initial import InitialWeights, start_generator
from lasem.nets.net import Net
from lasem.nets.paper import NETS, ImageShape, cifar, digits, for_images, office_home, stl10

__all__ = [
    "NETS",
    "AbstractBlock",
    "ConvBlock",
    "Head",
    "ImageShape",
    "InitialWeights",
    "LinearBlock",
    "Net",
    "Weights",
    "cifar",
    "digits",
    "for_images",
    "office_home",
    "start_generator",
    "stl10",
]
