"""Distilled sets that others published, evaluated as their authors do and with a tuned learning rate: the numbers beside the reported ones.

    python -m benchmarks.published REAL SETS [--json] [--home HOME] [--only NAME ...] [--replicates 5] [--set KEY=VALUE ...]

REAL is CIFAR-10 as an image tree (train/ and test/, a folder per class), SETS a folder with the published files (see EVALUATIONS for
their places in it; what is not there is left out). Per set two sweeps are run with `--local`, one trial after another, in
HOME: `NAME-paper` (`protocol: paper`, the authors' settings) and `NAME-tuned` (its own rate, chosen on validation images). Run again, it
trains only what is missing. A row has the accuracy that the method's paper reports, and ours: mean and 95 % t interval over replicates.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.environment import environment, options, show
from orchestrator import RunOptions, Sweep
from orchestrator.landscape.values import mean_interval

CIFAR10: Final = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]}
#: A rate of its own instead of the authors'; see the first lines of the spaces.
TUNED: Final = (
    "protocol=tuned",
    "fixed.lr=null",
    "nuisance={lr: {loguniform: [1.0e-3, 1.0e-1]}, draws: 4}",
    "early_stopping={grace_period_epochs: 100, reduction_factor: 3, audit_frac: 0}",
)
#: Validation images for choosing; enough for a rate, and evaluation stays short.
FEW_VALIDATION_IMAGES: Final = "validation.frac=0.04"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a published set is evaluated.

    Attributes:
        path: Its place in the folder of sets.
        space: The shipped space with its authors' settings.
        stated: What the file cannot tell, under `data.distilled`.
        changes: Settings that differ from the space's.
        reported_pct: Test accuracy that the method's paper reports for this size, %; None for a control.
        lr_path: File of the learned rate, in the folder of sets.
    """

    path: str
    space: str
    stated: Mapping[str, Any]
    reported_pct: float | None
    changes: tuple[str, ...] = ()
    lr_path: str | None = None


STORED: Final = ("fixed.labels=stored", "teacher=null")
EVALUATIONS: Final[Mapping[str, Evaluation]] = {
    "dc-1": Evaluation("dc/res_DC_CIFAR10_ConvNet_1ipc.pt", "paper-dc", CIFAR10, 28.3),
    "dc-10": Evaluation("dc/res_DC_CIFAR10_ConvNet_10ipc.pt", "paper-dc", CIFAR10, 44.9),
    "mtt-1": Evaluation("mtt-zca-ipc1", "paper-mtt", {"pixel_space": "zca"}, 46.2),
    "datm-10": Evaluation(
        "ddranking-datm-ipc10", "paper-datm", {"pixel_space": "zca"}, 66.8, STORED, "ddranking-datm-ipc10/lr.pt"
    ),
    "datadam-initial-1": Evaluation(
        "datadam/CIFAR10_IPC1_images.pt",
        "paper-dc",
        {"pixel_space": "meanstd", **CIFAR10, "class_order": "index"},
        None,
    ),
    "rfad-1": Evaluation(
        "rfad/cifar10_ipc1_best.npz",
        "paper-mtt",
        {"pixel_space": "zca", "label_kind": "centred"},
        53.6,
        (*STORED, "scientific.loss=[mse]", "fixed.norm=none", "fixed.augment=none", "fixed.views=1"),
    ),
}


def sweep_of(name: str, protocol: str, wanted: argparse.Namespace) -> Sweep:
    """The sweep of a set under a protocol, "paper" or "tuned"."""
    evaluation = EVALUATIONS[name]
    distilled = {"path": str(wanted.sets / evaluation.path), **evaluation.stated}
    changes = [
        f"data={ ({'real': str(wanted.real), 'image_size': 32, 'distilled': distilled}) }",
        FEW_VALIDATION_IMAGES,
    ]
    if evaluation.lr_path:
        changes.append(f"fixed.lr={learned_rate(wanted.sets / evaluation.lr_path):.6g}")
    changes += [*evaluation.changes, *(TUNED if protocol == "tuned" else ()), f"replicates={wanted.replicates}"]
    return Sweep.from_space(
        evaluation.space, name=f"{name}-{protocol}", overrides=[*changes, *wanted.changes], home=wanted.home
    )


def learned_rate(path: Path) -> float:
    """The rate that was learned with the images."""
    return float(torch.load(path, map_location="cpu", weights_only=True))


def row(name: str, wanted: argparse.Namespace) -> dict[str, Any]:
    """Accuracies of a set in %, as reported and as found here."""
    columns: dict[str, Any] = {"reported_pct": EVALUATIONS[name].reported_pct}
    for protocol in ("paper", "tuned"):
        table = sweep_of(name, protocol, wanted).run(RunOptions(local=True, tracking_uri="off", force=True)).table
        confirmed = table[(table.stage == "confirm") & (table.status == "finished")]
        columns |= {f"{protocol}_{key}": value for key, value in _summary(list(confirmed.test_accuracy)).items()}
        columns[f"{protocol}_lr"] = float(confirmed.lr.iloc[0]) if "lr" in confirmed else None
    return columns


def _summary(accuracies: Sequence[float]) -> dict[str, Any]:
    percent = zip(("mean_pct", "low_pct", "high_pct"), mean_interval(accuracies), strict=True)
    return {"n": len(accuracies)} | {key: round(100 * value, 2) for key, value in percent}


def main() -> None:
    """Run from the command line."""
    parser = options(__doc__)
    parser.add_argument("real", type=Path)
    parser.add_argument("sets", type=Path)
    parser.add_argument("--home", type=Path, default=Path("lossatlas-home"))
    parser.add_argument("--only", nargs="*", choices=EVALUATIONS, default=[*EVALUATIONS])
    parser.add_argument("--replicates", type=int, default=5)
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    wanted = parser.parse_args()
    wanted.real, wanted.sets = wanted.real.resolve(), wanted.sets.resolve()
    found = {name: row(name, wanted) for name in wanted.only if (wanted.sets / EVALUATIONS[name].path).exists()}
    show({**environment(), **found}, as_json=wanted.json)


if __name__ == "__main__":
    main()
