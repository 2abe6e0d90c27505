"""Methods to compare with, one file each, on the same loop, data and records."""

from lasem.methods.apd import APD
from lasem.methods.den import DEN
from lasem.methods.ewc import EWC
from lasem.methods.gated import ChannelGated, LasemChannelGated
from lasem.methods.hat import HAT
from lasem.methods.joint import Joint
from lasem.methods.learner import BaselineLearner
from lasem.methods.method import AbstractMethod, Learned, Model, Setup
from lasem.methods.one_network import OneNetwork
from lasem.methods.prognn import ProgNN
from lasem.methods.wsn import WSN

METHODS: dict[str, type[AbstractMethod]] = {
    cls.name: cls for cls in (APD, DEN, EWC, Joint, OneNetwork, ProgNN, ChannelGated, LasemChannelGated, HAT, WSN)
}
"""The methods that a saved file or a command line can name; in Python, any AbstractMethod can be passed."""

__all__ = [
    "APD",
    "DEN",
    "EWC",
    "HAT",
    "METHODS",
    "WSN",
    "AbstractMethod",
    "BaselineLearner",
    "ChannelGated",
    "Joint",
    "LasemChannelGated",
    "Learned",
    "Model",
    "OneNetwork",
    "ProgNN",
    "Setup",
]
