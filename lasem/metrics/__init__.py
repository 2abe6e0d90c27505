"""Metrics: pure functions of records. Formula, unit and source stand in each docstring."""

from lasem.metrics.accuracy import (
    average_incremental_accuracy,
    final_accuracies,
    learned_accuracies,
    mean_final_accuracy,
    mean_peak_accuracy,
)
from lasem.metrics.cost import (
    fraction_layers_shared,
    parameters_added,
    parameters_of_separate_models,
    parameters_shared,
    parameters_total,
    seconds_evaluating,
    seconds_training,
    transfer_frequencies,
)
from lasem.metrics.forgetting import (
    forgetting_chaudhry,
    forgetting_first_last,
    forgetting_libcontinual,
    forgetting_max_over_all,
    forgetting_renate,
)
from lasem.metrics.forgetting_ratio import forgetting_ratio_of_means, forgetting_ratios, mean_of_forgetting_ratios
from lasem.metrics.matrix import Matrix
from lasem.metrics.paired import PairedDifference, paired_difference, sign_flip_p_value
from lasem.metrics.run import Run, load_run, load_runs
from lasem.metrics.summary import QUANTITIES, Statistic, Summary, aggregate, statistic, summarise
from lasem.metrics.transfer import (
    backward_transfer,
    backward_transfer_gem_code,
    backward_transfer_libcontinual,
    backward_transfer_pairs,
    forward_transfer,
    forward_transfer_gem_code,
    forward_transfer_without_baseline,
    transfer_vs_single_task,
)

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
    "backward_transfer_gem_code",
    "backward_transfer_libcontinual",
    "backward_transfer_pairs",
    "final_accuracies",
    "forgetting_chaudhry",
    "forgetting_first_last",
    "forgetting_libcontinual",
    "forgetting_max_over_all",
    "forgetting_ratio_of_means",
    "forgetting_ratios",
    "forgetting_renate",
    "forward_transfer",
    "forward_transfer_gem_code",
    "forward_transfer_without_baseline",
    "fraction_layers_shared",
    "learned_accuracies",
    "load_run",
    "load_runs",
    "mean_final_accuracy",
    "mean_of_forgetting_ratios",
    "mean_peak_accuracy",
    "paired_difference",
    "parameters_added",
    "parameters_of_separate_models",
    "parameters_shared",
    "parameters_total",
    "seconds_evaluating",
    "seconds_training",
    "sign_flip_p_value",
    "statistic",
    "summarise",
    "transfer_frequencies",
    "transfer_vs_single_task",
]
