"""Connect to Ray and find out what there is."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from search_spaces import ConfigError

MEMORY_MARGIN = 1.2


def local_gpu_bytes() -> list[int]:
    """Memory of each GPU that processes on this machine may use; empty where there is none."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [int(line) * 2**20 for line in done.stdout.split()] if done.returncode == 0 else []


def cpp_compiler() -> str | None:
    """The C++ compiler that `engine: compiled` uses on a CPU; None if there is none."""
    return shutil.which(os.environ.get("CXX", "g++"))


def foreign_address(address: str | None) -> str | None:
    """Of a cluster that is there without us: what was given, or RAY_ADDRESS, which `ray job submit` sets."""
    return address or os.environ.get("RAY_ADDRESS")


def resolve_device() -> str:
    """What `device: auto` means here."""
    return "cuda" if local_gpu_bytes() else "cpu"


def gpu_share(*, device_bytes: float, peak_bytes: float, device_cpus: float, trial_cpus: int) -> float:
    """GPUs per trial: 1 / k for the largest k that fits.

    k x 1.2 x peak memory of one trial process must fit the device, and k trials must have their CPUs.

    Args:
        device_bytes: Memory of one GPU.
        peak_bytes: Measured peak of one trial, its CUDA context included.
        device_cpus: The GPU's share of its node's CPUs.
        trial_cpus: CPUs per trial.
    """
    by_memory = int(device_bytes // (MEMORY_MARGIN * peak_bytes)) if peak_bytes else 1
    return 1 / max(1, min(by_memory, int(device_cpus // trial_cpus)))


def resolve_gpus(setting: str | float, device: str, costs: Mapping[str, Mapping[str, float]], trial_cpus: int) -> float:
    """What `gpus: auto` means here; an explicit fraction wins, and a CPU sweep needs none."""
    if device == "cpu":
        return 0.0
    if setting != "auto":
        return float(setting)
    gpus = local_gpu_bytes()
    peak = max((cost["peak_device_bytes"] for cost in costs.values()), default=0.0)
    cpus = (os.cpu_count() or 1) / max(1, len(gpus))
    return gpu_share(device_bytes=min(gpus), peak_bytes=peak, device_cpus=cpus, trial_cpus=trial_cpus)


def present_token(address: str) -> None:
    """Let Ray show its token to a cluster that wants one, and to no other.

    Works only before Ray is imported. A driver that uses a token on a cluster without authentication would ask the cluster
    for tokens in turn: every actor is then destroyed as an orphan, since its driver does not answer.
    """
    saved = Path.home() / ".ray" / "auth_token"
    known = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH") or saved.exists()
    if known and "RAY_AUTH_MODE" not in os.environ and not _answers_without_token(address):
        os.environ["RAY_AUTH_MODE"] = "token"


def _answers_without_token(address: str) -> bool:
    """A cluster's health check, in a process of its own, since Ray reads how to authenticate when it is imported."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    where = ["--address", address] if address != "auto" else []
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    return subprocess.run([*command, *where], env=environment, capture_output=True, check=False).returncode == 0


def require_reachable(address: str | None) -> None:
    """Refuse HOST:PORT where nothing listens; Ray itself would go on trying for minutes.

    Raises:
        ConfigError: If no connection is possible.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as err:
        raise ConfigError(f"--address: nothing answers at {address} ({err}).") from err


def own_packages() -> list[str]:
    """Folders that workers of somebody else's cluster are sent, so that they run this code and not another version."""
    here = Path(__file__).parents[1]
    return [str(here / name) for name in ("orchestrator", "search_spaces", "trainables")]


@contextmanager
def connected(address: str | None) -> Iterator[str | None]:
    """A connection to a Ray cluster, or to a new local one; gives the dashboard's address.

    Without an address RAY_ADDRESS counts (`ray job submit` sets it), else a new cluster is started here. Left to
    itself, Ray would look for the one last started on this machine, and wait for it although it is long gone.

    Raises:
        ConfigError: If no cluster answers at the address.
    """
    import ray

    if ray.is_initialized():  # a notebook that already has its cluster keeps it
        yield ray.get_runtime_context().gcs_address
        return
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        context = ray.init(
            address=foreign_address(address) or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            ignore_reinit_error=True,
            runtime_env={"py_modules": own_packages()} if address else None,
        )
    except (ConnectionError, ValueError) as err:
        raise ConfigError(
            f"no Ray cluster answers at {address!r}: {err}. If it wants a token: `ray get-auth-token` there prints "
            "it, RAY_AUTH_TOKEN here passes it on."
        ) from err
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray has put its own there, which ends without a word
    try:
        yield context.dashboard_url or None
    finally:
        ray.shutdown()
