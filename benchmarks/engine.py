"""Students per hour: this engine beside the way in which released evaluation scripts train (`benchmarks.reference`).

    python -m benchmarks.engine [--json] [--device cpu] [--rounds 3] [--pairs convnet3 resnet18] [--epochs 20]

On a CPU a trial is `--epochs` epochs of a convnet3 of width 128 on 100 images of CIFAR's size (batches of 50), then 1,000 images
are evaluated: the share that evaluation has in 300 epochs with CIFAR-10's test images. The pair names the teacher (convnet3 of
width 128, resnet18_modified). With `--device cuda` a trial has 1,000 images in batches of 100, 10,000 are evaluated, and the pair
names student and teacher alike. Pixels and weights are random, which changes no time. The kinds take turns within each round:

- `reference`: one process with all cores, the teacher on every batch.
- `fp32_eager`, `fp32_compiled`, `bf16_eager`, `bf16_compiled`: one single-threaded process per core (with cuda: four processes on the
  device), labels from the bank (made before; its seconds are `bank_s`), number format and engine as named.
- `fp32_eager_wide` (cpu): one process with all cores. `grouped_4`, `grouped_16` (cuda): that many trials advance together, in bf16.

`ratio_*` are medians over rounds of trials per hour over the reference's; without the name of a kind, of the fastest kind, which
on a CPU is what `precision: auto` and `engine: auto` measure and choose. `ratio_*_fp32` is the fastest in fp32. With cuda,
`*_matmul_share` is the arithmetic of the fastest kind's training steps per second over that of a large bf16 product of matrices.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import torch

from benchmarks import reference
from benchmarks.environment import environment, options, show
from benchmarks.pool import Pool
from trainables.arrays import load_arrays, new_entry
from trainables.augment import Augmentation
from trainables.config import TrialConfig
from trainables.data.labels import LabelBank, draw_views, label_view, with_pixels
from trainables.grouped import Member, train_together
from trainables.networks import ModelShape, make_model
from trainables.splits import Split
from trainables.trial import TrialData, start_trial

SHAPE: Final = ModelShape(channels=3, classes=10, image_size=32)
WIDTH: Final = 128
CORES: Final = os.cpu_count() or 1
PAIRS: Final = ("convnet3", "resnet18")
GPU_PROCESSES: Final = 4
GROUPS: Final = (4, 16)
#: Trials that each process of the pool trains in a round.
TRIALS_EACH: Final = 2
KINDS: Final = tuple((precision, engine) for precision in ("fp32", "bf16") for engine in ("eager", "compiled"))


@dataclass(frozen=True, slots=True)
class Workload:
    """One trial's work."""

    student: str = "convnet3"
    teacher: str = "convnet3"
    images: int = 100
    evaluated: int = 1000
    batch_size: int = 50
    epochs: int = 20
    device: str = "cpu"
    width: int = WIDTH

    def network(self, name: str) -> torch.nn.Module:
        """Student or teacher, on the device."""
        norm = "instance" if name.startswith("convnet") else "batch"
        return make_model(name, SHAPE, width=self.width, norm=norm).to(self.device)

    def config(self, precision: str, engine: str, *, threads: int = 1) -> TrialConfig:
        """A trial that is evaluated once, in its end."""
        is_convnet = self.student.startswith("convnet")
        return TrialConfig(
            stage="tune",
            replicate=1,
            loss="kl",
            knobs={"temperature": 20.0, "refinement": 0.0, "scale_t2": True},
            optimizer="adamw",
            lr=1e-3,
            weight_decay=0.0,
            schedule="cosine",
            student=self.student,
            width=self.width if is_convnet else None,
            norm="instance" if is_convnet else "batch",
            epochs=self.epochs,
            batch_size=self.batch_size,
            evaluate_every_epochs=self.epochs,
            precision=precision,
            engine=engine,
            threads=threads,
            device=self.device,
            data="engine",
        )


def workload_of(pair: str, epochs: int, device: str) -> Workload:
    """What a pair means on a device."""
    name = {"convnet3": "convnet3", "resnet18": "resnet18_modified"}[pair]
    if device == "cpu":
        return Workload(teacher=name, epochs=epochs)
    return Workload(name, name, images=1000, evaluated=10_000, batch_size=100, epochs=epochs, device=device)


def make_data(work: Workload, teacher: torch.nn.Module, folder: Path) -> float:
    """Write what the trials read; seconds that views and labels took."""
    generator = torch.Generator().manual_seed(0)
    distilled, evaluated = (
        Split(torch.randn(n, 3, 32, 32, generator=generator), torch.arange(n) % 10)
        for n in (work.images, work.evaluated)
    )
    started = time.monotonic()
    views = draw_views(Augmentation("dsa", flips=True), work.images, 32, views=work.epochs, seed=0)
    logits = torch.stack([label_view(distilled, view, torch.zeros(3), teacher) for view in views]).half()
    bank = with_pixels(LabelBank(distilled, views, logits, torch.zeros(3)))
    bank_s = time.monotonic() - started
    with new_entry(folder / "data-engine") as entry:
        for name, array in TrialData(bank, evaluated, evaluated).to_arrays().items():
            np.save(entry / f"{name}.npy", array)
    return bank_s


def as_published(work: Workload, teacher: torch.nn.Module) -> Callable[[], float]:
    """Trials per hour as published scripts train; the data loaders are kept, as theirs are."""
    batches, tests = (
        reference.loader(torch.randn(n, 3, 32, 32), torch.arange(n) % 10, size, shuffle=shuffle)
        for n, size, shuffle in ((work.images, work.batch_size, True), (work.evaluated, 256, False))
    )
    plain = teacher.to(memory_format=torch.contiguous_format)

    def per_hour() -> float:
        torch.set_num_threads(CORES)
        student = work.network(work.student)
        started = time.monotonic()
        reference.train(student, plain, batches, epochs=work.epochs)
        reference.evaluate(student, tests)
        return 3600 / (time.monotonic() - started)

    per_hour()  # starts the workers
    return per_hour


def in_pool(pool: Pool, config: TrialConfig, processes: int) -> Callable[[], float]:
    """Trials per hour of a warm pool."""
    configs = [config] * TRIALS_EACH * processes
    return lambda: 3600 * len(configs) / pool.run(configs)[0]


def in_group(work: Workload, count: int, folder: Path) -> Callable[[], float]:
    """Trials per hour of so many that advance together in this process."""
    data = TrialData.from_arrays(load_arrays("engine", folder), work.device)
    config = work.config("bf16", "grouped")

    def per_hour() -> float:
        started = time.monotonic()
        configs = [replace(config, replicate=k) for k in range(count)]
        members = [Member(c, data, start_trial(c, data)) for c in configs]
        for _ in range(work.epochs):
            train_together(members)
        return 3600 * count / (time.monotonic() - started)

    per_hour()
    return per_hour


def measure(work: Workload, *, rounds: int, folder: Path) -> dict[str, Any]:
    """Trials per hour of every kind, by round, and seconds for the bank."""
    teacher = work.network(work.teacher).eval()
    bank_s = make_data(work, teacher, folder)
    configs = {f"{p}_{e}": work.config(p, e) for p, e in KINDS}
    if work.device == "cpu":
        configs["fp32_eager_wide"] = work.config("fp32", "eager", threads=CORES)
    with ExitStack() as stack:
        kinds = {"reference": as_published(work, teacher)}
        for kind, config in configs.items():
            processes = 1 if config.threads > 1 else CORES if work.device == "cpu" else GPU_PROCESSES
            kinds[kind] = in_pool(stack.enter_context(Pool(folder, config, processes=processes)), config, processes)
        if work.device != "cpu":
            kinds |= {f"grouped_{count}": in_group(work, count, folder) for count in GROUPS}
        found: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(rounds):
            for kind, per_hour in kinds.items():
                found[kind].append(per_hour())
    return {"bank_s": bank_s, "per_hour": found}


def summarise(name: str, per_hour: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Medians of trials per hour, and of ratios within rounds."""
    ratios = {
        kind: median(a / b for a, b in zip(values, per_hour["reference"], strict=True))
        for kind, values in per_hour.items()
        if kind != "reference"
    }
    return {
        f"ratio_{name}": max(ratios.values()),
        f"ratio_{name}_fp32": max(value for kind, value in ratios.items() if kind.startswith("fp32")),
        **{f"ratio_{name}_{kind}": value for kind, value in ratios.items()},
        **{f"{name}_{kind}_per_hour": median(values) for kind, values in per_hour.items()},
    }


def matmul_share(work: Workload, per_hour: float) -> float:
    """Floating-point operations per second of training steps at a rate of trials, over those of a large bf16 product."""
    from torch.utils.flop_counter import FlopCounterMode

    student, images = work.network(work.student), torch.randn(work.batch_size, 3, 32, 32, device=work.device)
    with FlopCounterMode(display=False) as counter:
        student(images).sum().backward()
    steps = work.epochs * work.images / work.batch_size
    return float(counter.get_total_flops()) * steps * per_hour / 3600 / _matmul_rate(work.device)


def _matmul_rate(device: str, n: int = 8192, repeats: int = 20) -> float:
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    _ = a @ a
    torch.cuda.synchronize()
    started = time.monotonic()
    for _ in range(repeats):
        _ = a @ a
    torch.cuda.synchronize()
    return 2 * n**3 * repeats / (time.monotonic() - started)


def main() -> None:
    """Measure and print a table, or JSON as the last line."""
    parser = options(__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    for name in arguments.pairs:
        work = workload_of(name, arguments.epochs, arguments.device)
        with tempfile.TemporaryDirectory() as folder:
            found = measure(work, rounds=arguments.rounds, folder=Path(folder))
        result |= summarise(name, found["per_hour"]) | {f"{name}_bank_s": found["bank_s"]}
        if work.device != "cpu":
            fastest = max(value for key, value in result.items() if key.endswith("_per_hour") and key.startswith(name))
            result[f"{name}_matmul_share"] = matmul_share(work, fastest)
    show(result | {"environment": environment()}, as_json=arguments.json)


if __name__ == "__main__":
    main()
