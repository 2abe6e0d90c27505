"""Methods of learning tasks one after another, on the same loop, data and records."""

from lasem.methods.apd import APD as APD
from lasem.methods.den import DEN as DEN
from lasem.methods.gates import HAT as HAT
from lasem.methods.gates import ChannelGated as ChannelGated
from lasem.methods.gates import LasemChannelGated as LasemChannelGated
from lasem.methods.logistic import Logistic as Logistic
from lasem.methods.masks import WSN as WSN
from lasem.methods.masks import PackNet as PackNet
from lasem.methods.method import AbstractMethod as AbstractMethod
from lasem.methods.method import Learned as Learned
from lasem.methods.method import Setup as Setup
from lasem.methods.model import Model as Model
from lasem.methods.model import Parts as Parts
from lasem.methods.model import Route as Route
from lasem.methods.one_network import OneNetwork as OneNetwork
from lasem.methods.penalties import EWC as EWC
from lasem.methods.penalties import SI as SI
from lasem.methods.penalties import LwF as LwF
from lasem.methods.prognn import ProgNN as ProgNN
from lasem.methods.protection import PROTECTIONS as PROTECTIONS
from lasem.methods.protection import AbstractProtection as AbstractProtection
from lasem.methods.protection import Branch as Branch
from lasem.methods.protection import Freeze as Freeze
from lasem.methods.protection import Penalty as Penalty
from lasem.methods.protection import Unprotected as Unprotected
from lasem.methods.replay import ER as ER
from lasem.methods.replay import Joint as Joint
from lasem.methods.transfer import Transfer as Transfer

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
        Logistic,
    )
}
"""The methods apart from ``Transfer`` that a file or a command line can name; in Python, any object can be passed."""
