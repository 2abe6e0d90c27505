"""The figures of a report, one file each. A function takes a Run and gives a Drawing, or None if there is nothing."""

from lasem.report.figures.accuracy_matrix import draw_accuracy_matrix
from lasem.report.figures.accuracy_over_time import draw_accuracy_over_time
from lasem.report.figures.drawing import Drawing
from lasem.report.figures.layers import draw_layer_probabilities
from lasem.report.figures.parameters import draw_parameters
from lasem.report.figures.probabilities import draw_probabilities
from lasem.report.figures.transfer_map import draw_transfer_map
from lasem.report.figures.tree import draw_tree

__all__ = [
    "Drawing",
    "draw_accuracy_matrix",
    "draw_accuracy_over_time",
    "draw_layer_probabilities",
    "draw_parameters",
    "draw_probabilities",
    "draw_transfer_map",
    "draw_tree",
]
