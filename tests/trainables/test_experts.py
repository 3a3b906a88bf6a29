"""Labels of a teacher as it was after some of its epochs: trained here, from an expert buffer, from a file per epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator import RunOptions, Sweep
from search_spaces import ConfigError, load_space
from tests.conftest import prepare_here
from trainables.arrays import load_arrays
from trainables.data.real import load_digits, normalise
from trainables.data.teacher import load_teacher
from trainables.evaluate import predict_logits
from trainables.models import load_checkpoint
from trainables.networks import ModelShape, make_model

SMALL = {"student": "convnet2", "width": 4, "epochs": 1, "batch_size": 20, "views": 2}
SHAPE = ModelShape(1, 10, 8)
FIT = {"classes": 10, "channels": 1, "image_size": 8}


def network(norm: str, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = make_model("convnet2", SHAPE, width=8, norm=norm)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def buffer(norm: str, path: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """Two experts; the epochs of the second are networks with these seeds."""
    experts = [[list(network(norm, 10 * k + seed).parameters()) for seed in seeds] for k in (5, 0)]
    torch.save([[[p.detach() for p in epoch] for epoch in expert] for expert in experts], path)
    return path


@pytest.mark.parametrize("norm", ["instance", "none", "layer"])
def test_an_expert_after_an_epoch_is_the_network_that_was_kept(norm: str, tmp_path: Path) -> None:
    path, images = buffer(norm, tmp_path / "replay_buffer_0.pt"), torch.randn(4, 1, 8, 8)
    for epoch, seed in ((0, 0), (1, 1), (None, 2)):
        loaded = load_checkpoint(path, **FIT, expert=1, epoch=epoch)
        torch.testing.assert_close(predict_logits(loaded, images), predict_logits(network(norm, seed), images))
    assert not predict_logits(load_checkpoint(path, **FIT), images).equal(predict_logits(loaded, images))


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ({"expert": 2}, "teacher.expert: it has experts 0 to 1, got 2"),
        ({"epoch": 3}, "teacher.epoch: expert 0 has epochs 0 to 2, got 3"),
    ],
)
def test_what_a_buffer_does_not_have_is_refused(at: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_checkpoint(buffer("none", tmp_path / "b.pt"), **FIT, **at)


def test_epochs_that_were_not_copied_are_noticed(tmp_path: Path) -> None:
    path = buffer("none", tmp_path / "b.pt", seeds=(1, 1, 1))
    with pytest.raises(ValueError, match="all epochs of expert 1 are the same numbers"):
        load_checkpoint(path, **FIT, expert=1, epoch=0)
    load_checkpoint(path, **FIT, expert=1)


def test_an_epoch_of_an_ordinary_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save(network("instance", 0).state_dict(), tmp_path / "net.pth")
    for at in ({"epoch": 1}, {"expert": 0}):
        with pytest.raises(ValueError, match=r"of expert buffers, which this is not; .* \{epoch\} into the path"):
            load_checkpoint(tmp_path / "net.pth", **FIT, **at)


def test_parameters_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save([[[torch.zeros(3, 3), torch.zeros(3)]]], tmp_path / "b.pt")
    with pytest.raises(ValueError, match="2 parameters per epoch that are no convnet's"):
        load_checkpoint(tmp_path / "b.pt", **FIT)


def prepared(space: dict[str, Any], home: Path, **settings: Any) -> dict[int, np.ndarray]:
    """Bank logits by teacher epoch."""
    space |= {"scientific": {"loss": ["kl"], "teacher.epoch": [0, 1, 2]}, "replicates": 1, **settings}
    space.pop("nuisance", None)
    sweep = Sweep.from_space(space, home=home)
    prepare_here(sweep.plan, sweep.home.cache)
    sweep.run(RunOptions(local=True, tracking_uri="off", force="weights" in str(space["teacher"])))
    epochs = {cell.label: cell.context["teacher.epoch"] for cell in sweep.plan.cells}
    return {e: load_arrays(sweep.plan.data_keys[label], sweep.home.cache)["bank_logits"] for label, e in epochs.items()}


@pytest.mark.slow
def test_an_early_checkpoint_of_our_own_training_is_what_a_shorter_training_with_its_rates_gives(
    tiny: dict[str, Any], home: Path
) -> None:
    """The last epoch's labels are those of the teacher without an epoch; the first ones differ; a chance-level one is no error."""
    banks = prepared(dict(tiny), home)
    assert not np.array_equal(banks[0], banks[1])
    assert not np.array_equal(banks[1], banks[2])
    (plain,) = Sweep.from_space({**tiny, "scientific": {"loss": ["kl"]}}, home=home).plan.recipes
    assert np.array_equal(banks[2], load_arrays(plain, home / "cache")["bank_logits"])
    kept = sorted(path.name for path in (home / "cache").glob("teacher-*/teacher-*.pt"))
    assert kept == ["teacher-0.pt", "teacher-1.pt", "teacher-2.pt"], "trained once for all epochs"


@pytest.mark.slow
def test_early_files_may_know_nothing_if_a_later_one_knows_something(
    tiny: dict[str, Any], home: Path, prepared_cache: Path, tmp_path: Path
) -> None:
    """As for a buffer, or a training of our own: near chance is only refused where every epoch is."""
    (trained,) = prepared_cache.glob("teacher-*/teacher.pt")
    torch.save(torch.load(trained, weights_only=True), tmp_path / "model_2.pth")
    for epoch in (0, 1):
        torch.save(network("batch", epoch).state_dict(), tmp_path / f"model_{epoch}.pth")
    space = {**tiny, "teacher": str(tmp_path / "model_{epoch}.pth"), "fixed": SMALL, "replicates": 1}
    space["scientific"] = {"loss": ["kl"], "teacher.epoch": [0, 1, 2]}
    del space["nuisance"]
    sweep = Sweep.from_space(space, home=home)
    prepare_here(sweep.plan, sweep.home.cache)
    table = sweep.run(RunOptions(local=True, tracking_uri="off")).table
    assert set(table.status) == {"finished"}
    refused = Sweep.from_space({**space, "scientific": {"loss": ["kl"], "teacher.epoch": [0, 1]}}, home=home, name="x")
    with pytest.raises(ConfigError, match="near chance"):
        refused.run(RunOptions(local=True, tracking_uri="off"))


@pytest.mark.slow
def test_a_file_per_epoch_and_a_buffer_are_axes_too(tiny: dict[str, Any], home: Path, tmp_path: Path) -> None:
    real = normalise(load_digits(0.25))
    for epoch in range(3):
        torch.save({"model": network("instance", epoch).state_dict()}, tmp_path / f"model_{epoch}.pth")
    numbered = prepared(
        dict(tiny), home, teacher={"weights": [str(tmp_path / "model_{epoch}.pth")]}, name="numbered", fixed=SMALL
    )
    path = str(buffer("instance", tmp_path / "replay_buffer_1.pt"))
    buffered = prepared(dict(tiny), home, teacher={"weights": [path], "expert": 1}, name="buffered", fixed=SMALL)
    for epoch in range(3):
        assert np.array_equal(numbered[epoch], buffered[epoch])
    teacher = load_teacher([Path(path)], real, name=None, expert=1, epoch=1)
    assert not np.array_equal(numbered[0], numbered[1])
    assert teacher.shape == SHAPE


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"model": "convnet2", "epoch": 31}, "teacher.epoch: must be at most teacher.train.epochs, 30, got 31"),
        ({"model": "convnet2", "expert": 0}, "teacher.expert: is of an expert buffer"),
        ({"weights": ["net_{epoch}.pth"]}, r"teacher.epoch: missing; a path of weights has \{epoch\} in it"),
        ({"weights": ["net_{epoch}.pth"], "epoch": 4}, "net_4.pth: no such file"),
        ({"model": "convnet2", "epoch": -1}, "teacher.epoch: .*greater than or equal to 0"),
    ],
)
def test_an_epoch_that_cannot_be_is_said_at_once(teacher: Any, message: str, tiny: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=message):
        load_space({**tiny, "teacher": teacher})
