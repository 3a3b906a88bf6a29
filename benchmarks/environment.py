"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
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
        **{name: version(name) for name in ("lossatlas", "torch", "ray", "mlflow")},
    }
