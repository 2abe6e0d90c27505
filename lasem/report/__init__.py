"""Reports of runs and comparisons from their files: tables, figures and HTML pages. This imports no matplotlib."""

from lasem.report.comparison import Comparison, MethodRow, is_finished, load_comparison
from lasem.report.comparison_page import comparison_table, write_comparison
from lasem.report.experiment import write_accuracy_matrix
from lasem.report.page import console_table, write_report

__all__ = [
    "Comparison",
    "MethodRow",
    "comparison_table",
    "console_table",
    "is_finished",
    "load_comparison",
    "write_accuracy_matrix",
    "write_comparison",
    "write_report",
]
