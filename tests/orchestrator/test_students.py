"""Networks that cannot be built are found by `plan` and before `run` prepares anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator import RunOptions, Sweep
from orchestrator.describe import describe_plan
from search_spaces import ConfigError
from trainables.students import unbuildable


def silent(text: str) -> None:
    """Nobody listens."""


def test_networks_that_cannot_be_built_are_named_with_the_reason_and_what_is_spelt_alike() -> None:
    shape = {"width": None, "norm": None, "channels": 3, "classes": 10, "image_size": 32}
    names = ("torchvision/alexnet", "torchvision/resnet81", "timm/resnet19", "torchvision/resnet18", "timm/resnet18")
    problems = unbuildable([{"where": name, "name": name, **shape} for name in names])
    assert [problem.split(":")[0] for problem in problems] == list(names[:3])
    assert "torchvision/alexnet cannot be built for 3 x 32 x 32 pixels and 10 classes" in problems[0]
    assert "did you mean torchvision/resnet18" in problems[1]
    assert "did you mean timm/resnet1" in problems[2]


def test_plan_and_run_refuse_a_student_before_anything_is_made(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["fixed"] = {k: v for k, v in tiny["fixed"].items() if k != "width"}
    tiny["fixed"]["student"] = "torchvision/resnet81"
    sweep = Sweep.from_space(tiny, home=tmp_path / "home")
    with pytest.raises(ConfigError, match=r"fixed\.student: torchvision/resnet81 cannot be built"):
        list(describe_plan(sweep, probe=False, say=silent))
    assert not (tmp_path / "home").exists()
    with pytest.raises(ConfigError, match=r"fixed\.student: torchvision/resnet81 cannot be built"):
        sweep.run(RunOptions(local=True, tracking_uri="off"))
    assert not list((tmp_path / "home" / "cache").glob("data-*"))
