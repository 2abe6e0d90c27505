"""Numbers that the authors of LASEM published, typed in from the talk of ICML 2021. Accuracies in percent, mean ± std.

The tables have no names of their own in the talk; they are called here by what they compare. A stream is named by its
panel's key, a method by its label in the recipes.
"""

from __future__ import annotations

from typing import Final

CIFAR_10: Final = "cifar100-10"
CIFAR_40: Final = "cifar100-40"
OFFICE_HOME: Final = "office-home"

_NAN = float("nan")

Table = dict[tuple[str, str], tuple[float, float]]
"""(stream, method) -> (mean, deviation over runs)."""

BRUTE_FORCE_ACCURACY: Final[Table] = {
    (CIFAR_10, "lasem-hps"): (39.3, 0.1),
    (CIFAR_10, "exhaustive-hps"): (40.4, 0.3),
    (CIFAR_10, "all-hps"): (24.7, 0.6),
    (CIFAR_10, "lasem-tf"): (38.4, 0.5),
    (CIFAR_10, "exhaustive-tf"): (39.9, 1.1),
    (CIFAR_10, "all-tf"): (36.3, 1.0),
    (CIFAR_10, "lasem-dfcnn"): (42.0, 0.6),
    (CIFAR_10, "exhaustive-dfcnn"): (42.6, 0.7),
    (CIFAR_10, "all-dfcnn"): (36.3, 1.3),
    (OFFICE_HOME, "lasem-hps"): (58.4, 0.9),
    (OFFICE_HOME, "exhaustive-hps"): (59.4, 0.2),
    (OFFICE_HOME, "all-hps"): (54.9, 0.7),
    (OFFICE_HOME, "lasem-tf"): (59.1, 1.0),
    (OFFICE_HOME, "exhaustive-tf"): (58.7, 0.3),
    (OFFICE_HOME, "all-tf"): (56.2, 0.7),
    (OFFICE_HOME, "lasem-dfcnn"): (59.5, 1.1),
    (OFFICE_HOME, "exhaustive-dfcnn"): (58.8, 0.3),
    (OFFICE_HOME, "all-dfcnn"): (49.1, 0.6),
}
"""Mean peak per-task accuracy, "Near-optimal: LASEM against brute-force search"."""

BRUTE_FORCE_TIME: Final[Table] = {
    (CIFAR_10, "exhaustive-hps"): (6.55, _NAN),
    (CIFAR_10, "all-hps"): (0.78, _NAN),
    (CIFAR_10, "exhaustive-tf"): (8.81, _NAN),
    (CIFAR_10, "all-tf"): (0.64, _NAN),
    (CIFAR_10, "exhaustive-dfcnn"): (9.45, _NAN),
    (CIFAR_10, "all-dfcnn"): (0.59, _NAN),
    (OFFICE_HOME, "exhaustive-hps"): (4.72, _NAN),
    (OFFICE_HOME, "all-hps"): (0.72, _NAN),
    (OFFICE_HOME, "exhaustive-tf"): (5.22, _NAN),
    (OFFICE_HOME, "all-tf"): (0.66, _NAN),
    (OFFICE_HOME, "exhaustive-dfcnn"): (4.04, _NAN),
    (OFFICE_HOME, "all-dfcnn"): (0.61, _NAN),
}
"""Training time divided by LASEM's on the same data, from the same table."""

SELECTIVE_ACCURACY: Final[Table] = {
    (OFFICE_HOME, "den"): (48.00, 0.60),
    (OFFICE_HOME, "apd"): (59.58, 0.45),
    (OFFICE_HOME, "prognn"): (60.03, 0.45),
    (OFFICE_HOME, "darts-hps"): (45.64, 1.20),
    (OFFICE_HOME, "darts-dfcnn"): (56.77, 0.49),
    (OFFICE_HOME, "lasem-hps"): (58.44, 0.90),
    (OFFICE_HOME, "lasem-tf"): (59.14, 0.80),
    (OFFICE_HOME, "lasem-dfcnn"): (59.45, 1.10),
}
"""Mean peak per-task accuracy, "Against other selective-sharing methods"."""

SELECTIVE_FORGETTING: Final[Table] = {
    (OFFICE_HOME, "den"): (0.28, 0.01),
    (OFFICE_HOME, "apd"): (0.83, 0.03),
    (OFFICE_HOME, "prognn"): (1.00, 0.00),
    (OFFICE_HOME, "darts-hps"): (0.70, 0.07),
    (OFFICE_HOME, "darts-dfcnn"): (0.35, 0.04),
    (OFFICE_HOME, "lasem-hps"): (0.81, 0.08),
    (OFFICE_HOME, "lasem-tf"): (0.90, 0.04),
    (OFFICE_HOME, "lasem-dfcnn"): (0.98, 0.01),
}
"""Final accuracy divided by peak accuracy, from the same table."""

SELECTIVE_KILOSECONDS: Final[Table] = {
    (OFFICE_HOME, "den"): (55.9, _NAN),
    (OFFICE_HOME, "apd"): (21.5, _NAN),
    (OFFICE_HOME, "prognn"): (96.7, _NAN),
    (OFFICE_HOME, "darts-hps"): (43.8, _NAN),
    (OFFICE_HOME, "darts-dfcnn"): (33.2, _NAN),
    (OFFICE_HOME, "lasem-hps"): (70.2, _NAN),
    (OFFICE_HOME, "lasem-tf"): (77.3, _NAN),
    (OFFICE_HOME, "lasem-dfcnn"): (83.2, _NAN),
}
"""Thousands of seconds, from the same table."""

GROUPS_ACCURACY: Final[Table] = {
    (CIFAR_10, "all-hps"): (38.51, 0.53),
    (CIFAR_10, "lasem-4g"): (39.47, 0.30),
    (CIFAR_10, "lasem-5g"): (39.07, 1.10),
    (CIFAR_10, "lasem-6g"): (40.00, 0.65),
    (CIFAR_10, "lasem-7g"): (39.32, 0.33),
    (CIFAR_40, "all-hps"): (38.01, 0.27),
    (CIFAR_40, "lasem-4g"): (39.89, 0.73),
    (CIFAR_40, "lasem-5g"): (38.89, 0.11),
    (CIFAR_40, "lasem-6g"): (39.17, 0.62),
}
"""Mean peak per-task accuracy, "Group-based LASEM on a ResNet with 17 convolutions"."""

GROUPS_FORGETTING: Final[Table] = {
    (CIFAR_10, "all-hps"): (0.54, 0.03),
    (CIFAR_10, "lasem-4g"): (0.79, 0.05),
    (CIFAR_10, "lasem-5g"): (0.79, 0.08),
    (CIFAR_10, "lasem-6g"): (0.75, 0.06),
    (CIFAR_10, "lasem-7g"): (0.74, 0.07),
    (CIFAR_40, "all-hps"): (0.41, 0.02),
    (CIFAR_40, "lasem-4g"): (0.62, 0.03),
    (CIFAR_40, "lasem-5g"): (0.55, 0.07),
    (CIFAR_40, "lasem-6g"): (0.56, 0.09),
}
"""Final accuracy divided by peak accuracy, from the same table."""

GROUPS_KILOSECONDS: Final[Table] = {
    (CIFAR_10, "all-hps"): (4.47, _NAN),
    (CIFAR_10, "lasem-4g"): (11.1, _NAN),
    (CIFAR_10, "lasem-5g"): (14.4, _NAN),
    (CIFAR_10, "lasem-6g"): (25.1, _NAN),
    (CIFAR_10, "lasem-7g"): (46.9, _NAN),
    (CIFAR_40, "all-hps"): (63.4, _NAN),
    (CIFAR_40, "lasem-4g"): (94.1, _NAN),
    (CIFAR_40, "lasem-5g"): (109.2, _NAN),
    (CIFAR_40, "lasem-6g"): (154.1, _NAN),
}
"""Time, in the unit of the selective table as its numbers suggest; the table names none."""


def fractions(table: Table) -> Table:
    """Percent as fractions, as accuracies are everywhere else."""
    return {key: (mean / 100, deviation / 100) for key, (mean, deviation) in table.items()}
