"""Projectors: a small network that says a teacher's labels from the images, so that labels need not be stored.

A frozen trunk, low-rank updates of its layers, a linear head. Only the updates and the head have to be sent to somebody who
has the trunk (a public one, or random weights from a seed); the teacher's own trunk has to be sent too.

Notations: D features of the trunk; C classes; r rank; B batch.

Source: Yu et al. 2024 (HeLlO), arXiv:2408.08201; Hu et al. 2021 (LoRA), arXiv:2106.09685.
Differs: HeLlO has no public code; the head is fitted in closed form, then everything to the teacher's logits by least squares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from trainables.data.spaces import through
from trainables.evaluate import predict_logits
from trainables.seeding import seeded_globals

#: Below this a fit is rounding noise.
EXACT: Final = 1e-9
#: Images (B, channels, H, W) and a teacher's logits of them (B, C), all of them once, in the order of an epoch.
Pairs = Callable[[int], Iterable[tuple[Tensor, Tensor]]]


class Trunk(nn.Module):
    """Features (B, D) of images as students see them: a classifier without its last linear layer."""

    linear: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        *,
        scale: Tensor,
        shift: Tensor,
        side: int | None = None,
        linear: Tensor | None = None,
    ) -> None:
        """The network sees scale x + shift, both (channels,), brought to `side` pixels where that is given.

        With `linear` (D + 1, D), x is the image after that map; see `spaces.linear_map`.
        """
        super().__init__()
        self.register_buffer("linear", linear, persistent=False)
        self.register_buffer("scale", scale.view(-1, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(-1, 1, 1), persistent=False)
        self.network, self.side = network, side

    def forward(self, images: Tensor) -> Tensor:
        """Features."""
        mapped = images if self.linear is None else through(self.linear, images)
        seen = mapped * self.get_buffer("scale") + self.get_buffer("shift")
        if self.side is not None:
            seen = F.interpolate(seen, size=(self.side, self.side), mode="bicubic", antialias=True)
        features: Tensor = self.network(seen)
        return features.flatten(1)


def without_head(network: nn.Module) -> nn.Module:
    """A classifier without its last linear layer, in place."""
    linear = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise ValueError("projector.backbone: a network whose last layer is not linear has no head to take off.")
    name = linear[-1]
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, nn.Identity())
    return network


class LowRank(nn.Module):
    """A weight plus an update of rank r: W + B A; an update that would not be smaller than W is W's size."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        """Of a weight (out, ...), which counts as (out, in); the update is zero at first."""
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        is_full = rank * (rows + columns) >= rows * columns
        self.left = nn.Parameter(torch.zeros(rows, columns if is_full else rank))
        self.right = None if is_full else nn.Parameter(torch.randn(rank, columns) / columns**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """W + B A, in the shape of W."""
        return weight + self.update().view(weight.shape)

    def update(self) -> Tensor:
        """B A, (out, in)."""
        return self.left if self.right is None else self.left @ self.right


class Projector(nn.Module):
    """Logits (B, C) of images as students see them, (B, channels, H, W)."""

    def __init__(self, trunk: nn.Module, features: int, classes: int, *, rank: int, text: Tensor | None = None) -> None:
        """Frozen but for updates of rank r.

        Args:
            trunk: Takes images, gives (B, D); its weights are frozen.
            features: D.
            classes: C.
            rank: r >= 1 of the update of every linear layer and convolution, the head's too.
            text: (C, D), what the head is at first; None: zero.
        """
        super().__init__()
        self.trunk, self.head = trunk.requires_grad_(False), nn.Linear(features, classes)
        with torch.no_grad():
            self.head.weight.copy_(torch.zeros(classes, features) if text is None else text)
            self.head.bias.zero_()
        self.head.weight.requires_grad_(False)
        layers = [m for m in trunk.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        with seeded_globals("projector", 0):
            for layer in (*layers, self.head):
                parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.trunk(images))
        return logits

    @property
    def fitted(self) -> list[nn.Parameter]:
        """What `fit` changes: the updates and the head's bias."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def numbers(self, *, with_trunk: bool) -> list[Tensor]:
        """What has to be sent: all that is fitted, and the trunk's own tensors where nobody else has them."""
        own = [tensor for tensor in self.trunk.state_dict(keep_vars=True).values() if tensor.is_floating_point()]
        return [*self.fitted, *(t for t in own if with_trunk and not t.requires_grad)]

    def round_(self, dtype: torch.dtype, *, with_trunk: bool) -> Tensor:
        """Make every number that has to be sent one that can be, in place; all of them, one after the other."""
        numbers = self.numbers(with_trunk=with_trunk)
        with torch.no_grad():
            for tensor in numbers:
                tensor.copy_(tensor.to(dtype))
        return torch.cat([tensor.detach().flatten() for tensor in numbers]).to(dtype)


def fit(
    projector: Projector, pairs: Pairs, *, epochs: int, lr: float, say: Callable[[str], None] = lambda text: None
) -> float:
    """Fit a projector to a teacher's logits; the head in closed form, then all of it with AdamW if that is better.

    Args:
        projector: As it was made.
        pairs: What it is fitted to; each call is one epoch.
        epochs: Of AdamW; 0 leaves it at the head.
        lr: Learning rate of AdamW.
        say: Told of the error.

    Returns:
        The share of the logits' variance that is left: sum (t - s)^2 / sum (t - mean t)^2, the mean over all pairs per class.
    """
    _fit_head(projector, pairs(0))
    error = least = unexplained(projector, pairs(0))
    before = [parameter.detach().clone() for parameter in projector.fitted]
    optimizer = torch.optim.AdamW(projector.fitted, lr=lr, weight_decay=0.0)
    for epoch in range(epochs if error > EXACT else 0):
        for images, wanted in pairs(epoch):
            loss = F.mse_loss(projector(images), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    error = unexplained(projector, pairs(0)) if error > EXACT else error
    if error < least:
        say(f"projector: leaves {error:.2%} of the logits' variance (its head alone {least:.2%})")
        return error
    with torch.no_grad():
        for parameter, value in zip(projector.fitted, before, strict=True):
            parameter.copy_(value)
    say(f"projector: its head leaves {least:.2%} of the logits' variance")
    return least


def unexplained(model: nn.Module, pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Share of the variance of a teacher's logits that a model leaves: 0 is a copy, 1 a constant."""
    left, total, n = torch.zeros((), dtype=torch.float64), 0.0, 0
    sums = squares = torch.zeros(1, dtype=torch.float64)
    for images, wanted in pairs:
        t = wanted.double()
        left = left + (predict_logits(model, images).double() - t).square().sum().cpu()
        sums, squares, n = sums + t.sum(dim=0).cpu(), squares + t.square().sum(dim=0).cpu(), n + len(t)
    total = float((squares - sums.square() / n).sum())
    return float(left) / max(total, 1e-30)


def _fit_head(projector: Projector, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """The head's least-squares update of its rank, with its bias, on the trunk's features as they are.

    Reduced-rank regression: the full solution, projected on the r directions of its fitted values that vary most.

    Source: Izenman 1975, doi:10.1016/0047-259X(75)90042-1, with the identity as weight.
    """
    (update,) = (layer for layer in projector.head.modules() if isinstance(layer, LowRank))
    start = projector.head.weight.detach().double()
    sums = _moments(projector, pairs)
    n, mean_f, mean_t = sums[0], sums[1] / sums[0], sums[2] / sums[0]
    spread = sums[3] - n * torch.outer(mean_f, mean_f)
    shared = sums[4] - n * torch.outer(mean_f, mean_t) - spread @ start.T
    full = torch.linalg.pinv(spread, hermitian=True) @ shared  # (D, C)
    with torch.no_grad():
        if update.right is None:
            update.left.copy_(full.T)
        else:
            rank = len(update.right)
            directions = torch.linalg.eigh(full.T @ spread @ full).eigenvectors[:, -rank:]  # (C, r), largest last
            update.left.copy_(_padded(directions, rank))
            update.right.copy_(_padded((full @ directions), rank).T)
        projector.head.bias.copy_(mean_t - (start + update.update().double()) @ mean_f)


def _moments(projector: Projector, pairs: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """n, sum f (D,), sum t (C,), sum f f' (D, D), sum f t' (D, C) of features f and logits t, in double precision."""
    sums: list[Tensor] = []
    for images, wanted in pairs:
        f, t = predict_logits(projector.trunk, images).double(), wanted.double()
        parts = [f.new_tensor(len(f)), f.sum(dim=0), t.sum(dim=0), f.T @ f, f.T @ t]
        sums = [a + b for a, b in zip(sums, parts, strict=True)] if sums else parts
    return sums


def _padded(columns: Tensor, rank: int) -> Tensor:
    """With columns of zeros where there are fewer than r directions."""
    return F.pad(columns, (0, rank - columns.shape[1]))
