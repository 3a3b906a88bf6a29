"""What must not change a sweep's numbers does not, and what must does: small sweeps in this process, on files of one's own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from orchestrator import RunOptions, Sweep
from orchestrator.journal import read_journal
from orchestrator.landscape import compare, ranking
from search_spaces import ConfigError
from tests.conftest import CLASSES, make_tree, prepare_here

LOCAL = RunOptions(local=True, tracking_uri="off")
#: Seconds and ids of runs are not numbers of a trial.
NUMBERS = ["cell", "stage", "replicate", "draw", "val_accuracy", "test_accuracy", "diverged"]


def space(root: Path, losses: tuple[str, ...] = ("ce", "kl"), **changes: Any) -> dict[str, Any]:
    """Two losses, two draws and two seeds on a tree, with a teacher that is trained."""
    return {
        "name": "meta",
        "data": {"real": str(root), "image_size": 8, "distilled": {"method": "random", "ipc": 3}},
        "teacher": {"model": "convnet2", "width": 4, "train": {"epochs": 4, "batch_size": 6, "lr": 0.02}},
        "scientific": {"loss": list(losses)},
        "nuisance": {"lr": {"loguniform": [1.0e-3, 1.0e-1]}, "draws": 2},
        "early_stopping": None,
        "fixed": {"student": "convnet2", "width": 4, "epochs": 6, "batch_size": 5, "views": 3},
        "replicates": 2,
        **changes,
    }


def run(document: Mapping[str, Any], home: Path) -> pd.DataFrame:
    options = RunOptions(local=True, tracking_uri="off", force=True)  # a teacher of four epochs may know little
    sweep = Sweep.from_space({k: v for k, v in document.items() if v is not None}, home=home)
    prepare_here(sweep.plan, sweep.home.cache)
    return sweep.run(options).table


def numbers(table: pd.DataFrame) -> pd.DataFrame:
    return table[NUMBERS].sort_values(["cell", "stage", "replicate", "draw"], ignore_index=True)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, pd.DataFrame]:
    """A tree of BMP files, a home, and the table of a sweep in it."""
    folder = tmp_path_factory.mktemp("metamorphic")
    root = make_tree(folder)
    for path in list(root.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    table = run(space(root), folder / "home")
    assert (table.status == "finished").all()
    return root, folder / "home", table


def copy_of(root: Path, place: Path) -> Path:
    """The same files, written in another order, at another time."""
    for path in sorted(root.rglob("*.bmp"), reverse=True):
        target = place / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        os.utime(target, (1, 1))
    return place


def test_files_elsewhere_and_a_fresh_home_give_the_same_table(
    first: tuple[Path, Path, pd.DataFrame], tmp_path: Path
) -> None:
    root, _, table = first
    again = run(space(copy_of(root, tmp_path / "copy")), tmp_path / "home")
    pd.testing.assert_frame_equal(numbers(again), numbers(table))
    assert set(again.trial_id) == set(table.trial_id)


def test_a_home_that_moved_is_read_and_trains_nothing_again(
    first: tuple[Path, Path, pd.DataFrame], tmp_path: Path
) -> None:
    root, home, table = first
    moved = tmp_path / "moved"
    shutil.copytree(home, moved)
    before = (moved / "sweeps" / "meta" / "journal.jsonl").stat().st_size
    again = run(space(root), moved)
    pd.testing.assert_frame_equal(numbers(again), numbers(table))
    assert (moved / "sweeps" / "meta" / "journal.jsonl").stat().st_size == before


def test_one_byte_of_a_test_image_is_another_sweep(first: tuple[Path, Path, pd.DataFrame], tmp_path: Path) -> None:
    """The size and the time of the file stay; the sweep of the old files is not continued with the new ones."""
    root, home, table = first
    copy, again = copy_of(root, tmp_path / "copy"), tmp_path / "home"
    shutil.copytree(home, again)
    path = copy / "val" / CLASSES[0] / "0.bmp"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, (1, 1))
    with pytest.raises(ConfigError, match="exists with another plan"):
        Sweep.from_space(space(copy), home=again).run(LOCAL)
    other = run(space(copy, name="other"), again)
    assert not set(other.trial_id) & set(table.trial_id)


def test_exchanged_test_labels_are_found_out(first: tuple[Path, Path, pd.DataFrame], tmp_path: Path) -> None:
    """Names and sizes of all files stay, and so does the home: each class is now called by another's name in the test part."""
    root, home, table = first
    copy, again = copy_of(root, tmp_path / "copy"), tmp_path / "home"
    shutil.copytree(home, again)
    names = [copy / "val" / name for name in CLASSES]
    for path in names:
        path.rename(path.with_suffix(".old"))
    for path, target in zip(names, [*names[1:], names[0]], strict=True):
        path.with_suffix(".old").rename(target)
    best = table[table.stage == "confirm"].test_accuracy.max()
    other = run(space(copy, name="other"), again)
    assert other[other.stage == "confirm"].test_accuracy.max() < best


def test_classes_under_other_names_in_the_same_order_give_the_same_numbers(
    first: tuple[Path, Path, pd.DataFrame], tmp_path: Path
) -> None:
    root, _, table = first
    copy = copy_of(root, tmp_path / "copy")
    for part in ("train", "val"):
        for number, name in enumerate(sorted(CLASSES)):
            (copy / part / name).rename(copy / part / f"k{number}")
    pd.testing.assert_frame_equal(numbers(run(space(copy), tmp_path / "home")), numbers(table))


def test_a_sweep_in_two_halves_and_in_another_order_is_the_sweep(
    first: tuple[Path, Path, pd.DataFrame], tmp_path: Path
) -> None:
    root, _, table = first
    halves = [run(space(root, (loss,), name=loss), tmp_path / "home") for loss in ("kl", "ce")]
    pd.testing.assert_frame_equal(numbers(pd.concat(halves)), numbers(table))
    backwards = run(space(root, ("kl", "ce")), tmp_path / "other")
    pd.testing.assert_frame_equal(numbers(backwards), numbers(table))
    assert set(backwards.trial_id) == set(table.trial_id)


def test_a_larger_sweep_trains_only_what_is_missing(first: tuple[Path, Path, pd.DataFrame], tmp_path: Path) -> None:
    root, home, table = first
    shutil.copytree(home, tmp_path / "home")
    larger = run(space(root, ("ce", "kl", "mse")), tmp_path / "home")
    pd.testing.assert_frame_equal(numbers(larger[larger.cell.isin(table.cell)]), numbers(table))
    results = [
        r for r in read_journal(tmp_path / "home" / "sweeps" / "meta" / "journal.jsonl") if r["kind"] == "result"
    ]
    assert len({r["trial_id"] for r in results}) == len(results)


def test_a_lost_result_is_trained_again_to_the_same_number_and_until_then_costs_its_seed_alone(
    first: tuple[Path, Path, pd.DataFrame], tmp_path: Path
) -> None:
    root, home, table = first
    shutil.copytree(home, tmp_path / "home")
    lost = table[(table.stage == "confirm") & (table.replicate == 2)].trial_id.iloc[0]
    path = tmp_path / "home" / "sweeps" / "meta" / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if lost.encode() not in line))
    holes = Sweep.stored("meta", tmp_path / "home", reading=True).landscape().table
    whole = holes[~((holes.stage == "confirm") & (holes.replicate == 2))]
    whole.attrs = holes.attrs
    pd.testing.assert_frame_equal(compare(holes), compare(whole))
    assert ranking(holes).n.tolist() != ranking(table).n.tolist(), "the mean says that a seed is missing"
    pd.testing.assert_frame_equal(numbers(run(space(root), tmp_path / "home")), numbers(table))


def test_a_sweep_of_another_version_is_read_as_it_was_and_not_continued_in_silence(
    first: tuple[Path, Path, pd.DataFrame], tmp_path: Path
) -> None:
    """A plan whose losses had another version: its table stands, continuing it says which part differs."""
    root, home, _ = first
    shutil.copytree(home, tmp_path / "home")
    plan = tmp_path / "home" / "sweeps" / "meta" / "plan.json"
    content = json.loads(plan.read_text())
    content["signature"]["versions"]["loss/kl"] = 99
    plan.write_text(json.dumps(content))
    assert (Sweep.stored("meta", tmp_path / "home").landscape().table.status == "finished").all()
    with pytest.raises(ConfigError, match=r"computes otherwise \(loss/kl 99 -> 1\)"):
        Sweep.from_space(space(root), home=tmp_path / "home").run(LOCAL)
