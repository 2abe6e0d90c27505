"""Methods to compare with, one file each, on the same loop, data and records."""

from lasem.baselines.apd import APD
from lasem.baselines.den import DEN
from lasem.baselines.ewc import EWC
from lasem.baselines.gated import ChannelGated, LasemChannelGated
from lasem.baselines.hat import HAT
from lasem.baselines.joint import Joint
from lasem.baselines.learner import BaselineLearner
from lasem.baselines.method import AbstractMethod, Learned, Model, Setup
from lasem.baselines.one_network import OneNetwork
from lasem.baselines.prognn import ProgNN
from lasem.baselines.wsn import WSN

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
