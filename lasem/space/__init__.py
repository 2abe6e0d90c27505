"""Configurations of transferable layers, spaces of them, and their evaluation in one pass."""

from lasem.space.configuration import Configuration as Configuration
from lasem.space.configuration import Pattern as Pattern
from lasem.space.configuration import Space as Space
from lasem.space.configuration import alternating as alternating
from lasem.space.configuration import bits_of as bits_of
from lasem.space.configuration import bottom as bottom
from lasem.space.configuration import factorised as factorised
from lasem.space.configuration import full as full
from lasem.space.configuration import grouped as grouped
from lasem.space.configuration import layers_in_words as layers_in_words
from lasem.space.configuration import listed as listed
from lasem.space.configuration import prefixes as prefixes
from lasem.space.configuration import top as top
from lasem.space.configuration import transfer_all as transfer_all
from lasem.space.configuration import transfer_none as transfer_none
from lasem.space.prefix_tree import PrefixTree as PrefixTree
from lasem.space.prefix_tree import positions as positions
from lasem.space.prefix_tree import stacked as stacked
from lasem.space.prefix_tree import unstacked as unstacked
