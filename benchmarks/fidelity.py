"""Does LossAtlas give the accuracies that released code gives? GIFT's protocol, written plainly, against `protocol: paper`.

    python -m benchmarks.fidelity [--json] [--n 10] [--losses kl mse ...] [--epochs 100] [--width 128] [--who reference ours ...] [--data FOLDER] [--work FOLDER]

Both train the same network on the same 10 random CIFAR-10 images per class with the same teacher and test on the same 2,000 images.
Reference: `benchmarks.reference.train_as_gift`. LossAtlas: its trials, views drawn anew for each seed, with the mean colour
(`ours`) and with black (`black`). Per loss and fill: the difference of mean accuracies in points, its 95 % interval (Welch), and
two one-sided tests (TOST) against 0.7 points; `equivalent` if p is below 0.05. Finished runs are kept in FOLDER/runs.jsonl, from which
an interrupted measurement goes on.
"""

from __future__ import annotations

import json
import sys
import tarfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW
from torch import Tensor, nn

from benchmarks.environment import environment, options, show
from benchmarks.reference import GIFT_LOSSES, gift_batch_size, train_as_gift
from orchestrator.plan import Plan
from search_spaces import load_space
from trainables.arrays import load_arrays
from trainables.networks import ModelShape, make_model
from trainables.prepare import prepare
from trainables.trial import TrialData, train_student

MARGIN: Final = 0.7
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
SHAPE: Final = ModelShape(3, 10, 32)
PER_CLASS, TEST_PER_CLASS, REST_PER_CLASS = 10, 200, 20
TEACHER_BATCH, TEACHER_LR = 64, 2e-3
FILLS: Final = {"ours": "mean", "black": "black"}
ARCHIVE: Final = "cifar10-jpeg.tar.gz"
#: GIFT's temperature and weights, as knobs of LossAtlas.
LOSSES: Final = {"kl": {"kl": {"loss": "kl", "temperature": 20}}}


def find_data(folder: str | None) -> Path:
    """The archive of CIFAR-10, in a folder or in shared/data of a folder above this one."""
    places = [Path(folder)] if folder else [above / "shared" / "data" for above in Path(__file__).resolve().parents]
    for place in places:
        if (place / ARCHIVE).is_file():
            return place / ARCHIVE
    raise SystemExit(f"--data must name a folder with {ARCHIVE}, got {folder or 'none, and none is above'}.")


def make_files(archive: Path, work: Path) -> None:
    """A tree of test images (and a few others, which LossAtlas validates on), and the distilled set as GIFT publishes it."""
    if (work / "data.pt").exists():
        return
    if not (work / "all").exists():
        with tarfile.open(archive) as tar:
            tar.extractall(work / "unpacking", filter="data")
        (work / "unpacking").rename(work / "all")
    generator = torch.Generator().manual_seed(0)
    images = []
    for folder in sorted((work / "all" / "train").iterdir()):
        files = sorted(folder.iterdir())
        chosen = torch.randperm(len(files), generator=generator)[: PER_CLASS + REST_PER_CLASS].tolist()
        images += [files[i] for i in chosen[:PER_CLASS]]
        _copy([files[i] for i in chosen[PER_CLASS:]], work / "real" / "train" / folder.name)
    for folder in sorted((work / "all" / "test").iterdir()):
        _copy(sorted(folder.iterdir())[:TEST_PER_CLASS], work / "real" / "test" / folder.name)
    labels = torch.arange(SHAPE.classes).repeat_interleave(PER_CLASS)
    torch.save({"dataset": "cifar10", "data": _pixels(images), "label": labels}, work / "data.pt")


def _copy(files: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file.name).write_bytes(file.read_bytes())


def _pixels(files: list[Path]) -> Tensor:
    """(n, 3, H, W) in [0, 1]."""
    return torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files]).float() / 255


def _normalised(pixels: Tensor) -> Tensor:
    return (pixels - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)


def _folder(folder: Path, per_class: int) -> tuple[Tensor, Tensor]:
    """Normalised images and labels of a tree's part."""
    classes = [sorted(each.iterdir())[:per_class] for each in sorted(folder.iterdir())]
    labels = torch.arange(len(classes)).repeat_interleave(per_class)
    return _normalised(_pixels([file for files in classes for file in files])), labels


def make_teacher(work: Path, options: Namespace) -> nn.Module:
    """A convnet trained on real images once, and kept."""
    torch.manual_seed(0)
    teacher, path = make_model("convnet3", SHAPE, width=options.width, norm="batch"), work / "teacher.pt"
    if not path.exists():
        images, labels = _folder(work / "all" / "train", options.teacher_images // SHAPE.classes)
        steps = options.teacher_epochs * -(-len(labels) // TEACHER_BATCH)
        optimizer = torch.optim.AdamW(teacher.parameters(), lr=TEACHER_LR, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, TEACHER_LR, total_steps=steps)
        for _ in range(options.teacher_epochs):
            for index in torch.randperm(len(labels)).split(TEACHER_BATCH):
                flipped = torch.rand(len(index), 1, 1, 1) < 0.5
                batch = torch.where(flipped, images[index].flip(3), images[index])
                loss = F.cross_entropy(teacher(batch), labels[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        torch.save(teacher.state_dict(), path)
    teacher.load_state_dict(torch.load(path, weights_only=True))
    return teacher.eval()


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of correct answers."""
    network.eval()
    with torch.no_grad():
        return float((torch.cat([network(part) for part in images.split(500)]).argmax(1) == labels).float().mean())


def space_of(work: Path, losses: list[str], options: Namespace, fill: str) -> dict[str, Any]:
    """GIFT's protocol as a space."""
    constants = {"mean": list(MEAN), "std": list(STD)}
    fixed = {"student": "convnet3", "width": options.width, "epochs": options.epochs, "views": options.epochs}
    fixed |= {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 1e-4, "augment": "dsa", "augment_fill": fill}
    fixed |= {"batch_size": gift_batch_size(SHAPE.classes * PER_CLASS), "evaluate_every_epochs": options.epochs}
    return {
        "name": "fidelity",
        "data": {"real": str(work / "real"), "image_size": 32, **constants, "distilled": str(work / "data.pt")},
        "teacher": {"weights": [str(work / "teacher.pt")], **constants},
        "scientific": {"loss": [LOSSES.get(loss, loss) for loss in losses]},
        "fixed": fixed | {"label_format": "float32", "precision": "fp32", "engine": "eager", "device": "cpu"},
        "resources": {"cpus": 1},
        "protocol": "paper",
        "replicates": options.n,
    }


def run_ours(work: Path, loss: str, seed: int, options: Namespace, fill: str) -> float:
    """Test accuracy of one of LossAtlas's trials, the views drawn anew for the seed."""
    space = load_space(space_of(work, [loss], options, fill), [f"data_seed={seed}"])
    plan = Plan("fidelity", space, "cpu")
    for key, recipe in plan.recipes.items():
        prepare(key, recipe, work / "cache", lambda text: None)
    config = plan.trial(plan.cells[0], 0, seed, "confirm")
    data = TrialData.from_arrays(load_arrays(config.data, work / "cache"), "cpu")
    found = list(train_student(config, data))[-1].test_accuracy
    assert found is not None
    return found


def run_reference(work: Path, loss: str, seed: int, options: Namespace) -> float:
    """Test accuracy of one plain training."""
    file = torch.load(work / "data.pt", weights_only=True)
    torch.manual_seed(seed)
    student = make_model("convnet3", SHAPE, width=options.width, norm="batch")
    train_as_gift(student, options.teacher, _normalised(file["data"]), file["label"], loss=loss, epochs=options.epochs)
    return accuracy(student, *options.test)


def missing(options: Namespace, done: list[dict[str, Any]]) -> Iterator[tuple[str, str, int]]:
    """(loss, who, seed) of the runs that are still to be done, seed by seed."""
    finished = {(run["loss"], run["who"], run["seed"], run["epochs"], run["width"]) for run in done}
    for seed in range(1, options.n + 1):
        for loss in options.losses:
            for who in options.who:
                if (loss, who, seed, options.epochs, options.width) not in finished:
                    yield loss, who, seed


def compare(reference: list[float], ours: list[float]) -> dict[str, float]:
    """Difference of means in points (ours less reference), 95 % interval, p of the two one-sided tests."""
    means = CompareMeans(DescrStatsW(100 * np.array(ours)), DescrStatsW(100 * np.array(reference)))
    low, high = means.tconfint_diff(usevar="unequal")
    p = means.ttost_ind(-MARGIN, MARGIN, usevar="unequal")[0]
    difference = 100 * (np.mean(ours) - np.mean(reference))
    return {"difference": float(difference), "low": float(low), "high": float(high), "p_tost": float(p)}


def summary(options: Namespace, done: list[dict[str, Any]]) -> dict[str, Any]:
    """Per loss: each one's mean, deviation and n, and the comparisons."""
    wanted = [run for run in done if (run["epochs"], run["width"]) == (options.epochs, options.width)]
    losses: dict[str, Any] = {}
    for loss in options.losses:
        found = {
            who: [r["accuracy"] for r in wanted if (r["loss"], r["who"]) == (loss, who) and r["seed"] <= options.n]
            for who in ("reference", *FILLS)
        }
        row: dict[str, Any] = {
            who: {"n": len(values), "mean": float(100 * np.mean(values)), "sd": float(100 * np.std(values, ddof=1))}
            for who, values in found.items()
            if len(values) > 1
        }
        for who in set(FILLS) & row.keys() if "reference" in row else ():
            row[who] |= compare(found["reference"], found[who])
        losses[loss] = row
    equivalent = {loss: row.get("ours", {}).get("p_tost", 1.0) < 0.05 for loss, row in losses.items()}
    return {"losses": losses, "equivalent": equivalent, "all_equivalent": all(equivalent.values())}


def measure(options: Namespace) -> dict[str, Any]:
    """Do what is missing, one run at a time, and sum up."""
    torch.set_num_threads(1)
    work = Path(options.work).absolute()
    work.mkdir(parents=True, exist_ok=True)
    make_files(find_data(options.data), work)
    options.test = _folder(work / "real" / "test", TEST_PER_CLASS)
    options.teacher = make_teacher(work, options)
    teacher = accuracy(options.teacher, *options.test)
    runs = work / "runs.jsonl"
    runs.touch()
    done = [json.loads(line) for line in runs.read_text().splitlines()]
    for loss, who, seed in missing(options, done):
        started = time.monotonic()
        run = run_reference if who == "reference" else run_ours
        fill = (FILLS[who],) if who in FILLS else ()
        about = {"loss": loss, "who": who, "seed": seed, "epochs": options.epochs, "width": options.width}
        about |= {"accuracy": run(work, loss, seed, options, *fill), "took_s": time.monotonic() - started}
        done.append(about)
        with runs.open("a") as file:
            file.write(json.dumps(about) + "\n")
        print(f"{loss} {who} {seed}: {about['accuracy']:.4f}, {about['took_s']:.0f} s", file=sys.stderr, flush=True)
    facts = {"teacher_accuracy": teacher, "n": options.n, "epochs": options.epochs, "width": options.width}
    return facts | summary(options, done)


def main() -> None:
    """Measure and print a table, or JSON as the last line."""
    parser = options(__doc__)
    parser.add_argument("--n", type=int, default=10, help="seeds")
    parser.add_argument("--losses", nargs="+", choices=list(GIFT_LOSSES), default=list(GIFT_LOSSES))
    parser.add_argument("--who", nargs="+", choices=["reference", *FILLS], default=["reference", *FILLS])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--width", type=int, default=128, help="channels per convolution of teacher and students")
    parser.add_argument("--teacher-images", type=int, default=30_000)
    parser.add_argument("--teacher-epochs", type=int, default=4)
    parser.add_argument("--data", help=f"folder with {ARCHIVE}")
    parser.add_argument("--work", default=".fidelity", help="folder of files, caches and finished runs")
    arguments = parser.parse_args()
    result = measure(arguments)
    for loss, row in result["losses"].items():
        print(f"{loss:12}" + "".join(f"  {who} {_cell(value)}" for who, value in row.items()))
    show({**result, "environment": environment()}, as_json=arguments.json)


def _cell(value: dict[str, float]) -> str:
    text = f"{value['mean']:.2f} +- {value['sd']:.2f} (n = {value['n']})"
    if "difference" not in value:
        return text
    return f"{text} {value['difference']:+.2f} [{value['low']:+.2f}, {value['high']:+.2f}] p {value['p_tost']:.2g}"


if __name__ == "__main__":
    main()
