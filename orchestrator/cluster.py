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
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.processes import command_of, safe_environment
from orchestrator.tracking.address import hidden
from search_spaces import ConfigError

MEMORY_MARGIN = 1.2
#: Longest path of a socket: 107 bytes on Linux, 103 on macOS.
MOST_SOCKET_BYTES = 107 if sys.platform == "linux" else 103
#: What Ray puts behind its folder, at its longest.
_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.0"
#: What Ray says of a node that does not come up in time.
_NOT_UP = "timed out during startup"
#: Ray's variable; 0 makes a cluster that other machines cannot join or see.
_SEVERAL_NODES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


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
    found = address or os.environ.get("RAY_ADDRESS")
    return None if found == "local" else found or None


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
    where = ["--address", address] if address != "auto" else []
    command = command_of("ray.scripts.scripts", "health-check", *where)
    environment = safe_environment(RAY_AUTH_MODE="disabled")
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


def require_reachable(address: str | None) -> None:
    """Refuse HOST:PORT where nothing listens, given or in RAY_ADDRESS; Ray itself would go on trying for minutes.

    Raises:
        ConfigError: If no connection is possible.
    """
    where = "--address" if address else "RAY_ADDRESS"
    found = foreign_address(address) or ""
    advice = "" if address else " Unset RAY_ADDRESS to start a cluster here, or give another with --address."
    if found.startswith(("http://", "https://")):
        raise ConfigError(
            f"{where}: give HOST:PORT of a cluster, got the address of a web page, {hidden(found)}.{advice}"
        )
    host, _, port = found.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as err:
        raise ConfigError(f"{where}: nothing answers at {found} ({err}).{advice}") from err


def own_packages() -> list[str]:
    """Folders that workers of somebody else's cluster are sent, so that they run this code and not another version."""
    here = Path(__file__).parents[1]
    return [str(here / name) for name in ("orchestrator", "search_spaces", "trainables")]


def start_patiently(start: Callable[[], Any], stop: Callable[[], None]) -> Any:
    """What `start` returns; it is tried once more where a node of Ray was not up in time, as on an overloaded machine.

    Args:
        start: Starts or joins a cluster.
        stop: Takes back what a failed start has left.

    Raises:
        ConfigError: If the node is not up the second time either.
    """
    for attempt in (1, 2):
        try:
            return start()
        except Exception as err:  # Ray raises no class of its own
            if _NOT_UP not in str(err):
                raise
            stop()
            if attempt == 2:
                raise ConfigError(
                    "Ray: its node was not up within 30 s, twice; this machine has too much to do, or too little memory. Nothing "
                    "that ended is lost: try again when there is less load, or train without Ray (--local)."
                ) from err
    raise AssertionError


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
    foreign = foreign_address(address)
    try:
        start = partial(
            ray.init,
            address=foreign or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            ignore_reinit_error=True,
            runtime_env={"py_modules": own_packages()} if address else None,
            **({"_temp_dir": folder} if foreign is None and (folder := short_folder()) else {}),
        )
        with _discreet(is_local=foreign is None, is_code_sent=bool(address)):
            context = start_patiently(start, ray.shutdown)
    except (ConnectionError, ValueError) as err:
        raise ConfigError(
            f"no Ray cluster answers at {foreign!r}: {err}. If it wants a token: `ray get-auth-token` there prints "
            "it, RAY_AUTH_TOKEN here passes it on."
        ) from err
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray has put its own there, which ends without a word
    try:
        yield context.dashboard_url or None
    finally:
        ray.shutdown()


@contextmanager
def _discreet(*, is_local: bool, is_code_sent: bool) -> Iterator[None]:
    """Start Ray so that it neither tells nor runs what it should not.

    Its table of jobs shows the command line, where a tracker's address may have a password. It puts the current folder first
    on the workers' path, so that a `copy.py` there would be run: here that is this code's folder, or none where the code is sent along. And a cluster that
    is for this machine alone listens on the loopback interface alone (what Ray does on macOS by default).
    """
    from ray._private import ray_constants, utils

    root = Path(__file__).parents[1]
    was = utils.get_entrypoint_name, ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(_SEVERAL_NODES)
    utils.get_entrypoint_name = lambda: hidden(was[0]())
    if is_local:
        ray_constants.ENABLE_RAY_CLUSTER, os.environ[_SEVERAL_NODES] = False, "0"
    try:
        is_installed = root.name in ("site-packages", "dist-packages")
        with chdir(root.anchor if is_installed or is_code_sent else root):
            yield
    finally:
        utils.get_entrypoint_name, ray_constants.ENABLE_RAY_CLUSTER = was[:2]
        os.environ.pop(_SEVERAL_NODES, None)
        os.environ.update({_SEVERAL_NODES: was[2]} if was[2] is not None else {})


def short_folder() -> str | None:
    """Where a local Ray keeps its files if the usual folder's path is too long for its sockets; None: the usual one.

    Raises:
        ConfigError: If there is no other.
    """
    usual = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    if len(os.fsencode(usual)) + len(_SOCKET) <= MOST_SOCKET_BYTES:
        return None
    if not os.access("/tmp", os.W_OK):
        raise ConfigError(
            f"TMPDIR: its path is too long for Ray's sockets ({MOST_SOCKET_BYTES} bytes with {_SOCKET!r}), got {usual}; set "
            "RAY_TMPDIR to a folder with a short path."
        )
    return "/tmp/ray"
