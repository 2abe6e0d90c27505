"""Presets: bases that explicit settings override. They are plain values, by part and setting."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "paper": {
        "stream": {"standardise": "split"},
        "net": {"initial": "paper"},
        "sharing": {"start": "glorot", "step_scale": 1.0, "factors_start": "fresh", "max_rank": 512},
        "search": {
            "likelihood": "mean",
            "prior_form": "average",
            "prior_start": [0.5, 0.5],
            "first_task": "search",
            "commit_probability": 2.0,  # never
            "commit_share": 1.0,
            "alpha_split": "train",
            "alpha_optimiser": "rmsprop-tf",
            "alpha_learning_rate": None,
            "alpha_weight_decay": 0.0,
        },
        "training": {
            "epochs": 2000,
            "batch_size": 10,
            "drop_last": True,
            "optimiser": "rmsprop-tf",
            "learning_rate": 1e-4,
            "schedule": "inverse",
            "learning_rate_decay": 1 / 4000,
            "patience": 0,
            "restore_best": False,
            "tolerance": 0.0,
            "specific_start": "fresh",
            "specific_shrink": 1.0,
        },
    },
}
"""``default``: what a person should use, the settings' own defaults. ``paper``: LASEM as its authors
ran it on CIFAR-100 (Lee, Behpour, Eaton, ICML 2021), for reproduction. Settings of baselines are not among them."""
