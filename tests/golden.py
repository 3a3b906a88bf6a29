"""Numbers that every part of the code gives on fixed input: `python -m tests.golden` writes them beside their versions.

See CONTRIBUTING.md. They are rounded sums, so that another CPU gives the same within the tolerance of the test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests import golden_data
from tests.golden_data import digits_data, numbers_of
from trainables.augment import Augmentation, augment
from trainables.config import LOSS_KNOBS, TrialConfig
from trainables.data.labels import draw_views
from trainables.edits import edit_logits
from trainables.grouped import Member, train_together
from trainables.losses import loss_value
from trainables.metrics import EpochMetrics
from trainables.names import SCHEDULES
from trainables.networks import ModelShape, make_model
from trainables.optim import make_optimizer, rate_share
from trainables.seeding import seeded_globals
from trainables.targets import refine_directions, refine_logits, refine_probabilities, smooth_labels
from trainables.trial import start_trial, train_student
from trainables.versions import VERSIONS

FILE = Path(__file__).with_suffix(".json")


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
        found += [value.item(), *numbers_of(student.grad)]
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
    return numbers_of(*edited, *refined)


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
        found += numbers_of(layer.weight)
    return found


def _networks() -> list[float]:
    found = []
    named = [("convnet3", norm) for norm in ("batch", "instance", "group", "layer", "none")]
    for name, norm in [*named, ("resnet18_modified", "instance")]:
        with seeded_globals("golden", 0):
            network = make_model(name, ModelShape(3, 5, 8), width=8, norm=norm)
        images = torch.linspace(-1, 1, 4 * 3 * 8 * 8).view(4, 3, 8, 8).sin()
        found += numbers_of(network(images))
    for name in ("mlp", "lenet", "alexnet", "vgg11", "resnet20"):
        with seeded_globals("golden", 0):
            network = make_model(name, ModelShape(1, 5, 28), width=None, norm="instance")
        found += numbers_of(network(torch.linspace(-1, 1, 2 * 28 * 28).view(2, 1, 28, 28).sin()))
    return found


def _augmentation() -> list[float]:
    images = torch.linspace(0, 20, 16 * 3 * 12 * 12).sin().view(16, 3, 12, 12)
    kinds = ({"kind": "dsa"}, {"kind": "color_crop_cutout_flip_scale_rotate"}, {"kind": "rrc"})
    mixed = [{"kind": "none", "mix": mix} for mix in ("cutmix", "mixup")]
    found = []
    for settings in (*kinds, *mixed):
        rows = draw_views(Augmentation(flips=True, **settings), 16, 12, views=2, seed=3)  # type: ignore[arg-type]
        found += numbers_of(augment(images, rows[0], torch.zeros(3))) if "mix" not in settings else numbers_of(rows)
    return found


def _loop() -> list[float]:
    config = TrialConfig(
        stage="confirm", replicate=1, loss="kl", knobs={"temperature": 2.0, "refinement": 0.1, "smoothing": 0.1, "scale_t2": False},
        optimizer="sgd", lr=0.01, weight_decay=1e-3, momentum=0.9, schedule="cosine", student="convnet2", width=8, norm="instance",
        epochs=3, batch_size=16, evaluate_every_epochs=1, precision="fp32", threads=1, device="cpu", data="golden",
    )  # fmt: skip
    configs = (config, replace(config, ema_decay=0.9, clip_grad_norm=0.5, warmup_epochs=1))
    data = digits_data()
    losses = [point.train_loss for c in configs for point in train_student(c, data)]
    group = [replace(config, engine="grouped", replicate=replicate) for replicate in (1, 2)]
    points = train_together([Member(c, data, start_trial(c, data)) for c in group])
    return losses + [point.train_loss for point in points if isinstance(point, EpochMetrics)]


PARTS: Mapping[str, Callable[[], list[float]]] = {
    "real": golden_data.real,
    "distilled": golden_data.distilled,
    "augmentation": _augmentation,
    "labels": golden_data.labels,
    "teachers": golden_data.teachers,
    "readings": golden_data.readings,
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
