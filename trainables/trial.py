"""Train one student: the loop, a generator that yields one EpochMetrics per evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from trainables.config import TrialConfig
from trainables.data.labels import LabelBank
from trainables.data.teacher import teacher_from_bytes
from trainables.engine import executable
from trainables.evaluate import accuracy, autocast, predict_logits
from trainables.losses import compare, make_target
from trainables.metrics import EpochMetrics
from trainables.networks import ModelShape, make_model
from trainables.optim import Steps, make_average, make_optimizer, make_schedule
from trainables.seeding import NetworkDraws, make_generator, seeded_globals
from trainables.splits import Split, as_split, as_tensor

if TYPE_CHECKING:
    from timm.utils.model_ema import ModelEmaV3


@dataclass(frozen=True, slots=True)
class TrialData:
    """What every trial on one distilled set reads, on the trial's device; never written.

    Attributes:
        bank: Views, their labels, and the distilled set they are made of.
        validation: Real images for choosing.
        test: Real images for the final number.
        teacher: Says the labels inside the trial; None where the bank holds them.
    """

    bank: LabelBank
    validation: Split
    test: Split
    teacher: nn.Module | None = None

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], device: str) -> TrialData:
        """Wrap prepared arrays without copying them (on a CPU); see `TrialData.to_arrays` for the names."""
        others = ("teacher", "teacher_linear", "projector")
        t = {name: as_tensor(array).to(device) for name, array in arrays.items() if name not in others}
        splits = [as_split(part, t) for part in ("distilled", "validation", "test")]
        rest = (
            t["bank_parameters"],
            t["bank_logits"],
            t["bank_background"],
            t.get("bank_pixels"),
            t.get("bank_present"),
            t.get("bank_kept"),
            int(t["classes"]) if "classes" in t else None,
        )
        teacher = None
        if "teacher" in arrays:
            teacher = teacher_from_bytes(arrays["teacher"], arrays.get("teacher_linear")).to(device)
        return cls(LabelBank(splits[0], *rest), splits[1], splits[2], teacher)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays by name, the form that is cached, memory-mapped and shared with workers; the teacher is left out."""
        tensors = {
            "bank_parameters": self.bank.parameters,
            "bank_logits": self.bank.logits,
            "bank_background": self.bank.background,
            "bank_pixels": self.bank.pixels,
            "bank_present": self.bank.present,
            "classes": torch.tensor(self.bank.classes),
            "pixel_mean": self.test.mean,
            "pixel_std": self.test.std,
            "whitening": self.test.whitening,
        }
        for part, split in (("distilled", self.bank.distilled), ("validation", self.validation), ("test", self.test)):
            tensors |= {f"{part}_images": split.images, f"{part}_labels": split.labels}
        there = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        return {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in there.items()}


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step is made on: images, what their logits are compared with, and hard labels."""

    images: Tensor
    target: Tensor
    hard: Tensor


@dataclass(slots=True)
class TrialState:
    """A training in progress; `state_dict` holds all that its future depends on.

    `forward` is the model under the trial's engine.
    """

    model: nn.Module
    forward: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    average: ModelEmaV3 | None
    batch_order: torch.Generator
    view_order: torch.Generator
    draws: NetworkDraws
    views: list[int]
    epoch: int = 0
    train_s: float = 0.0

    @property
    def student(self) -> nn.Module:
        """What is evaluated and kept: the model, or the running mean of its weights."""
        return self.model if self.average is None else self.average.module

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, schedule, generators and position, loadable with `weights_only=True`."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "batch_order": self.batch_order.get_state(),
            "view_order": self.view_order.get_state(),
            "draws": self.draws.state(),
            "views": list(self.views),
            "epoch": self.epoch,
            "train_s": self.train_s,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from where `state_dict` was taken."""
        for part in ("model", "optimizer", "schedule"):
            getattr(self, part).load_state_dict(state[part])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.batch_order.set_state(state["batch_order"].cpu())
        self.view_order.set_state(state["view_order"].cpu())
        self.draws.restore(state["draws"])
        self.views, self.epoch, self.train_s = list(state["views"]), state["epoch"], state["train_s"]


def start_trial(config: TrialConfig, data: TrialData) -> TrialState:
    """An untrained student; weights, batch order, order of views and what it draws depend on the replicate alone."""
    images = data.bank.distilled.images
    shape = ModelShape(images.shape[1], data.bank.classes, images.shape[-1])
    with seeded_globals("student weights", config.replicate):
        model = make_model(config.student, shape, width=config.width, norm=config.norm)
    model = model.to(config.device).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(
        config.optimizer,
        model,
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        betas=config.betas,
    )
    steps = Steps(config.schedule_milestones, config.schedule_gamma)
    length = {"epochs": config.epochs, "warmup_epochs": config.warmup_epochs}
    return TrialState(
        model=model,
        forward=executable(model, config.engine),
        optimizer=optimizer,
        schedule=make_schedule(config.schedule, optimizer, **length, steps=steps),
        average=make_average(model, config.ema_decay),
        batch_order=make_generator("batch order", config.replicate),
        view_order=make_generator("view order", config.replicate),
        draws=NetworkDraws("student draws", config.replicate, config.device),
        views=[],
    )


def train_student(config: TrialConfig, data: TrialData, state: TrialState | None = None) -> Iterator[EpochMetrics]:
    """Train one student on a distilled set and yield its metrics at every evaluation.

    Validation happens every `evaluate_every_epochs` and after the last epoch. The test split is evaluated once, after
    the last epoch of a `confirm` trial (or each time where `test_every_evaluation` is set). A NaN or infinite loss
    ends the training with `diverged=True` and accuracy 1 / C.

    Args:
        config: Everything the metrics depend on.
        data: Shared, read only, on `config.device`.
        state: Continue from here; it is advanced in place, so the caller can keep or save the student.

    Yields:
        EpochMetrics, the last one at `config.epochs` or where the training diverged.
    """
    torch.set_num_threads(config.threads)
    state = state or start_trial(config, data)
    while state.epoch < config.epochs:
        started = time.monotonic()
        with state.draws.in_use():
            train_loss = _train_epoch(config, data, state)
            accuracies = evaluate_if_due(config, data, state, train_loss)
        state.train_s += time.monotonic() - started
        diverged = not math.isfinite(train_loss)
        if accuracies is not None:
            yield EpochMetrics(state.epoch, train_loss, *accuracies, state.train_s, diverged)
        if diverged:
            return


def _train_epoch(config: TrialConfig, data: TrialData, state: TrialState) -> float:
    """One pass over the distilled set under the next view; the mean loss per batch."""
    losses = []
    for batch in epoch_batches(config, data, state):
        with autocast(config.device, config.precision):
            logits = state.forward(batch.images)
        loss = compare(config.loss, logits.float(), batch.target, batch.hard, config.knobs)
        state.optimizer.zero_grad()
        loss.backward()
        update(config, state)
        losses.append(loss.detach())
    return end_epoch(state, losses)


def epoch_batches(config: TrialConfig, data: TrialData, state: TrialState) -> Iterator[Batch]:
    """The batches of the next epoch: the next view in a new order."""
    bank, view = data.bank, _next_view(state, data.bank.views)
    order = bank.order(view, state.batch_order)
    hard = bank.hard(view, order)
    targets = None if data.teacher else make_target(config.loss, bank.teacher_logits(view, order), hard, config.knobs)
    first = 0
    for images in bank.images(view, order, config.batch_size):
        part = slice(first, first := first + len(images))
        target = targets[part] if targets is not None else _label(config, data, images, hard[part])
        yield Batch(images, target, hard[part])


def update(config: TrialConfig, state: TrialState) -> None:
    """One optimizer step on the gradients that are there."""
    if config.clip_grad_norm is not None:
        nn.utils.clip_grad_norm_(state.model.parameters(), config.clip_grad_norm)
    state.optimizer.step()
    if state.average is not None:
        state.average.update(state.model)


def end_epoch(state: TrialState, losses: Sequence[Tensor]) -> float:
    """Step the schedule; the mean of the batches' losses, for which the device is waited for once."""
    state.schedule.step()
    state.epoch += 1
    return torch.stack(list(losses)).sum().item() / len(losses)


def _label(config: TrialConfig, data: TrialData, images: Tensor, hard: Tensor) -> Tensor:
    """What a batch is compared with, said by the teacher now (`labels: online`)."""
    assert data.teacher is not None
    return make_target(config.loss, predict_logits(data.teacher, images), hard, config.knobs)


def _next_view(state: TrialState, views: int) -> int:
    """Views in random order, each once before any comes again."""
    if not state.views:
        state.views = torch.randperm(views, generator=state.view_order).tolist()
    return state.views.pop()


def evaluate_if_due(
    config: TrialConfig, data: TrialData, state: TrialState, train_loss: float
) -> tuple[float, float | None] | None:
    """Validation accuracy, and test accuracy where it is due; chance level if diverged; None in other epochs."""
    diverged = not math.isfinite(train_loss)
    at_end = diverged or state.epoch == config.epochs
    if not at_end and state.epoch % config.evaluate_every_epochs:
        return None
    wants_test = (at_end and config.stage == "confirm") or config.test_every_evaluation
    if diverged:
        chance = 1 / data.bank.classes
        return chance, chance if wants_test else None
    student = executable(state.student, config.engine)
    validation = accuracy(student, data.validation, precision=config.precision)
    test = accuracy(student, data.test, precision=config.precision) if wants_test else None
    return validation, test
