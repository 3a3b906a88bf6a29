"""Synthetic sweeps: real plans of any size whose trials have curves but train nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

from orchestrator.plan import Plan
from orchestrator.search import Assignment
from search_spaces import load_space

#: 207 cells x 16 draws.
SPACE: dict[str, Any] = {
    "name": "large",
    "data": {"real": "digits", "distilled": {"method": "random", "ipc": 10}},
    "teacher": {"model": "convnet2", "width": 64, "train": {"epochs": 30}},
    "scientific": {
        "loss": ["ce", "soft_ce", "kl", "mse", "mse_ce", "soft_ce_ce", "cosine", "gift"],
        "temperature": [1, 1.5, 2, 3, 4, 8, 20],
        "refinement": [0, "1/11", 0.2, 0.4],
        "optimizer": ["adamw", "sgd", "lamb"],
    },
    "nuisance": {"lr": {"loguniform": [3.0e-4, 3.0e-1]}, "draws": 16},
    "fixed": {"student": "convnet2", "width": 32, "epochs": 100, "batch_size": 50, "evaluate_every_epochs": 5},
    "early_stopping": {"grace_period_epochs": 25, "reduction_factor": 3},
}


def space_of(trials: int) -> dict[str, Any]:
    """A space of about so many trials: with 16 draws per cell, and as many replicates as it takes.

    Fewer than 3,726 trials (207 cells, 2 replicates) come from fewer temperatures, refinements and optimizers.
    """
    space = {**SPACE, "replicates": 2}
    if trials < 18 * _cells(space):
        space["scientific"] = {**SPACE["scientific"], "temperature": [4], "refinement": [0], "optimizer": ["adamw"]}
    return {**space, "replicates": max(2, round(trials / _cells(space)) - 16)}


def _cells(space: dict[str, Any]) -> int:
    return len(Plan("cells", load_space(space), "cpu").cells)


def curve(assignment: Assignment) -> Iterator[dict[str, Any]]:
    """A learning curve whose end depends on cell, draw and replicate; noise is seeded by the trial's id."""
    cell, config = assignment.cell, assignment.config
    noise = random.Random(config.trial_id)
    quality = random.Random(cell.loss).uniform(0.85, 0.95) - 0.02 * abs(math.log10(config.lr) + 2)
    end = min(0.999, max(0.1, quality + random.Random(config.replicate).gauss(0, 0.004) + noise.gauss(0, 0.004)))
    for epoch in range(5, config.epochs + 1, 5):
        accuracy = 0.1 + (end - 0.1) * (1 - math.exp(-epoch / 20)) + noise.gauss(0, 0.002)
        is_last = epoch == config.epochs
        yield {
            "epoch": epoch,
            "train_loss": 2 * math.exp(-epoch / 30),
            "val_accuracy": round(accuracy, 4),
            "test_accuracy": round(end, 4) if is_last and config.stage == "confirm" else None,
            "train_s": epoch / 100,
            "diverged": False,
        }
