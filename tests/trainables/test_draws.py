"""What a network draws for itself (dropout, stochastic depth) belongs to its replicate, not to the process."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from torch import nn

from trainables.augment import Augmentation
from trainables.config import TrialConfig
from trainables.data.labels import LabelBank, draw_views
from trainables.data.teacher import make_teacher, train_teacher
from trainables.grouped import Member, train_together
from trainables.metrics import EpochMetrics
from trainables.names import STUDENTS, fits_images
from trainables.networks import ModelShape
from trainables.seeding import NetworkDraws
from trainables.splits import Split
from trainables.trial import TrialData, TrialState, start_trial, train_student

SIDE, CLASSES = 32, 4
#: The larger ResNets are the same code as the smallest, and slow.
OURS = [name for name in STUDENTS if fits_images(name, SIDE) and name not in ("resnet34_modified", "resnet50_modified")]
#: Dropout in the head, in blocks, stochastic depth, functional dropout; and networks that draw nothing.
DRAWING = ("torchvision/mobilenet_v3_small", "torchvision/squeezenet1_1", "torchvision/mnasnet0_5")
SLOW_TO_BUILD = ("torchvision/efficientnet_b0", "torchvision/googlenet")
STILL = ("torchvision/shufflenet_v2_x0_5", "timm/resnet10t")


@pytest.fixture(scope="module")
def data() -> TrialData:
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        labels = torch.arange(count) % CLASSES
        return Split(torch.randn(count, 3, SIDE, SIDE, generator=generator) + labels.view(-1, 1, 1, 1), labels)

    distilled = split(8)
    views = draw_views(Augmentation("none", False), 8, SIDE, views=1, seed=0)
    bank = LabelBank(distilled, views, torch.randn(1, 8, CLASSES, generator=generator), torch.zeros(3))
    return TrialData(replace(bank, pixels=distilled.images[None]), split(8), split(8))


def config_of(student: str, **changes: object) -> TrialConfig:
    is_ours = student in STUDENTS
    settings = {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.0, "schedule": "constant", "epochs": 2}
    settings |= {"width": 4 if is_ours else None, "norm": "batch" if is_ours else None, "batch_size": 4}
    settings |= {"evaluate_every_epochs": 1, "precision": "fp32", "threads": 1, "device": "cpu", "data": "none"}
    return TrialConfig(
        **{"stage": "confirm", "replicate": 1, "loss": "ce", "student": student} | settings | changes  # type: ignore[arg-type]
    )


def numbers(points: list[EpochMetrics]) -> list[tuple[object, ...]]:
    return [(p.epoch, p.train_loss, p.val_accuracy, p.test_accuracy) for p in points]


def resumed_after_one_epoch(config: TrialConfig, data: TrialData) -> list[EpochMetrics]:
    """In another state of the process, from a checkpoint of after the first epoch."""
    state = start_trial(config, data)
    first = next(train_student(config, data, state))
    buffer = io.BytesIO()
    torch.save(state.state_dict(), buffer)
    torch.rand(100)
    again = start_trial(replace(config, replicate=7), data)
    again.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    return [first, *train_student(config, data, again)]


def in_a_group(config: TrialConfig, data: TrialData) -> list[EpochMetrics]:
    """Beside a trial of the same network and another replicate."""
    members = [Member(c, data, start_trial(c, data)) for c in (replace(config, replicate=2), config)]
    points = [train_together(members)[1] for _ in range(config.epochs)]
    return [point for point in points if isinstance(point, EpochMetrics)]


@pytest.fixture(autouse=True)
def process_state() -> None:
    """Each test begins with another state of the process than the one before it; what it left is of no account."""
    torch.seed()


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # a student that is slow in a group is right there
@pytest.mark.parametrize("student", [*OURS, *DRAWING, *SLOW_TO_BUILD, *STILL])
def test_a_trial_alone_after_others_resumed_and_in_a_group_is_the_same(student: str, data: TrialData) -> None:
    config = config_of(student)
    alone = numbers(list(train_student(config, data)))
    torch.rand(10)
    assert numbers(resumed_after_one_epoch(config, data)) == alone
    together = in_a_group(config, data)
    if student in (*DRAWING, *SLOW_TO_BUILD):
        assert numbers(together) == alone
    assert [p.epoch for p in together] == [1, 2]


@pytest.mark.parametrize("student", DRAWING)
def test_replicates_draw_differently_and_losses_alike(student: str, data: TrialData) -> None:
    first, other, loss = (
        start_trial(config, data)
        for config in (config_of(student), config_of(student, replicate=2), config_of(student, lr=0.02))
    )

    def drawn(state: TrialState) -> torch.Tensor:
        with state.draws.in_use():
            return torch.rand(4)

    assert torch.equal(a := drawn(first), drawn(loss))
    assert not torch.equal(a, drawn(other))


def test_whether_a_network_draws_is_seen(data: TrialData) -> None:
    states = {}
    for student in (DRAWING[0], "convnet3"):
        states[student] = start_trial(config_of(student), data)
        assert states[student].draws.drawn is None
        next(train_student(config_of(student), data, states[student]))
    assert states[DRAWING[0]].draws.drawn is True
    assert states["convnet3"].draws.drawn is False


def test_the_process_goes_on_as_if_nothing_had_been_drawn() -> None:
    draws, before = NetworkDraws("test", 1, "cpu"), torch.get_rng_state()
    with draws.in_use():
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    kept = draws.state()
    with draws.in_use():
        second = torch.rand(3)
    assert not torch.equal(first, second), "the stream goes on"
    draws.restore(kept)
    with draws.in_use():
        assert torch.equal(torch.rand(3), second)


def test_states_of_another_kind_of_device_are_refused() -> None:
    with pytest.raises(ValueError, match="2 states of generators, this device has 1"):
        NetworkDraws("test", 1, "cpu").restore([torch.zeros(1), torch.zeros(1)])


def test_a_teacher_that_draws_is_the_same_in_every_process(data: TrialData) -> None:
    def train() -> nn.Module:
        torch.seed()
        teacher = make_teacher(DRAWING[0], ModelShape(3, CLASSES, SIDE), width=4, norm="batch")
        train_teacher(
            data.validation, teacher, Augmentation("none", False), torch.zeros(3), epochs=1, lr=0.01, batch_size=4
        )
        return teacher

    first, second = train(), train()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.long
def test_a_compiled_student_draws_from_its_stream(data: TrialData) -> None:
    config = config_of("torchvision/squeezenet1_1", engine="compiled")
    alone = numbers(list(train_student(config, data)))
    torch.rand(10)
    assert numbers(list(train_student(config, data))) == alone
    assert numbers(resumed_after_one_epoch(config, data)) == alone


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_a_trial_on_a_gpu_is_the_same_after_others_and_resumed(engine: str, data: TrialData) -> None:
    """Kernels need not give the same bits; a stream that was lost would change the loss by far more."""
    there = TrialData.from_arrays(data.to_arrays(), "cuda")
    config = config_of(DRAWING[1], device="cuda", engine=engine)
    alone = list(train_student(config, there))
    torch.rand(10, device="cuda")
    for again in (list(train_student(config, there)), resumed_after_one_epoch(config, there)):
        assert [p.train_loss for p in again] == pytest.approx([p.train_loss for p in alone], rel=1e-3)
