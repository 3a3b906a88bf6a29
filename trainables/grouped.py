"""Students that share a device advance together: one forward and one backward pass for all of them (experimental).

A small student leaves most of a GPU idle, and each of its kernels costs a launch. Here the weights of K students of the same
architecture are stacked and their batches go through one network with K sets of weights, so that a kernel does K times the
work. Everything else of a trial is its own: batches, views, targets, loss, optimizer, schedule, evaluation, checkpoint. A trial's
metrics agree with those of the eager engine up to the order of float sums, which depends on who is in the group. A student that
draws random numbers while it trains (dropout) has a stream of its own, so it makes its steps alone; whether it does is seen in its
first step.

Source: horizontal fusion, Wang et al. 2021 (HFTA, MLSys), arXiv:2102.02344; `torch.func`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
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


def train_together(group: Sequence[Member]) -> list[EpochMetrics | Exception | None]:
    """Advance every member by an epoch.

    A member's `train_s` grows by its share of the time, an equal one.

    Returns:
        For each member its metrics, None where no evaluation is due, or what went wrong: in its own work, or in that of
        members whose network and batches have the same shape. The others go on.
    """
    started = time.monotonic()
    batches = {}
    for member in group:
        member.losses.clear()
        batches[id(member)] = epoch_batches(member.config, member.data, member.state)
    failed: dict[int, Exception] = {}
    running = list(group)
    while running:
        there = []
        for member in running:
            try:
                if (batch := next(batches[id(member)], None)) is not None:
                    there.append((member, batch))
            except Exception as err:  # noqa: BLE001 (whatever it is, it concerns this member alone)
                failed[id(member)] = err
        for alike in _alike(there):
            try:
                _step_together(alike)
            except Exception as err:  # noqa: BLE001 (the other shapes go on)
                failed |= {id(member): err for member, _ in alike}
        running = [member for member, _ in there if id(member) not in failed]
    answers = [failed.get(id(member)) or _end_epoch(member) for member in group]
    share_s = (time.monotonic() - started) / len(group)
    for member in group:
        member.state.train_s += share_s
    return [
        replace(a, train_s=m.state.train_s) if isinstance(a, EpochMetrics) else a
        for m, a in zip(group, answers, strict=True)
    ]


def _end_epoch(member: Member) -> EpochMetrics | Exception | None:
    """Its metrics, if an evaluation is due."""
    state = member.state
    try:
        train_loss = end_epoch(state, member.losses)
        with state.draws.in_use():
            accuracies = evaluate_if_due(member.config, member.data, state, train_loss)
    except Exception as err:  # noqa: BLE001 (it concerns this member alone)
        return err
    if accuracies is None:
        return None
    return EpochMetrics(state.epoch, train_loss, *accuracies, state.train_s, not math.isfinite(train_loss))


def _alike(steps: Sequence[tuple[Member, Batch]]) -> Iterator[list[tuple[Member, Batch]]]:
    """Members whose networks and batches have the same shape; one that draws, or may do so, by itself."""
    buckets: dict[object, list[tuple[Member, Batch]]] = {}
    for member, batch in steps:
        c = member.config
        alone = None if member.state.draws.drawn is False else id(member)
        key = (c.student, c.width, c.norm, c.precision, batch.images.shape, alone)
        buckets.setdefault(key, []).append((member, batch))
    yield from buckets.values()


def _step_together(steps: Sequence[tuple[Member, Batch]]) -> None:
    """One optimizer step of each; the gradient of the sum of losses has each student's own gradient in it."""
    config = steps[0][0].config
    for member, _ in steps:
        member.state.optimizer.zero_grad()
    with autocast(config.device, config.precision):
        logits = _forward(steps)
    losses = [
        compare(m.config.loss, own.float(), batch.target, batch.hard, m.config.knobs)
        for (m, batch), own in zip(steps, logits, strict=True)
    ]
    torch.stack(losses).sum().backward()
    for (member, _), loss in zip(steps, losses, strict=True):
        update(member.config, member.state)
        member.losses.append(loss.detach())


def _forward(steps: Sequence[tuple[Member, Batch]]) -> Tensor:
    """Logits (K, B, C) of the members, each on its batch."""
    if len(steps) == 1:
        [(member, batch)] = steps
        with member.state.draws.in_use():
            logits: Tensor = member.state.model(batch.images)
        return logits[None]
    return forward_together([m.state.model for m, _ in steps], [batch.images for _, batch in steps])


def forward_together(models: Sequence[nn.Module], images: Sequence[Tensor]) -> Tensor:
    """Logits (K, B, C) of K networks of one architecture, each on a batch of its own.

    Gradients reach the parameters of every network; buffers (running means of batch norm) are updated in every network.

    Raises:
        RuntimeError: If the networks draw random numbers: from one stream they would not be those of each alone.
    """
    weights = [dict(model.named_parameters()) for model in models]
    buffers = [dict(model.named_buffers()) for model in models]
    stacked = {name: torch.stack([own[name] for own in weights]) for name in weights[0]}
    moving = {name: torch.stack([own[name] for own in buffers]) for name in buffers[0]}
    network = models[0]

    def one(weight: dict[str, Tensor], buffer: dict[str, Tensor], batch: Tensor) -> Tensor:
        logits: Tensor = functional_call(network, {**weight, **buffer}, (batch,))
        return logits

    logits: Tensor = torch.vmap(one, randomness="error")(stacked, moving, torch.stack(list(images)))
    with torch.no_grad():
        for number, own in enumerate(buffers):
            for name, buffer in own.items():
                buffer.copy_(moving[name][number])
    return logits


class Group:
    """Trials of one device that come and go; a thread of its own advances all that are waiting for a point."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Member, SimpleQueue[EpochMetrics | Exception]]] = {}
        self._change = Condition()
        Thread(target=self._work, name="group", daemon=True).start()

    def train(self, config: TrialConfig, data: TrialData, state: TrialState) -> Iterator[EpochMetrics]:
        """As `train_student`, but advanced together with all others that are under way; for one thread per trial."""
        member = Member(config, data, state)
        answers: SimpleQueue[EpochMetrics | Exception] = SimpleQueue()
        while state.epoch < config.epochs:
            with self._change:
                self._waiting[id(member)] = (member, answers)
                self._change.notify()
            answer = answers.get()
            if isinstance(answer, Exception):
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
            answers = train_together([member for member, _ in asked])
            with self._change:
                for (member, queue), answer in zip(asked, answers, strict=True):
                    if answer is not None:
                        del self._waiting[id(member)]
                        queue.put(answer)
