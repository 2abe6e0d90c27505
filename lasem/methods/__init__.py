"""Methods of learning tasks one after another, one file each, on the same loop, data and records."""

from lasem.methods.apd import APD
from lasem.methods.den import DEN
from lasem.methods.er import ER
from lasem.methods.ewc import EWC
from lasem.methods.gated import ChannelGated, LasemChannelGated
from lasem.methods.hat import HAT
from lasem.methods.joint import Joint
from lasem.methods.lwf import LwF
from lasem.methods.method import AbstractMethod, Learned, Setup
from lasem.methods.model import Model, Parts, Route
from lasem.methods.one_network import OneNetwork
from lasem.methods.packnet import PackNet
from lasem.methods.prognn import ProgNN
from lasem.methods.protection import PROTECTIONS, AbstractProtection, Branch, Freeze, Penalty, Unprotected
from lasem.methods.si import SI
from lasem.methods.transfer import Transfer
from lasem.methods.wsn import WSN

METHODS: dict[str, type[AbstractMethod]] = {
    cls.name: cls
    for cls in (
        APD,
        DEN,
        EWC,
        Joint,
        OneNetwork,
        ProgNN,
        ChannelGated,
        LasemChannelGated,
        HAT,
        WSN,
        SI,
        PackNet,
        LwF,
        ER,
    )
}
"""The methods apart from ``Transfer`` that a file or a command line can name; in Python, any object can be passed."""

__all__ = [
    "APD",
    "DEN",
    "ER",
    "EWC",
    "HAT",
    "METHODS",
    "PROTECTIONS",
    "SI",
    "WSN",
    "AbstractMethod",
    "AbstractProtection",
    "Branch",
    "ChannelGated",
    "Freeze",
    "Joint",
    "LasemChannelGated",
    "Learned",
    "LwF",
    "Model",
    "OneNetwork",
    "PackNet",
    "Parts",
    "Penalty",
    "ProgNN",
    "Route",
    "Setup",
    "Transfer",
    "Unprotected",
]
