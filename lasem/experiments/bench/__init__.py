"""What methods cost, as ratios measured in one run; ``lasem bench`` prints them."""

from lasem.experiments.bench.row import Row, Scale, WrongResultError
from lasem.experiments.bench.suite import BENCHMARKS, FULL, SMOKE, run_benchmarks

__all__ = ["BENCHMARKS", "FULL", "SMOKE", "Row", "Scale", "WrongResultError", "run_benchmarks"]
