"""Students that share a device advance together: one forward and one backward pass for all of them (experimental).

A small student leaves most of a GPU idle, and each of its kernels costs a launch. Here the weights of K students of the same
architecture are stacked and their batches go through one network with K sets of weights, so that a kernel does K times the
work. Everything else of a trial is its own: batches, views, targets, loss, optimizer, schedule, evaluation, checkpoint. A trial's
metrics agree with those of the eager engine up to the order of float sums, which depends on who is in the group.

Source: horizontal fusion, Wang et al. 2021 (HFTA, MLSys), arXiv:2102.02344; `torch.func`. On CPUs it does not pay.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Condition, Thread

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainables.config import TrialConfig
from trainables.evaluate import autocast
from trainables.losses import compare
from trainables.metrics import EpochMetrics
from trainables.trial import Batch, TrialData, TrialState, end_epoch, epoch_batches, evaluate_if_due, update


@dataclass(frozen=True)
class Member:
    """A trial of a group."""

    config: TrialConfig
    data: TrialData
    state: TrialState
    losses: list[Tensor] = field(default_factory=list)


def train_together(group: Sequence[Member]) -> list[EpochMetrics | None]:
    """Advance every member by an epoch; the metrics of those that are due for an evaluation.

    A member's `train_s` grows by its share of the time, an equal one.
    """
    started = time.monotonic()
    for member in group:
        member.losses.clear()
    running = [(member, epoch_batches(member.config, member.data, member.state)) for member in group]
    while running:
        steps = [(member, next(batches, None)) for member, batches in running]
        there = [(member, batch) for member, batch in steps if batch is not None]
        for alike in _alike(there):
            _step_together(alike)
        running = [pair for pair, (_, batch) in zip(running, steps, strict=True) if batch is not None]
    losses = [end_epoch(member.state, member.losses) for member in group]
    found = [evaluate_if_due(m.config, m.data, m.state, loss) for m, loss in zip(group, losses, strict=True)]
    share_s = (time.monotonic() - started) / len(group)
    return [_metrics(m, loss, a, share_s) for m, loss, a in zip(group, losses, found, strict=True)]


def _metrics(
    member: Member, train_loss: float, accuracies: tuple[float, float | None] | None, share_s: float
) -> EpochMetrics | None:
    state = member.state
    state.train_s += share_s
    if accuracies is None:
        return None
    return EpochMetrics(state.epoch, train_loss, *accuracies, state.train_s, not math.isfinite(train_loss))


def _alike(steps: Sequence[tuple[Member, Batch]]) -> Iterator[list[tuple[Member, Batch]]]:
    """Members whose networks and batches have the same shape."""
    buckets: dict[object, list[tuple[Member, Batch]]] = {}
    for member, batch in steps:
        c = member.config
        buckets.setdefault((c.student, c.width, c.norm, c.precision, batch.images.shape), []).append((member, batch))
    yield from buckets.values()


def _step_together(steps: Sequence[tuple[Member, Batch]]) -> None:
    """One optimizer step of each; the gradient of the sum of losses has each student's own gradient in it."""
    config = steps[0][0].config
    for member, _ in steps:
        member.state.optimizer.zero_grad()
    with autocast(config.device, config.precision):
        logits = forward_together([m.state.model for m, _ in steps], [batch.images for _, batch in steps])
    losses = [
        compare(m.config.loss, own.float(), batch.target, batch.hard, m.config.knobs)
        for (m, batch), own in zip(steps, logits, strict=True)
    ]
    torch.stack(losses).sum().backward()
    for (member, _), loss in zip(steps, losses, strict=True):
        update(member.config, member.state)
        member.losses.append(loss.detach())


def forward_together(models: Sequence[nn.Module], images: Sequence[Tensor]) -> Tensor:
    """Logits (K, B, C) of K networks of one architecture, each on a batch of its own.

    Gradients reach the parameters of every network; buffers (running means of batch norm) are updated in every network.
    """
    weights = [dict(model.named_parameters()) for model in models]
    buffers = [dict(model.named_buffers()) for model in models]
    stacked = {name: torch.stack([own[name] for own in weights]) for name in weights[0]}
    moving = {name: torch.stack([own[name] for own in buffers]) for name in buffers[0]}
    network = models[0]

    def one(weight: dict[str, Tensor], buffer: dict[str, Tensor], batch: Tensor) -> Tensor:
        logits: Tensor = functional_call(network, {**weight, **buffer}, (batch,))
        return logits

    logits: Tensor = torch.vmap(one, randomness="different")(stacked, moving, torch.stack(list(images)))
    with torch.no_grad():
        for number, own in enumerate(buffers):
            for name, buffer in own.items():
                buffer.copy_(moving[name][number])
    return logits


class Group:
    """Trials of one device that come and go; a thread of its own advances all that are waiting for a point."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Member, SimpleQueue[EpochMetrics | BaseException]]] = {}
        self._change = Condition()
        Thread(target=self._work, name="group", daemon=True).start()

    def train(self, config: TrialConfig, data: TrialData, state: TrialState) -> Iterator[EpochMetrics]:
        """As `train_student`, but advanced together with all others that are under way; for one thread per trial."""
        member = Member(config, data, state)
        answers: SimpleQueue[EpochMetrics | BaseException] = SimpleQueue()
        while state.epoch < config.epochs:
            with self._change:
                self._waiting[id(member)] = (member, answers)
                self._change.notify()
            answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            yield answer
            if answer.diverged:
                return

    def _work(self) -> None:
        """Advance whoever waits, epoch by epoch."""
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting)
                asked = list(self._waiting.values())
            group = [member for member, _ in asked]
            answers: Sequence[EpochMetrics | BaseException | None]
            try:
                answers = train_together(group)
            except Exception as err:  # noqa: BLE001 (whatever it is, those who wait must hear of it)
                answers = [err] * len(group)
            with self._change:
                for (member, queue), answer in zip(asked, answers, strict=True):
                    if answer is not None:
                        del self._waiting[id(member)]
                        queue.put(answer)
