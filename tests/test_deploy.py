"""What launches clusters is what the launchers accept."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/onpremise.yaml"])
def test_ray_accepts_the_cluster_files(name: str) -> None:
    """Ray's own schema, after Ray has filled in what a file leaves out, as `ray up` does it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / name).read_text())
    validate_config(prepare_config(config))


def test_the_slurm_script_is_a_script() -> None:
    script = ROOT / "deploy" / "slurm" / "lossatlas.sbatch"
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert "symmetric-run" in script.read_text()


def test_the_kubernetes_job_is_a_ray_job_and_says_that_it_is_untested() -> None:
    text = (ROOT / "deploy" / "kubernetes" / "rayjob.yaml").read_text()
    job = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert "UNTESTED" in text


def test_containers_run_targets_of_the_makefile_and_say_that_they_are_untested() -> None:
    container = (ROOT / "Containerfile").read_text()
    development = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert "UNTESTED" in container
    assert "UNTESTED" in development["name"]
    assert (ROOT / ".devcontainer" / development["build"]["dockerfile"]).samefile(ROOT / "Containerfile")
    assert f"AS {development['build']['target']}\n" in container
    targets = re.findall(r"make ([\w-]+)", container + development["postCreateCommand"])
    assert targets == ["install", "install-dev"]
    assert all(f"\n{target}: " in (ROOT / "Makefile").read_text() for target in targets)
    copied = re.findall(r"^COPY (\S+) ", container, re.MULTILINE)
    assert all((ROOT / path).exists() for path in copied)


@pytest.mark.parametrize("name", ["run", "system"])
def test_scripts_of_ci_are_scripts(name: str) -> None:
    assert subprocess.run(["bash", "-n", str(ROOT / ".ci" / name)], check=False).returncode == 0


def test_the_grafana_dashboard_draws_the_metrics_that_there_are() -> None:
    """Prometheus calls a counter by its name and _total."""
    from orchestrator.ray_metrics import METRICS

    dashboard = json.loads((ROOT / "deploy" / "grafana" / "lossatlas.json").read_text())
    drawn = {
        name
        for panel in dashboard["panels"]
        for name in re.findall(r"ray_(\w+?)(?:_total)?\{", panel["targets"][0]["expr"])
    }
    assert drawn == set(METRICS)
    for panel in dashboard["panels"]:
        divided = set(re.findall(r"by \((\w+)\)", panel["targets"][0]["expr"]))
        (name,) = set(re.findall(r"ray_(\w+?)(?:_total)?\{", panel["targets"][0]["expr"]))
        assert divided <= set(METRICS[name][1])
