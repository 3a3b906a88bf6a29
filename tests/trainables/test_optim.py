from __future__ import annotations

import pytest
from torch import nn

from trainables.config import SCHEDULES
from trainables.optim import make_optimizer, make_schedule


@pytest.mark.parametrize("epochs", [1, 2, 3, 7])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_first_epoch_runs_at_the_full_rate(name: str, epochs: int) -> None:
    optimizer = make_optimizer("sgd", nn.Linear(2, 2), lr=0.5, weight_decay=0, momentum=None)
    make_schedule(name, optimizer, epochs=epochs)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown optimizer 'adamx'; valid: \['adamw', 'sgd'\]"):
        make_optimizer("adamx", nn.Linear(2, 2), lr=0.5, weight_decay=0, momentum=None)
    with pytest.raises(ValueError, match="unknown schedule 'cosin'"):
        make_schedule("cosin", make_optimizer("sgd", nn.Linear(2, 2), lr=1, weight_decay=0, momentum=None), epochs=2)
