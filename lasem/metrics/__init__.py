"""Metrics: pure functions of records. Formula, unit and source are in each docstring."""

from lasem.metrics.run import QUANTITIES as QUANTITIES
from lasem.metrics.run import Matrix as Matrix
from lasem.metrics.run import PairedDifference as PairedDifference
from lasem.metrics.run import Run as Run
from lasem.metrics.run import Statistic as Statistic
from lasem.metrics.run import Summary as Summary
from lasem.metrics.run import aggregate as aggregate
from lasem.metrics.run import average_incremental_accuracy as average_incremental_accuracy
from lasem.metrics.run import backward_transfer as backward_transfer
from lasem.metrics.run import difference_over_seeds as difference_over_seeds
from lasem.metrics.run import forgetting_chaudhry as forgetting_chaudhry
from lasem.metrics.run import forgetting_ratio_of_means as forgetting_ratio_of_means
from lasem.metrics.run import forgetting_ratios as forgetting_ratios
from lasem.metrics.run import fraction_layers_shared as fraction_layers_shared
from lasem.metrics.run import load_run as load_run
from lasem.metrics.run import load_runs as load_runs
from lasem.metrics.run import mean_final_accuracy as mean_final_accuracy
from lasem.metrics.run import mean_of_forgetting_ratios as mean_of_forgetting_ratios
from lasem.metrics.run import mean_peak_accuracy as mean_peak_accuracy
from lasem.metrics.run import paired_difference as paired_difference
from lasem.metrics.run import seconds_evaluating as seconds_evaluating
from lasem.metrics.run import seconds_training as seconds_training
from lasem.metrics.run import sign_flip_p_value as sign_flip_p_value
from lasem.metrics.run import statistic as statistic
from lasem.metrics.run import summarise as summarise
from lasem.metrics.run import transfer_frequencies as transfer_frequencies
