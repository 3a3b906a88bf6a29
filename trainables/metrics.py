"""What a training reports at each evaluation. Free of torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """One evaluation of a student.

    Attributes:
        epoch: Epochs trained so far, 1-based.
        train_loss: Mean training loss over the last epoch; NaN or infinite if it diverged.
        val_accuracy: Validation accuracy in [0, 1]; 1 / C if diverged.
        test_accuracy: Test accuracy in [0, 1], or None where the test split was not evaluated.
        train_s: Seconds since this training began in this process, evaluation included.
        diverged: The loss became NaN or infinite; no further epoch follows.
    """

    epoch: int
    train_loss: float
    val_accuracy: float
    test_accuracy: float | None
    train_s: float
    diverged: bool = False

    def as_dict(self) -> dict[str, float | int | bool | None]:
        """The same numbers as a plain dictionary, ready for JSON: a NaN or infinite loss is None."""
        fields = asdict(self)
        return fields | {"train_loss": self.train_loss if math.isfinite(self.train_loss) else None}
