"""Reports of runs and comparisons from their files: tables, figures and HTML pages. This imports no matplotlib."""

from lasem.report.comparison import comparison_table as comparison_table
from lasem.report.comparison import load_comparison as load_comparison
from lasem.report.comparison import write_comparison as write_comparison
from lasem.report.experiment import write_accuracy_matrix as write_accuracy_matrix
from lasem.report.frame import check_place as check_place
from lasem.report.page import console_table as console_table
from lasem.report.page import write_report as write_report
