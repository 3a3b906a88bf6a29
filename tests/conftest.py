"""Shared fixtures: a home whose cache is prepared once per test session, and small spaces."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from orchestrator.home import write_json
from orchestrator.plan import Plan
from orchestrator.prepare import cost_classes
from search_spaces import load_space
from trainables.prepare import prepare
from trainables.probe import probe

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"real": "digits", "distilled": {"method": "random", "ipc": 4}},
    "teacher": {"model": "convnet2", "width": 8, "train": {"epochs": 2}},
    "scientific": {"loss": ["ce", "kl", "gift"], "temperature": [1, 4]},
    "nuisance": {"lr": {"loguniform": [1.0e-3, 3.0e-2]}, "draws": 4},
    "fixed": {"student": "convnet2", "width": 4, "epochs": 8, "batch_size": 20, "views": 8, "evaluate_every_epochs": 2},
    "replicates": 2,
}
CLASSES = ("ape", "cat", "zebra")
SIZE = 8
#: What a user's shell says of other clusters, stores and homes; no test may meet those.
for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI", "LOSSATLAS_HOME"):
    os.environ.pop(name, None)
# processes share the cores, and threads of OpenMP spin while they wait for each other; a trial says how many it takes
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_state(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What LossAtlas remembers of a user is this test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


@pytest.fixture
def tiny() -> dict[str, Any]:
    """A space of 4 cells, 16 tune and 8 confirm trials that takes seconds."""
    return copy.deepcopy(TINY)


def prepare_here(plan: Plan, cache: Path) -> None:
    """Make what a plan's trials read in this process, which has torch anyway; a driver starts one that must load it first."""
    for key, recipe in plan.recipes.items():
        prepare(key, recipe, cache, lambda text: None)


@pytest.fixture(scope="session")
def prepared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that has what TINY asks for."""
    cache = tmp_path_factory.mktemp("prepared") / "cache"
    plan = Plan("tiny", load_space(TINY), "cpu")
    prepare_here(plan, cache)
    for name, config in cost_classes(plan).items():
        write_json(cache / f"probe-{name}.json", probe(config, cache))
    return cache


@pytest.fixture
def home(tmp_path: Path, prepared_cache: Path) -> Path:
    """A home directory of this test's own, with the prepared cache copied into it."""
    path = tmp_path / "home"
    shutil.copytree(prepared_cache, path / "cache")
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Real images of three classes: grey by class, with noise, 12 to train on and 8 to test on per class."""
    return make_tree(tmp_path)


def make_tree(folder: Path) -> Path:
    """Such a tree below a folder."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 8)):
        for c, name in enumerate(CLASSES):
            for i in range(count):
                path = folder / "real" / part / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                colours = (20 * c + 10, 255 - 20 * c, 90)
                pixels = np.clip(rng.normal(colours, 4, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(path)
    return folder / "real"
