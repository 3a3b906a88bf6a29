"""The label bank on real Ray: made by its workers, shared by its actors."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from orchestrator.labelling import label_on_ray
from search_spaces import ConfigError
from tests.integration import REAL_PARTS
from tests.trainables.test_drafts import recipe_of
from trainables.arrays import load_arrays, map_entry, seal
from trainables.drafts import draft_of
from trainables.prepare import prepare

pytestmark = REAL_PARTS


def test_workers_label_what_the_driver_would_have_labelled(ray_here: None, tmp_path: Path) -> None:
    key, recipe = recipe_of("fixed.label_format=float32")
    there, here = tmp_path / "there", tmp_path / "here"
    prepare(key, recipe, there, lambda text: None, leave_labels=True)
    shutil.copytree(there, here)
    told: list[str] = []
    label_on_ray([key], there, told.append)
    assert [re.sub(r"\d+ workers", "k workers", text) for text in told] == [
        "the teacher labels 8 views on k workers of the cluster"
    ]
    prepare(key, recipe, here, lambda text: None)
    made, expected = load_arrays(key, there), load_arrays(key, here)
    assert made.keys() == expected.keys()
    np.testing.assert_allclose(made["bank_logits"], expected["bank_logits"], rtol=1e-4, atol=1e-5)
    label_on_ray([key], there, told.append)
    assert len(told) == 1, "what is labelled is left alone"


def test_a_worker_that_finds_a_logit_too_large_says_so_to_the_user(ray_here: None, tmp_path: Path) -> None:
    key, recipe = recipe_of()
    prepare(key, recipe, tmp_path, lambda text: None, leave_labels=True)
    draft = draft_of(tmp_path / f"data-{key}")
    background = np.load(draft / "bank_background.npy")
    images = np.load(draft / "distilled_images.npy")
    np.save(draft / "distilled_images.npy", np.full_like(images, 1e9))
    np.save(draft / "bank_background.npy", np.full_like(background, 1e9))
    seal(draft)
    with pytest.raises(ConfigError, match=r"fixed\.label_format: float16 ends at 65504"):
        label_on_ray([key], tmp_path, lambda text: None)
    shutil.rmtree(draft)


@ray.remote
def mapping_of(arrays: Mapping[str, np.ndarray], name: str) -> str:
    """The file that the memory of an array is mapped from, in the process that reads it."""
    address = arrays[name].__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, file = line.split(maxsplit=5)
        first, last = (int(end, 16) for end in span.split("-"))
        if first <= address < last:
            return file
    return ""


def test_actors_map_one_copy_of_the_bank(ray_here: None, prepared_cache: Path) -> None:
    """A memory map would be pickled with its content, and every worker would have its own copy."""
    key, _ = recipe_of()
    arrays: dict[str, Any] = map_entry(prepared_cache / f"data-{key}")
    large = {name: array for name, array in arrays.items() if array.nbytes > 4096}
    assert "bank_logits" in large
    shared = ray.put(arrays)
    for name in large:
        assert "/dev/shm" in ray.get(mapping_of.remote(shared, name)), name
