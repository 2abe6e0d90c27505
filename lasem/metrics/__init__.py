"""Metrics: pure functions of records. Formula, unit and source are in each docstring."""

from lasem.metrics.accuracy import Matrix, average_incremental_accuracy, mean_final_accuracy, mean_peak_accuracy
from lasem.metrics.cost import parameters_of_separate_models, seconds_evaluating, seconds_training
from lasem.metrics.forgetting import (
    forgetting_chaudhry,
    forgetting_ratio_of_means,
    forgetting_ratios,
    mean_of_forgetting_ratios,
)
from lasem.metrics.run import QUANTITIES, Run, Statistic, Summary, aggregate, load_run, load_runs, statistic, summarise
from lasem.metrics.significance import PairedDifference, paired_difference, sign_flip_p_value
from lasem.metrics.transfer import backward_transfer, fraction_layers_shared, transfer_frequencies

__all__ = [
    "QUANTITIES",
    "Matrix",
    "PairedDifference",
    "Run",
    "Statistic",
    "Summary",
    "aggregate",
    "average_incremental_accuracy",
    "backward_transfer",
    "forgetting_chaudhry",
    "forgetting_ratio_of_means",
    "forgetting_ratios",
    "fraction_layers_shared",
    "load_run",
    "load_runs",
    "mean_final_accuracy",
    "mean_of_forgetting_ratios",
    "mean_peak_accuracy",
    "paired_difference",
    "parameters_of_separate_models",
    "seconds_evaluating",
    "seconds_training",
    "sign_flip_p_value",
    "statistic",
    "summarise",
    "transfer_frequencies",
]
