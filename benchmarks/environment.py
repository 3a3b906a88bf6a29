"""What a measurement was made on, and how its outcome is printed: the same for every benchmark."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def environment() -> dict[str, object]:
    """Hardware, CPU flags that matter to training, versions."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.partition(":")[2].strip() for line in cpuinfo.splitlines() if "model name" in line), "unknown")
    flags = {flag for line in cpuinfo.splitlines() if line.startswith("flags") for flag in line.split()}
    return {
        "cpu": model,
        "cpus": os.cpu_count(),
        "flags": sorted(flag for flag in flags if flag in {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("lossatlas", "torch", "ray", "mlflow")},
        "gpu": _gpu(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _gpu() -> str | None:
    """What `nvidia-smi` calls the first device; None without one."""
    if not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()[0]


def options(document: str | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the result as JSON in the last line")
    return parser


def show(result: Mapping[str, object], *, as_json: bool, digits: int = 3) -> None:
    """Print a line per figure, and all as JSON in the last line if that is wanted."""
    for key, value in result.items():
        print(f"{key:24} {round(value, digits) if isinstance(value, float) else value}")
    if as_json:
        print(json.dumps(result))
