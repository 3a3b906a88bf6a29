"""Sweeps on files that people bring, from the space file to the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from orchestrator import RunOptions, Sweep
from orchestrator.cli import app
from search_spaces import ConfigError, load_space
from tests.conftest import prepare_here
from tests.trainables.formats import builders
from tests.trainables.formats.builders import SIZE, C, write_store
from trainables.arrays import load_arrays
from trainables.data.whitening import fit_whitening
from trainables.networks import ModelShape, make_model
from trainables.trees import list_tree


@pytest.fixture
def space(tree: Path) -> dict[str, Any]:
    return {
        "name": "files",
        "data": {"real": str(tree), "image_size": SIZE, "distilled": {"path": "set"}},
        "teacher": {"model": "convnet2", "width": 8, "train": {"epochs": 40, "lr": 0.01}},
        "scientific": {"loss": ["kl", "ce"]},
        "fixed": {"student": "convnet2", "width": 4, "epochs": 2, "batch_size": 5, "views": 2, "lr": 0.01},
        "replicates": 1,
    }


def run(space: dict[str, Any], home: Path) -> tuple[Sweep, dict[str, np.ndarray], dict[str, Any]]:
    """The sweep, its arrays and what is known of its data."""
    sweep = Sweep.from_space(space, home=home)
    prepare_here(sweep.plan, sweep.home.cache)
    table = sweep.run(RunOptions(local=True, tracking_uri="off", force=True)).table
    assert (table.status == "finished").all()
    ((key, about),) = sweep.facts["data"].items()
    return sweep, load_arrays(key, sweep.home.cache), about


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gift", "mtt", "dc", "idc", "rded", "generated", "kip"])
def test_a_set_on_disk_is_trained_on(name: str, space: dict[str, Any], tmp_path: Path) -> None:
    expected, build, given = builders.SETS[name]
    (tmp_path / "set").mkdir()
    path = build(tmp_path / "set", None)
    space["data"]["distilled"] = {"path": str(path), **given}
    _, arrays, about = run(space, tmp_path / "home")
    assert about["distilled"] == expected
    assert about["n_distilled"] == len(arrays["distilled_labels"]) == 12


@pytest.mark.slow
def test_pixels_of_every_space_arrive_the_same(space: dict[str, Any], tmp_path: Path) -> None:
    """The same images as raw, as normalised and as bytes (to within half a grey level)."""
    raw = (builders.pixels() * 255).round() / 255
    files = {
        "raw": ({"dataset": "x", "data": raw, "label": builders.hard()}, {}),
        "bytes": ({"dataset": "x", "data": (raw * 255).round().to(torch.uint8), "label": builders.hard()}, {}),
    }
    seen = []
    for name, (content, given) in files.items():
        torch.save(content, tmp_path / f"{name}.pt")
        space["data"]["distilled"] = {"path": str(tmp_path / f"{name}.pt"), **given}
        seen.append(run({**space, "name": name}, tmp_path / "home")[1]["bank_pixels"])
    (tmp_path / "m").mkdir()
    torch.save((raw - 0.4) / 0.2, tmp_path / "m" / "images_best.pt")
    torch.save(builders.hard(), tmp_path / "m" / "labels_best.pt")
    space["data"]["distilled"] = {"path": str(tmp_path / "m"), **builders.SETS["mtt"][2]}
    seen.append(run({**space, "name": "m"}, tmp_path / "home")[1]["bank_pixels"])
    for other in seen[1:]:
        np.testing.assert_allclose(seen[0], other, atol=1e-4)


@pytest.mark.slow
def test_stored_labels_need_no_teacher_and_probabilities_no_angle_losses(space: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    space["data"]["distilled"] = {"path": str(builders.datm(folder, None))}
    space["fixed"]["labels"] = "stored"
    space["scientific"]["loss"] = ["kl", "gift"]
    del space["teacher"]
    _, arrays, about = run(space, tmp_path / "home")
    np.testing.assert_array_equal(arrays["bank_logits"][0], builders.logits().half().numpy())
    assert about["label_kind"] == "logit"
    probabilities = tmp_path / "tesla"
    probabilities.mkdir()
    space["data"]["distilled"] = {"path": str(builders.tesla(probabilities, None)), "pixel_space": "zca"}
    with pytest.raises(ConfigError, match="gift compares logits, the stored labels are probabilities"):
        run({**space, "name": "tesla"}, tmp_path / "home")
    space["scientific"]["loss"] = ["kl"]
    _, arrays, _ = run({**space, "name": "tesla"}, tmp_path / "home")
    np.testing.assert_allclose(np.exp(arrays["bank_logits"][0]).sum(1), 1, rtol=1e-4)


@pytest.mark.slow
def test_a_label_store_is_a_bank_and_what_it_froze_cannot_vary(space: dict[str, Any], tmp_path: Path) -> None:
    images = builders.sre2l(tmp_path / "images", None)
    write_store(tmp_path / "fkd", torch.arange(C).repeat_interleave(4))
    space["data"]["distilled"] = {"path": str(images), "label_store": str(tmp_path / "fkd")}
    space["fixed"]["labels"] = "stored"
    _, arrays, about = run(space, tmp_path / "home")
    assert about["views"] == 2
    assert arrays["bank_logits"].dtype == np.float16
    for change, message in (
        ("scientific.batch_size=[5,10]", "batch_size: frozen by data.distilled.label_store"),
        ("scientific.augment=[dsa,rrc]", "augment: frozen"),
        ("fixed.mix=mixup", "fixed.mix: frozen"),
        ("scientific.views=[1,2]", "views: frozen"),
    ):
        document = {**space, "fixed": {k: v for k, v in space["fixed"].items() if k not in change.split("=")[0]}}
        with pytest.raises(ConfigError) as raised:
            load_space(document, [change])
        assert message in str(raised.value)
    space["fixed"]["batch_size"] = 6
    with pytest.raises(ValueError, match="was made with batches of 5, got 6"):
        run({**space, "name": "other"}, tmp_path / "home")


@pytest.mark.slow
def test_sets_of_whitened_pixels_are_trained_and_tested_whitened(space: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    space["data"]["distilled"] = {"path": str(builders.datm(folder, None))}
    _, arrays, _ = run(space, tmp_path / "home")
    assert arrays["whitening"].shape == (3 * SIZE * SIZE + 1, 3 * SIZE * SIZE)
    assert arrays["test_images"].dtype == np.uint8, "whitened batch by batch"


def test_whitening_gives_uncorrelated_pixels_of_unit_variance() -> None:
    """Against the definition: cov(x W) = Sigma / (Sigma + 0.1 I), computed in double precision."""
    images = torch.randint(0, 256, (500, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images[:, :, :, 1] = images[:, :, :, 0] // 2
    transform = fit_whitening(images).double()
    flat = images.flatten(1).double() / 255
    white = flat @ transform[:-1] + transform[-1]
    assert white.mean(0).abs().max() < 1e-5
    sigma = torch.cov(flat.T)
    expected = sigma @ torch.linalg.inv(sigma + 0.1 * torch.eye(16))
    torch.testing.assert_close(torch.cov(white.T), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_sidecar_says_what_the_file_cannot_and_the_space_overrules_it(space: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    path = builders.mtt(folder, None)
    space["data"]["distilled"] = str(path)
    with pytest.raises(ValueError, match="state pixel_space: raw01"):
        run(space, tmp_path / "home")
    runner = CliRunner()
    stated = ["--set", "pixel_space=meanstd", "--set", "mean=[0.4,0.4,0.4]", "--set", "std=[0.2,0.2,0.2]"]
    facts = json.loads(runner.invoke(app, ["inspect", str(path), "--json", *stated]).stdout)
    assert (facts["asks"], facts["pixel_space"]) == ([], "meanstd")
    run(space, tmp_path / "home")
    first = set(Sweep.from_space(space, home=tmp_path / "home").plan.recipes)
    space["data"]["distilled"] = {"path": str(path), "mean": [0.5] * 3}
    assert first != set(Sweep.from_space(space, home=tmp_path / "home").plan.recipes)
    (folder / "lossatlas.yaml").write_text("pixel_spice: zca")
    with pytest.raises(ConfigError, match=r"lossatlas.yaml: unknown key 'pixel_spice'"):
        load_space(space)


def test_a_moved_set_is_the_same_and_a_changed_one_is_not(space: dict[str, Any], tmp_path: Path) -> None:
    keys = []
    for name in ("a", "b", "c"):
        folder = tmp_path / name
        folder.mkdir()
        path = builders.gift(folder, None)
        if name == "c":
            torch.save({**torch.load(path), "data": builders.pixels() / 2}, path)
        space["data"]["distilled"] = str(path)
        keys.append(set(Sweep.from_space(space, home=tmp_path).plan.recipes))
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.slow
def test_a_finished_sweep_can_be_read_when_its_files_are_gone_and_stray_files_change_nothing(
    space: dict[str, Any], tmp_path: Path
) -> None:
    folder = builders.rded(tmp_path / "set", None)
    space["data"]["distilled"] = str(folder)
    sweep, _, _ = run(space, tmp_path / "home")
    before = sweep.landscape().table
    first = set(sweep.plan.recipes)
    (folder / ".DS_Store").write_text("x")
    (folder / "lossatlas.yaml").write_text("{}")
    assert set(Sweep.from_space(space, home=tmp_path / "home").plan.recipes) == first
    next(folder.rglob("*.jpg")).write_bytes(next(folder.rglob("class00001*.jpg")).read_bytes())
    assert set(Sweep.from_space(space, home=tmp_path / "home").plan.recipes) != first, "same names, other pixels"
    folder.rename(tmp_path / "moved")
    again = Sweep.stored("files", tmp_path / "home", reading=True).landscape().table
    assert again.test_accuracy.tolist() == before.test_accuracy.tolist()
    with pytest.raises(ConfigError, match="no such file"):
        Sweep.stored("files", tmp_path / "home")


@pytest.mark.slow
def test_stored_labels_cannot_be_mixed_and_digits_not_whitened(space: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    space["data"]["distilled"] = str(builders.datm(tmp_path / "set", None))
    space["fixed"] |= {"labels": "stored", "mix": "cutmix"}
    with pytest.raises(ConfigError, match=r"fixed\.mix: cutmix, but stored labels belong to unmixed images"):
        load_space(space)
    digits = {"real": "digits", "distilled": {"path": str(tmp_path / "set"), "pixel_space": "zca"}}
    with pytest.raises(ConfigError, match="zca whitens images that are bytes; the digits are none"):
        load_space({**space, "data": digits})
    del space["fixed"]["mix"]
    space["data"] = {"real": "digits", "distilled": str(tmp_path / "set")}
    with pytest.raises(ValueError, match="need real images as bytes; the digits are none"):
        run({**space, "name": "x"}, tmp_path / "home")


def test_paths_can_be_an_axis_and_are_checked(space: dict[str, Any], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    paths = [str(builders.gift(tmp_path / "a", None)), str(builders.sre2l(tmp_path / "b", None))]
    del space["data"]["distilled"]
    space["scientific"] = {"loss": ["kl"], "data.distilled.path": paths}
    assert len(Sweep.from_space(space, home=tmp_path).plan.recipes) == 2
    space["scientific"]["data.distilled.path"] = [paths[0], "/nowhere/at/all"]
    with pytest.raises(ConfigError, match=r"data\.distilled\.path: /nowhere/at/all: no such file"):
        load_space(space)


def test_factors_of_the_views_that_change_nothing_are_merged(tiny: dict[str, Any]) -> None:
    """mix none has no alpha: 1 + 2 cells, not 4; dsa has no crop_area_min."""
    tiny["scientific"] = {
        "loss": ["kl"],
        "mix": ["none", "cutmix"],
        "mix_alpha": [0.5, 1.0],
        "crop_area_min": [0.1, 0.2],
    }
    sweep = Sweep.from_space(tiny)
    assert len(sweep.plan.cells) == 3
    assert "mix none has no mix_alpha" in str(sweep.plan.enumeration.merged)


@pytest.mark.slow
def test_validation_comes_from_the_evaluation_split_where_there_is_no_train(
    space: dict[str, Any], tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "set").mkdir()
    space["data"]["distilled"] = str(builders.gift(tmp_path / "set", None))
    _, _, about = run(space, tmp_path / "home")
    assert (about["validation_from"], about["n_validation"], about["n_test"]) == ("train", 9, 24)
    (tree / "train").rename(tmp_path / "elsewhere")
    list_tree.cache_clear()
    space["fixed"]["labels"] = "hard"
    del space["teacher"]
    _, _, about = run({**space, "name": "no-train"}, tmp_path / "home")
    assert (about["validation_from"], about["n_validation"], about["n_test"]) == ("evaluation", 6, 18)
    with pytest.raises(ValueError, match=r"validation.from: train, but the data have no train split"):
        run({**space, "name": "x", "validation": {"from": "train"}}, tmp_path / "home")
    space["data"]["distilled"] = {"method": "random", "ipc": 2}
    with pytest.raises(ValueError, match="random needs real training images"):
        run({**space, "name": "y"}, tmp_path / "home")


@pytest.mark.slow
def test_datasets_can_be_an_axis(space: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    one = {**space["data"], "distilled": str(builders.gift(tmp_path / "set", None))}
    space["data"] = {"one": one, "two": {"real": "digits", "distilled": {"ipc": 2}}}
    sweep = Sweep.from_space(space, home=tmp_path / "home")
    prepare_here(sweep.plan, sweep.home.cache)
    table = sweep.run(RunOptions(local=True, tracking_uri="off", force=True)).table
    assert set(table.dataset) == {"one", "two"}
    assert len(sweep.plan.recipes) == 2
    space["teacher"] = {"one": space["teacher"], "two": {"model": "convnet3"}}
    assert {cell.settings.teacher.model for cell in Sweep.from_space(space, home=tmp_path).plan.cells} == {  # type: ignore[union-attr]
        "convnet2",
        "convnet3",
    }
    with pytest.raises(ConfigError, match=r"scientific.dataset: unknown name 'three'.*valid: \['one', 'two'\]"):
        load_space(space, ["scientific.dataset=[three]"])
    with pytest.raises(ConfigError, match="halves images more often than their 8 pixels allow"):
        load_space(space, ["fixed.student=convnet4"])


@pytest.mark.slow
def test_draws_of_the_data_are_a_factor(tiny: dict[str, Any], home: Path) -> None:
    tiny |= {"data_seeds": 2, "replicates": 1}
    tiny["scientific"] = {"loss": ["kl"]}
    del tiny["nuisance"]
    sweep = Sweep.from_space(tiny, home=home)
    prepare_here(sweep.plan, sweep.home.cache)
    table = sweep.run(RunOptions(local=True, tracking_uri="off")).table
    assert table.data_seed.tolist() == [0, 1]
    first, second = (load_arrays(key, sweep.home.cache) for key in sweep.plan.recipes)
    assert not np.array_equal(first["distilled_images"], second["distilled_images"])
    assert not np.array_equal(first["bank_parameters"], second["bank_parameters"])
    np.testing.assert_array_equal(first["test_images"], second["test_images"])


def test_inspect_speaks_to_people_and_refuses_with_status_2(tmp_path: Path) -> None:
    runner = CliRunner()
    said = runner.invoke(app, ["inspect", str(builders.mtt(tmp_path, None))])
    assert said.exit_code == 0
    assert "distilled, format mtt" in said.stdout
    assert "STATE    pixel_space" in said.stdout
    refused = runner.invoke(app, ["inspect", str(tmp_path / "nothing.pt")])
    assert isinstance(refused.exception, ConfigError)
    assert "no such file or folder" in str(refused.exception)
    wrong = runner.invoke(app, ["inspect", str(tmp_path), "--set", "pixel_space=grey"])
    assert "--set: pixel_space: must be 'raw01', 'meanstd' or 'zca'" in str(wrong.exception)
    assert not (tmp_path / "lossatlas.yaml").exists()


def test_inspect_names_a_checkpoint(tmp_path: Path) -> None:
    torch.save(make_model("convnet3", ModelShape(3, 10, 32), width=16, norm="batch").state_dict(), tmp_path / "n.pth")
    facts = json.loads(CliRunner().invoke(app, ["inspect", str(tmp_path / "n.pth"), "--json"]).stdout)
    assert (facts["kind"], facts["format"], facts["classes"]) == ("checkpoint", "convnet3", 10)
    assert {"images", "pixel_space", "labels", "ipc", "problems", "asks"} <= set(facts)
    buffer = [[[torch.zeros(2), torch.zeros(3)] for _ in range(4)] for _ in range(2)]
    torch.save(buffer, tmp_path / "replay_buffer_0.pt")
    facts = json.loads(CliRunner().invoke(app, ["inspect", str(tmp_path / "replay_buffer_0.pt"), "--json"]).stdout)
    assert (facts["format"], facts["details"]) == ("expert-buffer", {"experts": 2, "epochs": 4, "parameters": 2})
