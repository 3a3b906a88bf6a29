"""Numbers that every part of the code gives on fixed input: `python -m tests.golden` writes them beside their versions.

See CONTRIBUTING.md. They are rounded sums, so that another CPU gives the same within the tolerance of the test.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.conftest import CLASSES, make_tree
from tests.trainables.formats import builders
from trainables.augment import Augmentation, augment
from trainables.config import LOSS_KNOBS, TrialConfig
from trainables.data.decode import decode_tree
from trainables.data.labels import LabelBank, draw_views, label_view, with_pixels
from trainables.data.real import load_digits, load_parts, normalise
from trainables.data.teacher import make_teacher, train_teacher
from trainables.drafts import pack_logits
from trainables.edits import edit_logits
from trainables.formats.read import read_distilled
from trainables.losses import loss_value
from trainables.names import SCHEDULES
from trainables.networks import ModelShape, make_model
from trainables.optim import make_optimizer, rate_share
from trainables.seeding import seeded_globals
from trainables.splits import Split
from trainables.targets import refine_directions, refine_logits, refine_probabilities, smooth_labels
from trainables.trees import list_tree
from trainables.trial import TrialData, train_student
from trainables.versions import VERSIONS

FILE = Path(__file__).with_suffix(".json")


def _numbers(*tensors: torch.Tensor) -> list[float]:
    """Mean, deviation and a position-weighted mean of each."""
    found = []
    for tensor in tensors:
        flat = tensor.detach().double().flatten()
        weights = torch.linspace(0, 1, len(flat), dtype=torch.float64)
        found += [flat.mean(), flat.std(unbiased=False), (flat * weights).mean()]
    return [float(value) for value in found]


def _batch(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(8, 6, generator=generator, dtype=dtype) for _ in range(2))
    return student, teacher, torch.arange(8) % 6


def _loss(name: str) -> list[float]:
    """Value and gradient at two settings of the knobs."""
    found = []
    for knobs in ({}, {"temperature": 3.0, "refinement": 0.2, "scale_t2": True, "smoothing": 0.2}):
        student, teacher, hard = _batch()
        student.requires_grad_(True)
        value = loss_value(name, student, teacher, hard, **knobs)  # type: ignore[arg-type]
        value.backward()
        assert student.grad is not None
        found += [value.item(), *_numbers(student.grad)]
    return found


def _targets() -> list[float]:
    _, teacher, hard = _batch()
    h = smooth_labels(hard, 6, smoothing=0.1).double()
    edits = ({"label_temperature": 2.0}, {"label_swap": 2}, {"label_top_k": 3})
    edited = [edit_logits(teacher, knobs).clamp_min(-100) for knobs in edits]
    refined = [
        refine_probabilities(teacher, h, temperature=2.0, refinement=0.3),
        refine_directions(teacher, h, refinement=0.3),
        refine_logits(teacher, h, refinement=0.3),
    ]
    return _numbers(*edited, *refined)


def _schedule(name: str) -> list[float]:
    return [rate_share(name, e, epochs=n, warmup_epochs=w) for n, w in ((12, 0), (7, 2)) for e in range(n)]


def _optimizers() -> list[float]:
    found = []
    for name in ("adamw", "sgd", "lamb"):
        layer = torch.nn.Linear(4, 3)
        with torch.no_grad():
            layer.weight.copy_(torch.linspace(-1, 1, 12).view(3, 4))
            layer.bias.zero_()
        optimizer = make_optimizer(name, layer, lr=0.1, weight_decay=0.01, momentum=0.9 if name == "sgd" else None)
        for _ in range(3):
            optimizer.zero_grad()
            (layer(torch.linspace(0, 1, 8).view(2, 4)) ** 2).sum().backward()
            optimizer.step()
        found += _numbers(layer.weight)
    return found


def _networks() -> list[float]:
    found = []
    named = [("convnet3", norm) for norm in ("batch", "instance", "group", "layer", "none")]
    for name, norm in [*named, ("resnet18_modified", "instance")]:
        with seeded_globals("golden", 0):
            network = make_model(name, ModelShape(3, 5, 8), width=8, norm=norm)
        images = torch.linspace(-1, 1, 4 * 3 * 8 * 8).view(4, 3, 8, 8).sin()
        found += _numbers(network(images))
    return found


def _augmentation() -> list[float]:
    images = torch.linspace(0, 20, 16 * 3 * 12 * 12).sin().view(16, 3, 12, 12)
    kinds = ({"kind": "dsa"}, {"kind": "color_crop_cutout_flip_scale_rotate"}, {"kind": "rrc"})
    mixed = [{"kind": "none", "mix": mix} for mix in ("cutmix", "mixup")]
    found = []
    for settings in (*kinds, *mixed):
        rows = draw_views(Augmentation(flips=True, **settings), 16, 12, views=2, seed=3)  # type: ignore[arg-type]
        found += _numbers(augment(images, rows[0], torch.zeros(3))) if "mix" not in settings else _numbers(rows)
    return found


def _data() -> TrialData:
    real = normalise(load_digits(0.25))
    distilled = Split(real.train.images[:40], real.train.labels[:40])
    views = draw_views(Augmentation("dsa", flips=False), 40, 8, views=2, seed=0)
    logits = torch.randn(2, 40, 10, generator=torch.Generator().manual_seed(1))
    return TrialData(with_pixels(LabelBank(distilled, views, logits, real.background)), real.validation, real.test)


def _loop() -> list[float]:
    config = TrialConfig(
        stage="confirm", replicate=1, loss="kl", knobs={"temperature": 2.0, "refinement": 0.1, "smoothing": 0.1, "scale_t2": False},
        optimizer="sgd", lr=0.01, weight_decay=1e-3, momentum=0.9, schedule="cosine", student="convnet2", width=8, norm="instance",
        epochs=3, batch_size=16, evaluate_every_epochs=1, precision="fp32", threads=1, device="cpu", data="golden",
    )  # fmt: skip
    configs = (config, replace(config, ema_decay=0.9, clip_grad_norm=0.5, warmup_epochs=1))
    data = _data()
    return [point.train_loss for c in configs for point in train_student(c, data)]


def _labels() -> list[float]:
    data, teacher = _data(), make_teacher("convnet2", ModelShape(1, 10, 8), width=8, norm="instance").eval()
    bank = data.bank
    logits = label_view(bank.distilled, bank.parameters[0], bank.background, teacher)
    packed, _ = pack_logits(logits.numpy(), label_format="float16", top_k=3)
    return _numbers(logits, *(torch.from_numpy(packed[name].astype(np.float64)) for name in sorted(packed)))


def _teachers() -> list[float]:
    real = normalise(load_digits(0.25))
    small = Split(real.train.images[:200], real.train.labels[:200])
    teacher = make_teacher("convnet2", ModelShape(1, 10, 8), width=8, norm="instance")
    train_teacher(small, teacher, Augmentation("dsa", flips=False), real.background, epochs=1, lr=0.005, batch_size=50)
    return _numbers(teacher(real.test.images[:50]))


def _real() -> list[float]:
    digits = normalise(load_digits(0.25))
    found = _numbers(digits.train.images, digits.validation.labels, digits.test.labels)
    with tempfile.TemporaryDirectory() as folder:
        tree = list_tree(str(make_tree(Path(folder))))
        arrays = decode_tree(tree, image_size=6, cache=Path(folder) / "cache", say=lambda text: None)
        real = normalise(load_parts(arrays, tree.classes, flips=True, validation_from="auto", validation_frac=0.25))
        found += _numbers(real.train.batch(slice(None)), real.validation.labels, real.test.batch(slice(None)))
    return found


def _distilled() -> list[float]:
    """Formats whose pixels, labels and order are all ours to get right."""
    found = []
    for name in ("gift", "idc", "kip", "datm", "rded"):
        _, build, given = builders.SETS[name]
        with tempfile.TemporaryDirectory() as folder:
            read = read_distilled(build(Path(folder), None), given, classes=CLASSES, size=builders.SIZE)
            found += _numbers(read.images, read.hard)
    return found


PARTS: Mapping[str, Callable[[], list[float]]] = {
    "real": _real,
    "distilled": _distilled,
    "augmentation": _augmentation,
    "labels": _labels,
    "teachers": _teachers,
    "networks": _networks,
    "loop": _loop,
    "targets": _targets,
    "optimizers": _optimizers,
    **{f"loss/{name}": (lambda name=name: _loss(name)) for name in LOSS_KNOBS if f"loss/{name}" in VERSIONS},  # type: ignore[misc]
    **{f"schedule/{name}": (lambda name=name: _schedule(name)) for name in SCHEDULES},  # type: ignore[misc]
}


def stored() -> dict[str, dict[str, Any]]:
    """Version and numbers of every part, as they were last written."""
    return dict(json.loads(FILE.read_text()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = {part: {"version": VERSIONS[part], "numbers": numbers()} for part, numbers in PARTS.items()}
    lines = [f"{json.dumps(part)}: {json.dumps(content)}" for part, content in made.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
