"""Measure what one trial costs, in a process of its own: `python -m trainables.probe CACHE < config.json`."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from trainables.arrays import load_arrays
from trainables.config import TrialConfig
from trainables.trial import TrialData, start_trial, train_student


def probe(config: TrialConfig, cache: Path) -> dict[str, float]:
    """Seconds and peak memory of one trial, measured up to its third evaluation in this process.

    An epoch that is thrown away comes first (torch loads much, and compiles, at first use); seconds per trial are
    extrapolated from the fastest stretch between evaluations.

    Returns:
        trial_s, peak_host_bytes, peak_device_bytes (CUDA context included; 0 on a CPU).
    """
    free_before = _free_device_bytes() if config.device == "cuda" else 0
    data = TrialData.from_arrays(load_arrays(config.data, cache), config.device)
    list(train_student(replace(config, epochs=1), data))
    state = start_trial(config, data)
    seconds_per_epoch = []
    points = train_student(config, data, state)
    for _ in range(3):
        started, epoch = time.monotonic(), state.epoch
        if next(points, None) is not None:
            seconds_per_epoch.append((time.monotonic() - started) / (state.epoch - epoch))
    device_bytes = free_before - torch.cuda.mem_get_info()[0] if config.device == "cuda" else 0
    return {
        "trial_s": min(seconds_per_epoch) * config.epochs,
        "peak_host_bytes": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024),
        "peak_device_bytes": float(device_bytes),
    }


def _free_device_bytes() -> int:
    """Free memory of the first GPU before this process has a CUDA context, asked of a tool that never makes one."""
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 2**20


def main() -> int:
    """Probe the trial configuration on standard input; the last line printed is the measurement as JSON."""
    config = TrialConfig(**json.load(sys.stdin))
    print(json.dumps(probe(config, Path(sys.argv[1]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
