"""Drafts: labels made in parts, by anyone, in any order, are the labels made at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.plan import Plan
from search_spaces import load_space
from tests.conftest import TINY
from trainables.arrays import is_intact, load_arrays, map_entry, only_maker
from trainables.drafts import complete, draft_of, label_views, pack_logits, split_views
from trainables.prepare import prepare


def quiet(text: str) -> None:
    pass


def recipe_of(*changes: str) -> tuple[str, dict[str, Any]]:
    plan = Plan("tiny", load_space(TINY, list(changes)), "cpu")
    ((key, recipe),) = plan.recipes.items()
    return key, recipe


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    key, recipe = recipe_of()
    prepare(key, recipe, tmp_path / "cache", quiet, leave_labels=True)
    return draft_of(tmp_path / "cache" / f"data-{key}")


def test_parts_labelled_in_any_order_make_the_entry_that_is_made_at_once(draft: Path, tmp_path: Path) -> None:
    key, recipe = recipe_of()
    shutil.copytree(draft.parent, tmp_path / "once")
    prepare(key, recipe, tmp_path / "once", quiet)
    entry, arrays = draft.parent / f"data-{key}", map_entry(draft)
    assert not entry.exists()
    assert "bank_logits" not in arrays
    parts = [(5, 8), (0, 1), (1, 5)]
    complete(draft, entry, ((part, label_views(arrays, part, {"label_format": "float16"})) for part in parts))
    assert not draft.exists()
    assert is_intact(entry)
    made, expected = load_arrays(key, draft.parent), load_arrays(key, tmp_path / "once")
    assert made.keys() == expected.keys()
    assert all(np.array_equal(made[name], expected[name]) for name in made)
    about, known = (
        json.loads((c / f"data-{key}" / "about.json").read_text()) for c in (draft.parent, tmp_path / "once")
    )
    assert about == known


def is_waiting(pid: int) -> bool:
    """The kernel lists who waits for a lock with an arrow."""
    return any("->" in line and f" {pid} " in line for line in Path("/proc/locks").read_text().splitlines())


@pytest.mark.slow
def test_a_process_that_needs_what_another_is_making_waits_and_takes_it(tmp_path: Path, prepared_cache: Path) -> None:
    key, recipe = recipe_of()
    entry = tmp_path / f"data-{key}"
    (tmp_path / f"data-{key}.dead").mkdir()
    code = "import sys, json; from pathlib import Path; from trainables.prepare import prepare\nprepare(sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3]))"
    command = [sys.executable, "-W", "ignore", "-c", code, key, json.dumps(recipe), str(tmp_path)]
    with only_maker(entry):
        assert not (tmp_path / f"data-{key}.dead").exists(), "what a dead process left"
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while not is_waiting(other.pid):
            assert other.poll() is None, "it did not wait"
            time.sleep(0.05)
        shutil.copytree(prepared_cache / entry.name, entry)
    told, _ = other.communicate()
    assert (other.returncode, told) == (0, ""), "it makes nothing"


def test_a_draft_is_completed_without_being_made_again(draft: Path) -> None:
    key, recipe = recipe_of()
    told: list[str] = []
    prepare(key, recipe, draft.parent, told.append)
    assert [text.split(":")[0] for text in told] == ["label bank"]


def test_a_damaged_draft_is_made_again(draft: Path) -> None:
    key, recipe = recipe_of()
    (draft / "bank_parameters.npy").write_bytes(b"")
    prepare(key, recipe, draft.parent, quiet)
    assert is_intact(draft.parent / f"data-{key}")


@pytest.mark.parametrize("workers", [1, 3, 100])
def test_parts_cover_every_view_once(workers: int, draft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for most in (2**26, 4 * 40 * 10 * 3):  # the second: three views of 40 images and 10 classes
        monkeypatch.setattr("trainables.drafts.PART_BYTES", most)
        parts = split_views(draft, workers=workers)
        assert [view for part in parts for view in range(*part)] == list(range(8))
        assert len(parts) >= min(8, workers)
        assert most == 2**26 or max(last - first for first, last in parts) <= 3


def test_float16_rounds_within_its_bound() -> None:
    """|error| <= 2^-11 |t| in the normal range, 2^-25 below 2^-14."""
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=10_000) * 10.0 ** rng.integers(-6, 4, 10_000)).astype(np.float32)
    packed, largest = pack_logits(logits, label_format="float16")
    rounded = packed["bank_logits"]
    error = np.abs(rounded.astype(np.float64) - logits)
    assert (error <= np.maximum(2.0**-11 * np.abs(logits), 2.0**-25)).all()
    assert largest == pytest.approx(error.max())
    assert largest > 0
    assert pack_logits(logits, label_format="float32")[1] == 0


def test_a_logit_beyond_float16_is_refused_with_the_way_out() -> None:
    with pytest.raises(
        ValueError, match=r"fixed\.label_format: float16 ends at 65504, there is a logit of 70000; use float32"
    ):
        pack_logits(np.array([1.0, -7e4], dtype=np.float32), label_format="float16")


def test_the_number_format_is_part_of_what_a_trial_is() -> None:
    assert recipe_of()[0] == recipe_of("fixed.label_format=float16")[0]
    assert recipe_of()[0] != recipe_of("fixed.label_format=float32")[0]
    hard = ["fixed.labels=hard", "scientific.loss=[kl]", "teacher=null"]
    assert recipe_of(*hard)[0] == recipe_of(*hard, "fixed.label_format=float32")[0], "hard labels are not kept"


def test_kept_logits_have_the_format_and_its_error_is_known(tmp_path: Path) -> None:
    for label_format in ("float16", "float32"):
        key, recipe = recipe_of(f"fixed.label_format={label_format}")
        about = prepare(key, recipe, tmp_path, quiet)
        assert load_arrays(key, tmp_path)["bank_logits"].dtype == label_format
        assert (about["label_rounding"] > 0) == (label_format == "float16")
