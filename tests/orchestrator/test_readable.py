"""`plan`, `doctor SPACE` and `run` open every file that a space names before anything is decoded or trained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator import RunOptions, Sweep
from orchestrator.describe import describe_plan
from orchestrator.doctor import FAIL, OK, check_space
from orchestrator.facts import plan_facts
from orchestrator.home import Home
from search_spaces import ConfigError
from search_spaces.files import look_again
from tests.trainables.formats import builders
from trainables.networks import ModelShape, make_model
from trainables.prepare.files import unreadable


def save(content: Any, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return str(path)


def network(classes: int = 3, side: int = builders.SIZE) -> torch.nn.Module:
    return make_model("convnet2", ModelShape(3, classes, side), width=4, norm="batch")


def wanted(**files: Any) -> dict[str, Any]:
    """A request with real images of three classes and 8 pixels."""
    fit = {"classes": 3, "names": ["ape", "cat", "zebra"], "channels": None, "size": builders.SIZE, "is_ordered": False}
    return {"teacher": None, "distilled": None, "label_store": None, "projector": None, **fit, **files}


def teacher(path: str, **stated: Any) -> dict[str, Any]:
    return {"teacher": {"weights": [{"path": path}], **stated}}


def whole_module(folder: Path) -> dict[str, Any]:
    return teacher(save(network(), folder / "net.pt"))


def other_classes(folder: Path) -> dict[str, Any]:
    return teacher(save(network(5).state_dict(), folder / "net.pt"))


def other_size(folder: Path) -> dict[str, Any]:
    return teacher(save(network(side=16).state_dict(), folder / "net.pt"))


def unknown_keys(folder: Path) -> dict[str, Any]:
    return teacher(save({"blocks.0.w": torch.ones(2)}, folder / "net.pt"))


def other_keys(folder: Path) -> dict[str, Any]:
    return teacher(save(network().state_dict(), folder / "net.pt"), model="torchvision/resnet18")


def impossible_operation(folder: Path) -> dict[str, Any]:
    return teacher(save(network().state_dict(), folder / "net.pt"), norm="group")


def no_experts(folder: Path) -> dict[str, Any]:
    return teacher(save(network().state_dict(), folder / "net.pt"), expert=1)


def dc_without_constants(folder: Path) -> dict[str, Any]:
    return {"distilled": {"path": str(builders.dc(folder, None)), "stated": {}}}


def set_of_other_classes(folder: Path) -> dict[str, Any]:
    return {
        "distilled": {"path": str(builders.gift(folder, None)), "stated": {}},
        "names": ["ape", "cat"],
        "classes": 2,
    }


def numbers_beyond_the_classes(folder: Path) -> dict[str, Any]:
    return {"distilled": {"path": str(builders.d4m(folder, None)), "stated": {}}}


def no_store(folder: Path) -> dict[str, Any]:
    return {"label_store": {"path": str(folder), "batch_size": 5}}


def store_of_other_batches(folder: Path) -> dict[str, Any]:
    return {"label_store": {"path": str(builders.write_store(folder / "s", builders.hard())), "batch_size": 7}}


def store_of_other_classes(folder: Path) -> dict[str, Any]:
    path = builders.write_store(folder / "s", builders.hard())
    return {"label_store": {"path": str(path), "batch_size": 5}, "classes": 4}


def other_backbone(folder: Path) -> dict[str, Any]:
    path = save(network().state_dict(), folder / "net.pt")
    return {"projector": {"backbone": "convnet3", "weights": {"path": path}}}


def foreign_backbone(folder: Path) -> dict[str, Any]:
    path = save(network().state_dict(), folder / "net.pt")
    return {"projector": {"backbone": "timm/test_vit", "weights": {"path": path}}}


def text_of_other_classes(folder: Path) -> dict[str, Any]:
    np.save(folder / "text.npy", np.zeros((5, 8), dtype=np.float32))
    return {"projector": {"text": {"path": str(folder / "text.npy")}}}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (whole_module, r"^teacher.weights: .*net\.pt.*save the weights"),
        (other_classes, r"^teacher.weights: .*classes 5, expected 3"),
        (other_size, r"^teacher.weights: .*16"),
        (unknown_keys, r"^teacher.weights: .*none of them fits a known network.*give teacher\.model"),
        (other_keys, r"^teacher.weights: .*does not fit torchvision/resnet18"),
        (impossible_operation, r"^teacher.weights: .*does not fit convnet2 with norm group"),
        (no_experts, r"^teacher.weights: .*teacher\.expert are of expert buffers"),
        (dc_without_constants, r"^data.distilled.path: .*recognised as dc.*state mean: .*; std: "),
        (set_of_other_classes, r"^data.distilled.path: .*3 classes, the real data have 2"),
        (numbers_beyond_the_classes, r"^data.distilled.path: .* classes, the real data have 3"),
        (no_store, r"^data.distilled.label_store: .*expected epoch_\*/batch_\*\.tar"),
        (store_of_other_batches, r"^data.distilled.label_store: .*batches of 5, got 7"),
        (store_of_other_classes, r"^data.distilled.label_store: .*labels for 3 classes, the real data have 4"),
        (other_backbone, r"^projector.weights: .*it is a convnet2; say that"),
        (foreign_backbone, r"^projector.weights: .*not of timm/test_vit"),
        (text_of_other_classes, r"^projector.text: .*C = 3, got torch.float32 \(5, 8\)"),
    ],
)
def test_a_file_that_data_cannot_be_made_of_is_named_with_its_key(
    make: Callable[[Path], dict[str, Any]], message: str, tmp_path: Path
) -> None:

    (problem,) = unreadable([wanted(**make(tmp_path))])
    assert re.search(message, problem), problem


def test_files_that_fit_are_no_problem(tmp_path: Path) -> None:
    net = save(network().state_dict(), tmp_path / "net.pt")
    store = builders.write_store(tmp_path / "s", builders.hard())
    np.save(tmp_path / "text.npy", np.zeros((3, 8), dtype=np.float32))
    weights = {"backbone": "convnet2", "weights": {"path": net}, "text": {"path": str(tmp_path / "text.npy")}}
    sets = []
    for name, (_, build, stated) in builders.SETS.items():
        if name == "d4m":  # of more classes
            continue
        (tmp_path / name).mkdir()
        sets.append(wanted(distilled={"path": str(build(tmp_path / name, None)), "stated": stated}))
    label_store = {"path": str(store), "batch_size": 5}
    assert unreadable([wanted(**teacher(net), label_store=label_store, projector=weights), *sets]) == []
    unknown = {"classes": None, "names": None, "size": None}
    assert unreadable([wanted(**teacher(net), projector=weights) | unknown]) == []


@pytest.fixture
def space(tree: Path, tmp_path: Path) -> dict[str, Any]:
    """A DC file, a teacher saved whole, and real images that cannot be decoded."""
    (tmp_path / "set").mkdir()
    for path in tree.rglob("0.png"):
        path.write_bytes(b"damaged")
    distilled = {"path": str(builders.dc(tmp_path / "set", None)), "mean": [0.4] * 3, "std": [0.2] * 3}
    return {
        "name": "files",
        "data": {"real": str(tree), "image_size": builders.SIZE, "distilled": distilled},
        "teacher": {"weights": [save(network(), tmp_path / "net.pt")]},
        "scientific": {"loss": ["kl"]},
        "fixed": {"student": "convnet2", "width": 4, "epochs": 1, "batch_size": 6, "views": 1},
        "replicates": 1,
    }


def quiet(text: str) -> None:
    """Nobody listens."""


def test_plan_doctor_and_run_find_a_file_before_images_are_decoded(space: dict[str, Any], tmp_path: Path) -> None:

    sweep = Sweep.from_space(space, home=tmp_path / "home")
    message = r"teacher\.weights: .*save the weights"
    with pytest.raises(ConfigError, match=message):
        list(describe_plan(sweep, probe=False, say=quiet))
    with pytest.raises(ConfigError, match=message):
        sweep.run(RunOptions(local=True, tracking_uri="off"))
    written = tmp_path / "space.yaml"
    written.write_text(json.dumps(space))
    (finding,) = check_space(str(written), Home.at(tmp_path / "home"))
    assert (finding.level, finding.advice) == (FAIL, "mend the space, or the file that it names")
    torch.save(network().state_dict(), tmp_path / "net.pt")
    look_again()
    assert next(check_space(str(written), Home.at(tmp_path / "home"))).level == OK
    del space["data"]["distilled"]["std"]
    written.write_text(json.dumps(space))
    (finding,) = check_space(str(written), Home.at(tmp_path / "home"))
    assert "state" in finding.text
    assert "std" in finding.text


def test_plan_as_json_has_what_was_found_out(tiny: dict[str, Any], home: Path) -> None:
    (fresh,) = plan_facts(Sweep.from_space(tiny, overrides=["teacher.width=9"], home=home), probe=False, say=quiet)[
        "prepared"
    ]
    assert (fresh["is_prepared"], fresh["has_teacher"]) == (False, True)
    (known,) = plan_facts(Sweep.from_space(tiny, home=home), probe=False, say=quiet)["prepared"]
    assert known["is_prepared"]
    assert 0 < known["teacher_test_accuracy"] <= 1
    assert known["repeats"] is not None
    assert any("The teacher classifies" in line for line in known["facts"])
    assert {"problems", "remarks", "mix_ups", "class_test", "readings"} <= known.keys()
    json.dumps(known)
