"""Teachers that people bring: from checkpoints, as ensembles, with pixels normalised in their own way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator import RunOptions, Sweep
from orchestrator.prepare import doubts_about
from search_spaces import ConfigError, load_space
from tests.conftest import prepare_here
from trainables.arrays import load_arrays
from trainables.data.real import load_digits, normalise
from trainables.data.teacher import load_teacher
from trainables.evaluate import accuracy, predict_logits


@pytest.fixture
def checkpoint(prepared_cache: Path, tmp_path: Path) -> Path:
    """The teacher of the shared cache, as somebody else would save it."""
    (path,) = prepared_cache.glob("teacher-*/teacher.pt")
    weights = torch.load(path, weights_only=True)
    torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, tmp_path / "net.pth")
    return tmp_path / "net.pth"


def prepared(space: dict[str, Any], home: Path) -> tuple[Sweep, dict[str, Any]]:
    sweep = Sweep.from_space(space, home=home)
    prepare_here(sweep.plan, sweep.home.cache)
    sweep.run(RunOptions(local=True, tracking_uri="off"))
    ((key, about),) = sweep.facts["data"].items()
    return sweep, {**load_arrays(key, sweep.home.cache), "about": about}


@pytest.mark.slow
def test_a_checkpoint_gives_the_label_bank_of_the_network_it_was_saved_from(
    tiny: dict[str, Any], home: Path, checkpoint: Path
) -> None:
    tiny["scientific"] = {"loss": ["kl"]}
    del tiny["nuisance"]
    sweep, trained = prepared(tiny, home)
    table = sweep.landscape().table
    other, loaded = prepared({**tiny, "name": "loaded", "teacher": str(checkpoint)}, home)
    assert (trained["bank_logits"] == loaded["bank_logits"]).all()
    for name in ("test", "distilled"):
        assert trained["about"][f"teacher_{name}_accuracy"] == loaded["about"][f"teacher_{name}_accuracy"]
    assert other.landscape().table.test_accuracy.tolist() == table.test_accuracy.tolist()


def test_the_place_of_a_checkpoint_does_not_matter_but_its_content_does(
    tiny: dict[str, Any], checkpoint: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.pth"
    copy.write_bytes(checkpoint.read_bytes())
    keys = []
    for path in (checkpoint, copy):
        keys.append(set(Sweep.from_space({**tiny, "teacher": [str(path)]}, home=tmp_path).plan.recipes))
    assert keys[0] == keys[1]
    copy.write_bytes(checkpoint.read_bytes() + b" ")
    assert keys[0] != set(Sweep.from_space({**tiny, "teacher": str(copy)}, home=tmp_path).plan.recipes)


def test_an_ensemble_is_the_mean_of_logits(checkpoint: Path, tmp_path: Path) -> None:
    real = normalise(load_digits(0.25))
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["module.classifier.bias"] += 3.0
    torch.save(content, tmp_path / "other.pth")
    images = real.test.images[:5]
    one, other, both = (
        predict_logits(load_teacher(paths, real, name=None), images)
        for paths in ([checkpoint], [tmp_path / "other.pth"], [checkpoint, tmp_path / "other.pth"])
    )
    torch.testing.assert_close(both, (one + other) / 2)
    torch.testing.assert_close(other, one + 3)


def test_pixels_are_normalised_as_the_teacher_was_trained(checkpoint: Path) -> None:
    """Constants 0 and 1 show the network the raw pixels; those of the students change nothing."""
    real = normalise(load_digits(0.25))
    raw = load_digits(0.25).test.images[:5]
    same = {"mean": real.mean.tolist(), "std": real.std.tolist()}
    images = real.test.images[:5]
    as_students = load_teacher([checkpoint], real, name=None)
    torch.testing.assert_close(
        predict_logits(load_teacher([checkpoint], real, name=None, **same), images), predict_logits(as_students, images)
    )
    plain = load_teacher([checkpoint], real, name=None, mean=[0.0], std=[1.0])
    torch.testing.assert_close(predict_logits(plain, images), predict_logits(as_students, raw), rtol=1e-4, atol=1e-4)
    assert accuracy(plain, real.test) < accuracy(as_students, real.test)
    with pytest.raises(ValueError, match=r"one number per channel \(1\), got 3, 3"):
        load_teacher([checkpoint], real, name=None, mean=[0.5] * 3, std=[0.5] * 3)


@pytest.mark.slow
def test_a_teacher_with_another_class_order_is_refused_before_any_trial(
    tiny: dict[str, Any], home: Path, checkpoint: Path
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    for name in ("weight", "bias"):
        head = content["state_dict"][f"module.classifier.{name}"]
        content["state_dict"][f"module.classifier.{name}"] = head.roll(3, dims=0)
    torch.save(content, checkpoint)
    tiny |= {"teacher": str(checkpoint), "scientific": {"loss": ["kl"]}}
    del tiny["nuisance"]
    sweep = Sweep.from_space(tiny, home=home)
    with pytest.raises(
        ConfigError, match=r"the teacher's accuracy on the validation images is .*, near chance"
    ) as caught:
        sweep.run(RunOptions(local=True, tracking_uri="off"))
    assert len(caught.value.problems) == 3
    assert not sweep.folder.journal.exists() or sweep.folder.journal.read_text() == ""
    table = sweep.run(RunOptions(local=True, tracking_uri="off", force=True)).table
    assert (table.status == "finished").all()


def test_near_chance_is_less_than_a_tenth_of_the_way_up() -> None:
    about = {"classes": 10, "teacher_validation_accuracy": 0.19, "teacher_distilled_accuracy": 0.9}
    assert doubts_about(about) == []
    about["teacher_validation_accuracy"] = 0.18
    assert doubts_about(about) == ["the teacher's accuracy on the validation images is 18.0%, near chance (10.0%)."]


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({}, "teacher: give a model, which is then trained, or weights"),
        ("nowhere.pth", r"teacher.weights: /.*/nowhere.pth: no such file"),
        ({"model": "convnet2", "mean": [0.5]}, "mean and std belong together"),
    ],
)
def test_what_is_wrong_with_a_teacher_is_said_at_once(teacher: Any, message: str, tiny: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=message):
        load_space({**tiny, "teacher": teacher})


@pytest.mark.slow
def test_a_checkpoint_for_other_data_ends_with_one_message(tiny: dict[str, Any], home: Path, tmp_path: Path) -> None:
    torch.save(
        {"features.0.weight": torch.zeros(4, 3, 3, 3), "classifier.weight": torch.zeros(7, 64)}, tmp_path / "x.pt"
    )
    with pytest.raises(ConfigError, match=r"x.pt: convnet1 has classes 7, expected 10"):
        Sweep.from_space({**tiny, "teacher": str(tmp_path / "x.pt")}, home=home).run(RunOptions(local=True))
