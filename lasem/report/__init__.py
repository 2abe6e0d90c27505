"""Reports: files of a run in, tables, figures and one HTML page out. Importing this imports no matplotlib."""

from lasem.report.comparison import Comparison, MethodRow, is_finished, load_comparison
from lasem.report.comparison_page import comparison_table, write_comparison
from lasem.report.console import console_table
from lasem.report.matrix_csv import write_accuracy_matrix
from lasem.report.page import write_report
from lasem.report.tables import ResultTable, SeedTable, TaskOverSeeds, TaskRow, result_table

__all__ = [
    "Comparison",
    "MethodRow",
    "ResultTable",
    "SeedTable",
    "TaskOverSeeds",
    "TaskRow",
    "comparison_table",
    "console_table",
    "is_finished",
    "load_comparison",
    "result_table",
    "write_accuracy_matrix",
    "write_comparison",
    "write_report",
]
