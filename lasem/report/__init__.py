"""Reports: files of a run in, tables, figures and one HTML page out. Importing this imports no matplotlib."""

from lasem.report.console import console_table
from lasem.report.matrix_csv import write_accuracy_matrix
from lasem.report.page import write_report
from lasem.report.tables import ResultTable, SeedTable, TaskOverSeeds, TaskRow, result_table

__all__ = [
    "ResultTable",
    "SeedTable",
    "TaskOverSeeds",
    "TaskRow",
    "console_table",
    "result_table",
    "write_accuracy_matrix",
    "write_report",
]
