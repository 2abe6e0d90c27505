"""Numbers that the authors of LASEM published, typed into ``published.csv`` from the talk of ICML 2021.

The tables have no names of their own in the talk; they are called here by what they compare. A stream is named by its
panel's key, a method by its label in the recipes. Accuracies are in percent. The brute-force table has training time
divided by LASEM's on the same data, the selective table thousands of seconds; the table of groups names no unit, and
its numbers suggest the same one.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from importlib.resources import files

from lasem.metrics import Statistic

Table = Mapping[tuple[str, str, str], Statistic]
"""(stream, method, quantity) -> mean and deviation over runs, which times do not have; accuracies as fractions."""


def _table(name: str) -> Table:
    found = {}
    with (files("paper") / "published.csv").open(encoding="utf-8") as file:
        for table, stream, method, peak, peak_deviation, ratio, ratio_deviation, time in csv.reader(file):
            if table == name:
                found[stream, method, "peak_accuracy"] = Statistic(float(peak) / 100, float(peak_deviation) / 100, 5)
                if ratio:
                    found[stream, method, "forgetting_ratio"] = Statistic(float(ratio), float(ratio_deviation), 5)
                if time:
                    found[stream, method, "time"] = Statistic(float(time), math.nan, 1)
    return found


BRUTE_FORCE, SELECTIVE, GROUPS = map(_table, ("brute-force", "selective", "groups"))
