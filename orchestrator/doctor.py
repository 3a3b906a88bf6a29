"""What would stop or spoil a sweep here: machine, home, tracker, cluster, space; each finding says what to do."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from orchestrator.home import Home
from search_spaces import ConfigError, load_space

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "FAIL"

PACKAGES: Final = ("torch", "torchvision", "timm", "ray", "mlflow", "numpy", "pandas")
LEAST_DISK_GB: Final = 5.0
LEAST_SHM_GB: Final = 1.0
MOST_SKEW_S: Final = 2.0
SLOW_TRACKER_S: Final = 1.0
WAIT_FOR_NODES_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: OK, WARN or FAIL.
        text: What was found.
        advice: What to do about it; empty where all is well.
    """

    level: str
    text: str
    advice: str = ""


def examine(home: Home, *, space: str | None, tracking_uri: str | None, address: str | None) -> Iterator[Finding]:
    """Everything that can be checked with what was given."""
    yield from check_machine()
    yield from check_home(home)
    if space is not None:
        yield from check_space(space, home)
    yield from check_tracker(tracking_uri or home.store_uri, known=home.store.exists() or tracking_uri is not None)
    if address is not None:
        yield from check_cluster(address)


def check_machine() -> Iterator[Finding]:
    """Versions, cores, GPUs, shared memory."""
    from orchestrator.cluster import cpp_compiler, local_gpu_bytes

    here = _about_machine()
    versions = ", ".join(f"{name} {here[name]}" for name in ("python", *PACKAGES))
    yield Finding(OK, f"versions: {versions}")
    gpus = local_gpu_bytes()
    described = ", ".join(f"{size / 2**30:.0f} GiB" for size in gpus) or "none; sweeps here run on the CPU"
    yield Finding(OK, f"{here['cpus']} CPUs; GPUs: {described}")
    if shutil.which("nvidia-smi") and not gpus:
        yield Finding(
            FAIL, "nvidia-smi is there and lists no GPU", "look at its own message: the driver may need a restart"
        )
    if not gpus:
        compiler = cpp_compiler()
        advice = (
            "" if compiler else "students on a CPU run up to three times as fast compiled; Debian: apt-get install g++"
        )
        yield Finding(OK if compiler else WARN, f"C++ compiler: {compiler or 'none'}", advice)
    yield from _judge_shm(here, "here")


def check_home(home: Home) -> Iterator[Finding]:
    """Writable, roomy, locks that hold, sweeps that wait."""
    try:
        home.require_writable()
        with tempfile.NamedTemporaryFile(dir=home.path) as file:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ConfigError as err:
        yield Finding(FAIL, str(err), "give another --home")
        return
    except OSError as err:
        yield Finding(
            FAIL, f"{home.path} has no file locks ({err.strerror})", "put the home on a local or NFSv4 file system"
        )
        return
    free_gb = shutil.disk_usage(home.path).free / 1e9
    text = f"home {home.path}: {free_gb:.0f} GB free"
    yield (
        Finding(OK, text)
        if free_gb >= LEAST_DISK_GB
        else Finding(WARN, text, f"make room: less than {LEAST_DISK_GB:.0f} GB")
    )
    names = home.sweeps()
    running = [name for name in names if home.sweep(name).is_running]
    yield Finding(OK, f"{len(names)} sweeps" + (f"; running: {', '.join(running)}" if running else ""))


def check_space(space: str, home: Home) -> Iterator[Finding]:
    """The space is valid, its networks can be built, and the files that it names can be read and fit the real data."""
    from orchestrator.plan import Plan
    from orchestrator.readable import require_readable
    from orchestrator.remarks import data_facts
    from orchestrator.students import require_buildable

    try:
        checked = load_space(space)
        plan = Plan(checked.settings.name, checked, "cpu")
        require_buildable(plan, home.cache, lambda text: None)
        datasets = data_facts(plan)
        require_readable(plan, home.cache, lambda text: None)
    except ConfigError as err:
        yield from (Finding(FAIL, problem, "mend the space, or the file that it names") for problem in err.problems)
        return
    yield Finding(OK, f"space {checked.settings.name}: valid, and its files are there and can be read")
    for data in datasets:
        said = [*data["remarks"], *(data["distilled"] or {}).get("remarks", ())]
        yield from (Finding(WARN, remark, "look at it before a sweep; docs/files.md") for remark in said)


def check_tracker(uri: str, *, known: bool) -> Iterator[Finding]:
    """It answers, soon enough."""
    from orchestrator.tracking.address import public_uri, without_secrets
    from orchestrator.tracking.client import ask_tracker

    if uri == "off" or not known:
        yield Finding(OK, "tracker: none yet; the first sweep makes a SQLite store in the home directory")
        return
    try:
        seconds = ask_tracker(uri)
    except Exception as err:  # noqa: BLE001 (whatever a tracker says is a finding)
        yield Finding(
            FAIL,
            f"tracker {public_uri(uri)} does not answer ({without_secrets(err)})",
            "start it, or look at address, proxy and password; a sweep runs without it, `lossatlas sync` sends the rest",
        )
        return
    text = f"tracker {public_uri(uri)} answers in {seconds:.2f} s"
    slow = "slow: more trials wait to be sent; a database nearer to the server helps"
    yield Finding(OK, text) if seconds < SLOW_TRACKER_S else Finding(WARN, text, slow)


def check_cluster(address: str) -> Iterator[Finding]:
    """Every node runs the same versions, with a clock that agrees, room, and the GPUs that Ray counts."""
    from orchestrator.cluster import connected, present_token, require_reachable

    try:
        require_reachable(address)
        present_token(address)
        with connected(address):
            yield from _check_nodes()
    except ConfigError as err:
        yield Finding(FAIL, str(err), "see docs/operations.md, 'The cluster does not answer'")


def _check_nodes() -> Iterator[Finding]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = _about_machine()
    ask = ray.remote(num_cpus=0)(_about_machine)
    for node in (node for node in ray.nodes() if node["Alive"]):
        name = f"node {node['NodeManagerAddress']} ({node['NodeID'][:6]})"
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked = time.time()
        try:
            there = ray.get(ask.options(scheduling_strategy=strategy).remote(), timeout=WAIT_FOR_NODES_S)
        except Exception as err:  # noqa: BLE001 (a node that cannot run a task is a finding, whatever it raises)
            yield Finding(
                FAIL, f"{name} runs no task ({type(err).__name__})", "look at its raylet log; restart Ray there"
            )
            continue
        resources = node["Resources"]
        yield Finding(OK, f"{name}: {resources.get('CPU', 0):.0f} CPUs, {resources.get('GPU', 0):.0f} GPUs")
        yield from _judge_node(name, here, there, asked, time.time())


def _judge_node(
    name: str, here: dict[str, Any], there: dict[str, Any], asked: float, answered: float
) -> Iterator[Finding]:
    other = [f"{key} {there[key]} (here {here[key]})" for key in ("python", *PACKAGES) if there[key] != here[key]]
    if other:
        yield Finding(FAIL, f"{name} has other versions: {', '.join(other)}", "install requirements.lock there")
    skew = max(asked - there["time"], there["time"] - answered, 0.0)
    if skew > MOST_SKEW_S:
        yield Finding(
            WARN, f"{name}: its clock is {skew:.0f} s off", "start an NTP client there; times in MLflow will be wrong"
        )
    if there["tmp_free_gb"] < LEAST_DISK_GB:
        yield Finding(
            WARN, f"{name}: {there['tmp_free_gb']:.1f} GB free where Ray keeps its files", "make room in /tmp"
        )
    yield from _judge_shm(there, f"on {name}")


def _judge_shm(about: dict[str, Any], where: str) -> Iterator[Finding]:
    if about["shm_gb"] < LEAST_SHM_GB:
        yield Finding(
            WARN,
            f"{about['shm_gb']:.2f} GB shared memory {where}",
            "containers: --shm-size=8g, or Ray's object store is slow",
        )


def _about_machine() -> dict[str, Any]:
    """What a node says of itself; runs on every node."""
    shm = Path("/dev/shm")
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "cpus": os.cpu_count(),
        "time": time.time(),
        "tmp_free_gb": shutil.disk_usage(tempfile.gettempdir()).free / 1e9,
        "shm_gb": shutil.disk_usage(shm).total / 1e9 if shm.exists() else 0.0,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def as_json(findings: list[Finding]) -> str:
    """For programs."""
    return json.dumps([{"level": f.level, "text": f.text, "advice": f.advice} for f in findings], indent=1)
