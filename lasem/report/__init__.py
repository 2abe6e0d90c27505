"""Reports of runs and comparisons from their files: tables, figures and HTML pages. This imports no matplotlib."""

from lasem.report.comparison import comparison_table, load_comparison, write_comparison
from lasem.report.experiment import write_accuracy_matrix
from lasem.report.frame import check_place
from lasem.report.page import console_table, write_report

__all__ = [
    "check_place",
    "comparison_table",
    "console_table",
    "load_comparison",
    "write_accuracy_matrix",
    "write_comparison",
    "write_report",
]
