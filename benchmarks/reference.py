"""A faithful model of how released evaluation scripts train a student on a distilled set; what LossAtlas is measured against.

For speed (`train`): float32, a DataLoader with four persistent workers, one DSA operation drawn per batch, the teacher run on every
batch, losses and hits read back with `.item()` at every step, one process with all cores. For accuracy (`train_as_gift`): GIFT's
protocol and its eight losses. Nothing of LossAtlas is used here; formulas are those of the released code (LINs-lab/GIFT), written anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

WORKERS: Final = 4
TEMPERATURE: Final = 20.0
#: GIFT's batch by the number of images, at most: (images, batch).
GIFT_BATCHES: Final = ((10, 10), (500, 50), (20_000, 100))
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
#: Images and labels, once per epoch.
Batches = Iterable[Sequence[Tensor]]


def loader(images: Tensor, labels: Tensor, batch_size: int, *, shuffle: bool) -> Batches:
    """Batches by worker processes that stay."""
    return DataLoader(
        TensorDataset(images, labels), batch_size, shuffle=shuffle, num_workers=WORKERS, persistent_workers=True
    )


def train(student: nn.Module, teacher: nn.Module, batches: Batches, *, epochs: int) -> float:
    """Train with KL at T = 20 and AdamW; the last epoch's accuracy on its own batches."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    hits = total_loss = 0.0
    seen = 0
    teacher.eval()
    device = next(student.parameters()).device
    for _ in range(epochs):
        student.train()
        hits, total_loss, seen = 0.0, 0.0, 0
        for images, labels in batches:
            images, labels = augment_batch(images.to(device)), labels.to(device)
            with torch.no_grad():
                soft = F.softmax(teacher(images) / TEMPERATURE, dim=1)
            logits = student(images)
            loss = F.kl_div(F.log_softmax(logits / TEMPERATURE, dim=1), soft, reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total_loss += loss.item() * len(labels)
            hits += (logits.argmax(dim=1) == labels).float().sum().item()
            seen += len(labels)
        schedule.step()
    return hits / seen


def gift_batch_size(images: int) -> int:
    """Images per step by images in the set; 200 for more than the table has."""
    return next((batch for most, batch in GIFT_BATCHES if images <= most), 200)


def train_as_gift(  # noqa: PLR0913 (a training's settings by name)
    student: nn.Module, teacher: nn.Module, images: Tensor, labels: Tensor, *, loss: str, epochs: int
) -> None:
    """Train as GIFT evaluates: AdamW at 1e-3 with decay 1e-4, x 0.2 at 2/3 and 5/6, the teacher on every augmented batch.

    Args:
        student: Network, trained in place.
        teacher: Network whose logits are the labels.
        images: (N, channels, H, W), normalised.
        labels: (N,), classes.
        loss: A name of GIFT_LOSSES.
        epochs: Passes over the images.
    """
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=1e-4)
    milestones = [2 * epochs // 3, 5 * epochs // 6]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.2)
    batches = DataLoader(TensorDataset(images, labels), gift_batch_size(len(images)), shuffle=True)
    teacher.eval()
    student.train()
    for _ in range(epochs):
        for batch, hard in batches:
            with torch.no_grad():
                seen = augment_as_gift(batch)
                soft = teacher(seen)
            value = GIFT_LOSSES[loss](student(seen), soft, hard)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        schedule.step()


def _gift(student: Tensor, teacher: Tensor, hard: Tensor) -> Tensor:
    """Cosine with the unit teacher plus a tenth of the unit smoothed label."""
    classes = teacher.shape[1]
    smooth = torch.full_like(teacher, 0.1 / (classes - 1)).scatter(1, hard[:, None], 0.9)
    return _cosine(student, F.normalize(teacher, dim=1) + 0.1 * F.normalize(smooth, dim=1), hard)


def _cosine(student: Tensor, teacher: Tensor, hard: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(student, teacher, dim=1).mean()


def _kl(student: Tensor, teacher: Tensor, hard: Tensor) -> Tensor:
    p, log_q = F.softmax(teacher / TEMPERATURE, dim=1), F.log_softmax(student / TEMPERATURE, dim=1)
    return F.kl_div(log_q, p, reduction="batchmean")


def _soft_ce(student: Tensor, teacher: Tensor, hard: Tensor) -> Tensor:
    return -(F.softmax(teacher, dim=1) * F.log_softmax(student, dim=1)).sum(dim=1).mean()


def _ce(student: Tensor, teacher: Tensor, hard: Tensor) -> Tensor:
    return F.cross_entropy(student, hard)


def _mse(student: Tensor, teacher: Tensor, hard: Tensor) -> Tensor:
    return F.mse_loss(student, teacher)


#: GIFT's losses, of student logits, teacher logits and classes, by LossAtlas's names.
GIFT_LOSSES: Final[Mapping[str, Loss]] = {
    "kl": _kl,
    "mse": _mse,
    "gift": _gift,
    "ce": _ce,
    "soft_ce": _soft_ce,
    "cosine": _cosine,
    "mse_ce": lambda s, t, hard: _mse(s, t, hard) + 0.1 * _ce(s, t, hard),
    "soft_ce_ce": lambda s, t, hard: _soft_ce(s, t, hard) + 0.1 * _ce(s, t, hard),
}


def evaluate(student: nn.Module, batches: Batches) -> float:
    """Accuracy."""
    student.eval()
    device = next(student.parameters()).device
    hits, seen = 0.0, 0
    with torch.no_grad():
        for images, labels in batches:
            hits += (student(images.to(device)).argmax(dim=1) == labels.to(device)).float().sum().item()
            seen += len(labels)
    return hits / seen


def augment_batch(images: Tensor) -> Tensor:
    """One operation of DSA, drawn for the whole batch, its parameters per image (Zhao and Bilen 2021)."""
    return _one_of(_OPERATIONS)(images)


def augment_as_gift(images: Tensor) -> Tensor:
    """Flip, colour, one of crop, scale and rotate drawn for the whole batch, cutout; their parameters per image."""
    return _cutout(_one_of((_crop, _scale, _rotate))(_color(_flip(images))))


def _one_of(operations: Sequence[Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
    return operations[int(torch.randint(len(operations), ()))]


def _color(x: Tensor) -> Tensor:
    n = len(x)
    x = x + torch.rand(n, 1, 1, 1, device=x.device) - 0.5
    mean = x.mean(dim=1, keepdim=True)
    x = (x - mean) * torch.rand(n, 1, 1, 1, device=x.device) * 2 + mean
    mean = x.mean(dim=[1, 2, 3], keepdim=True)
    return (x - mean) * (torch.rand(n, 1, 1, 1, device=x.device) + 0.5) + mean


def _crop(x: Tensor) -> Tensor:
    n, _, height, width = x.shape
    most = int(height * 0.125 + 0.5)
    rows = torch.arange(height, device=x.device)[None, :, None] + torch.randint(
        0, 2 * most + 1, (n, 1, 1), device=x.device
    )
    columns = torch.arange(width, device=x.device)[None, None, :] + torch.randint(
        0, 2 * most + 1, (n, 1, 1), device=x.device
    )
    padded = F.pad(x, [most] * 4)
    return padded.permute(0, 2, 3, 1)[torch.arange(n, device=x.device)[:, None, None], rows, columns].permute(
        0, 3, 1, 2
    )


def _cutout(x: Tensor) -> Tensor:
    n, _, height, width = x.shape
    side = height // 2
    rows = (
        torch.arange(side, device=x.device)[None, :, None]
        + torch.randint(-(side // 2), height - side // 2 + 1, (n, 1, 1), device=x.device)
    ).clamp(0, height - 1)
    columns = (
        torch.arange(side, device=x.device)[None, None, :]
        + torch.randint(-(side // 2), width - side // 2 + 1, (n, 1, 1), device=x.device)
    ).clamp(0, width - 1)
    mask = torch.ones(n, height, width, device=x.device)
    mask[torch.arange(n, device=x.device)[:, None, None], rows, columns] = 0
    return x * mask[:, None]


def _flip(x: Tensor) -> Tensor:
    return torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, x.flip(3), x)


def _warp(x: Tensor, matrices: Tensor) -> Tensor:
    return F.grid_sample(x, F.affine_grid(matrices, list(x.shape), align_corners=False), align_corners=False)


def _scale(x: Tensor) -> Tensor:
    matrices = torch.zeros(len(x), 2, 3, device=x.device)
    matrices[:, [0, 1], [0, 1]] = torch.rand(len(x), 2, device=x.device) * (1.2 - 1 / 1.2) + 1 / 1.2
    return _warp(x, matrices)


def _rotate(x: Tensor) -> Tensor:
    angle = torch.deg2rad((torch.rand(len(x), device=x.device) - 0.5) * 30)
    zero = torch.zeros_like(angle)
    rows = [torch.stack([angle.cos(), -angle.sin(), zero], 1), torch.stack([angle.sin(), angle.cos(), zero], 1)]
    return _warp(x, torch.stack(rows, dim=1))


_OPERATIONS: Final[tuple[Callable[[Tensor], Tensor], ...]] = (_color, _crop, _cutout, _flip, _scale, _rotate)
