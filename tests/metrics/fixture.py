"""The matrix of reference/metrics.md, section 3.2, on which tools that use the same words give different answers."""

MATRIX = ((0.90, 0.20, 0.30, 0.25), (0.95, 0.80, 0.35, 0.30), (0.75, 0.60, 0.85, 0.28), (0.82, 0.84, 0.65, 0.88))
LOWER = tuple(row[: i + 1] for i, row in enumerate(MATRIX))
PEAK = (0.90, 0.80, 0.85, 0.88)
FINAL = MATRIX[-1]
