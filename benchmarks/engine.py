"""Students per hour: this engine beside the way in which released evaluation scripts train (`benchmarks.reference`).

    python -m benchmarks.engine [--json] [--rounds 3] [--pairs convnet3 resnet18] [--epochs 20]

A trial is `--epochs` epochs on 100 images of CIFAR's size (batches of 50), then 1,000 images are evaluated: the share that
evaluation has in 300 epochs with CIFAR-10's test images. Student convnet3 of width 128; teacher convnet3 of width 128 or
resnet18_modified. Pixels and weights are random, which changes no time. The kinds take turns within each round, on all cores:

- `reference`: one process with all cores, the teacher on every batch.
- `fp32_eager`, `fp32_compiled`, `bf16_eager`, `bf16_compiled`: one single-threaded process per core, labels from the bank
  (made before; its seconds are `bank_s`), number format and engine as named.
- `fp32_eager_wide`: one process with all cores.

`ratio_*` are medians over rounds of trials per hour over the reference's; without the name of a kind, of the fastest kind, which
is what `precision: auto` and `engine: auto` measure and choose. `ratio_*_fp32` is the fastest in fp32.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import torch

from benchmarks import reference
from benchmarks.environment import environment, options, show
from benchmarks.pool import Pool
from trainables.arrays import new_entry
from trainables.augment import Augmentation
from trainables.config import TrialConfig
from trainables.data.labels import LabelBank, draw_views, label_view, with_pixels
from trainables.networks import ModelShape, make_model
from trainables.splits import Split
from trainables.trial import TrialData

SHAPE: Final = ModelShape(channels=3, classes=10, image_size=32)
WIDTH: Final = 128
N_IMAGES, N_EVALUATED, BATCH_SIZE = 100, 1000, 50
TEACHERS: Final = {"convnet3": "convnet3", "resnet18": "resnet18_modified"}
CORES: Final = os.cpu_count() or 1
#: Trials that each process of the pool trains in a round.
TRIALS_EACH: Final = 2


def make_data(teacher: torch.nn.Module, epochs: int, folder: Path) -> float:
    """Write what the pool's trials read; seconds that views and labels took."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(N_IMAGES, 3, 32, 32, generator=generator)
    distilled = Split(images, torch.arange(N_IMAGES) % 10)
    evaluated = Split(torch.randn(N_EVALUATED, 3, 32, 32, generator=generator), torch.arange(N_EVALUATED) % 10)
    started = time.monotonic()
    views = draw_views(Augmentation("dsa", flips=True), N_IMAGES, 32, views=epochs, seed=0)
    logits = torch.stack([label_view(distilled, view, torch.zeros(3), teacher) for view in views]).half()
    bank = with_pixels(LabelBank(distilled, views, logits, torch.zeros(3)))
    bank_s = time.monotonic() - started
    with new_entry(folder / "data-engine") as entry:
        for name, array in TrialData(bank, evaluated, evaluated).to_arrays().items():
            np.save(entry / f"{name}.npy", array)
    return bank_s


def make_config(epochs: int, precision: str, engine: str, *, threads: int = 1, width: int = WIDTH) -> TrialConfig:
    """A trial that is evaluated once, in its end."""
    return TrialConfig(
        stage="tune",
        replicate=1,
        loss="kl",
        knobs={"temperature": 20.0, "refinement": 0.0, "scale_t2": True},
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.0,
        schedule="cosine",
        student="convnet3",
        width=width,
        norm="instance",
        epochs=epochs,
        batch_size=BATCH_SIZE,
        evaluate_every_epochs=epochs,
        precision=precision,
        engine=engine,
        threads=threads,
        device="cpu",
        data="engine",
    )


def _published(teacher: torch.nn.Module, epochs: int) -> Callable[[], float]:
    """Seconds of one trial as published scripts train it; the data loaders are kept, as theirs are."""
    images, evaluated = torch.randn(N_IMAGES, 3, 32, 32), torch.randn(N_EVALUATED, 3, 32, 32)
    batches = reference.loader(images, torch.arange(N_IMAGES) % 10, BATCH_SIZE, shuffle=True)
    tests = reference.loader(evaluated, torch.arange(N_EVALUATED) % 10, 256, shuffle=False)
    plain = teacher.to(memory_format=torch.contiguous_format)

    def trial() -> float:
        torch.set_num_threads(CORES)
        student = make_model("convnet3", SHAPE, width=WIDTH, norm="instance")
        started = time.monotonic()
        reference.train(student, plain, batches, epochs=epochs)
        reference.evaluate(student, tests)
        return time.monotonic() - started

    return trial


def measure_pair(name: str, *, rounds: int, epochs: int, folder: Path) -> dict[str, Any]:
    """Trials per hour of every kind, by round."""
    teacher = make_model(TEACHERS[name], SHAPE, width=WIDTH, norm="batch" if name == "resnet18" else "instance").eval()
    bank_s = make_data(teacher, epochs, folder)
    configs = {f"{p}_{e}": make_config(epochs, p, e) for p in ("fp32", "bf16") for e in ("eager", "compiled")}
    configs["fp32_eager_wide"] = make_config(epochs, "fp32", "eager", threads=CORES)
    with ExitStack() as stack:
        kinds: dict[str, Callable[[], float]] = {"reference": _per_hour(_published(teacher, epochs))}
        for kind, config in configs.items():
            processes = CORES if config.threads == 1 else 1
            pool = stack.enter_context(Pool(folder, config, processes=processes))
            kinds[kind] = _per_hour_of_pool(pool, [config] * TRIALS_EACH * processes)
        kinds["reference"]()  # starts its workers
        found: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(rounds):
            for kind, per_hour in kinds.items():
                found[kind].append(per_hour())
    return {"bank_s": bank_s, "trials_per_hour": found}


def _per_hour(trial: Callable[[], float]) -> Callable[[], float]:
    return lambda: 3600 / trial()


def _per_hour_of_pool(pool: Pool, configs: Sequence[TrialConfig]) -> Callable[[], float]:
    return lambda: 3600 * len(configs) / pool.run(configs)[0]


def summarise(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Medians of ratios within rounds."""
    by_kind = found["trials_per_hour"]
    ratios = {
        kind: median(a / b for a, b in zip(values, by_kind["reference"], strict=True))
        for kind, values in by_kind.items()
        if kind != "reference"
    }
    return {
        f"ratio_{name}": max(ratios.values()),
        f"ratio_{name}_fp32": max(value for kind, value in ratios.items() if kind.startswith("fp32")),
        **{f"ratio_{name}_{kind}": value for kind, value in ratios.items()},
        **{f"{name}_{kind}_per_hour": median(values) for kind, values in by_kind.items()},
        f"{name}_bank_s": found["bank_s"],
    }


def main() -> None:
    """Measure and print a table, or JSON as the last line."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--pairs", nargs="+", choices=list(TEACHERS), default=list(TEACHERS))
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    for name in arguments.pairs:
        with tempfile.TemporaryDirectory() as folder:
            found = measure_pair(name, rounds=arguments.rounds, epochs=arguments.epochs, folder=Path(folder))
        result |= summarise(name, found)
    show(result | {"environment": environment()}, as_json=arguments.json)


if __name__ == "__main__":
    main()
