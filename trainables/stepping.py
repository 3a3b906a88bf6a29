"""A training in steps: up to the next epoch at which somebody else must hear of it, or keep it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from trainables.config import TrialConfig
from trainables.metrics import EpochMetrics

if TYPE_CHECKING:
    from trainables.trial import TrialData, TrialState


Train = Callable[["TrialConfig", "TrialData", "TrialState"], Iterator[EpochMetrics]]


class Stepper:
    """Trains one student, stopping at rungs and for checkpoints; free of torch until the first step."""

    def __init__(
        self,
        config: TrialConfig,
        *,
        rung_epochs: Sequence[int] = (),
        checkpoint_every_epochs: int | None = None,
        checkpoint: bytes | None = None,
        train: Train | None = None,
    ) -> None:
        """Nothing is trained yet.

        Args:
            config: Of the trial.
            rung_epochs: A step ends at the first evaluation at or after each.
            checkpoint_every_epochs: A step also ends, with a checkpoint, at the first evaluation at or after each multiple.
            checkpoint: Of an earlier process, to continue from.
            train: What trains; None is `train_student`.
        """
        self._config = config
        self._rungs = list(rung_epochs)
        self._every = checkpoint_every_epochs
        self._checkpoint = checkpoint
        self._train = train
        self._saved_epoch = 0
        self._points: Iterator[EpochMetrics] | None = None
        self._state: TrialState
        self._curve: list[dict[str, Any]] = []

    @property
    def ended(self) -> bool:
        """It trained to the last epoch, or diverged."""
        return bool(self._curve) and (self._curve[-1]["diverged"] or self._curve[-1]["epoch"] == self._config.epochs)

    def step(self, data: TrialData) -> tuple[list[dict[str, Any]], bytes | None]:
        """Train on; the points of the curve since the last call, and a checkpoint where one is due.

        The first points after a checkpoint are those of the earlier process.
        """
        known = len(self._curve)
        self._points = self._points or self._begin(data)
        for point in self._points:
            self._curve.append(point.as_dict())
            if self.ended or self._at_rung(point.epoch) or self._is_due(point.epoch):
                break
        return self._curve[known:], self._pack_if_due()

    def _begin(self, data: TrialData) -> Iterator[EpochMetrics]:
        from trainables.checkpoint import unpack
        from trainables.trial import train_student

        self._state, self._curve = unpack(self._checkpoint, self._config, data)
        self._checkpoint, self._saved_epoch = None, self._state.epoch
        self._rungs = [rung for rung in self._rungs if rung > self._state.epoch]
        return (self._train or train_student)(self._config, data, self._state)

    def _pack_if_due(self) -> bytes | None:
        from trainables.checkpoint import pack

        if self.ended or not self._is_due(self._curve[-1]["epoch"]):
            return None
        self._saved_epoch = self._curve[-1]["epoch"]
        return pack(self._state, self._curve)

    def _is_due(self, epoch: int) -> bool:
        return self._every is not None and epoch // self._every > self._saved_epoch // self._every

    def _at_rung(self, epoch: int) -> bool:
        """True at the first evaluation at or after a rung; that rung is then done with."""
        reached = [rung for rung in self._rungs if rung <= epoch]
        self._rungs = [rung for rung in self._rungs if rung > epoch]
        return bool(reached)
