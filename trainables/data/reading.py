"""How a checkpoint is meant: which pixels its network sees, and which operations its keys do not tell.

Every combination that is possible is tried on real training images. The published default stays unless another one is much
better: networks that are hardly trained classify a little better with other constants than their own (digits, two epochs: 62.6
and 68.3 %), so a small gain proves nothing and is only said. What was stated is taken, and said where another is much better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import Tensor, nn

from trainables.data.real import RealData
from trainables.data.spaces import PixelSpace, View, through, view_of
from trainables.evaluate import predict_logits
from trainables.findings import Candidate, Reading
from trainables.seeding import make_generator
from trainables.splits import Split

#: Images on which all candidates are tried, and on which those that are left are compared.
FIRST: Final = 100
SECOND: Final = 1_000
#: Candidates that are compared on all images, besides the default.
FINALISTS: Final = 4
#: One-sided p of a paired sign test below which a difference is sure; there are up to 100 candidates.
SURE: Final = 1e-4
#: Fractions of the images by which other pixels (whitened or not), other operations, and constants that are merely common have
#: to be better than the default; or they leave half of its errors.
GAIN_PIXELS: Final = 0.03
GAIN_OPERATIONS: Final = 0.05
GAIN_CONSTANTS: Final = 0.1
LEFT: Final = 0.5
#: What was stated is a problem where another reading is better by this fraction of images, and leaves this share of the errors.
FAR: Final = 0.05
LEFT_FAR: Final = 0.8
#: Candidates as good as the best one but for this fraction; of them the one that is most like the default is taken.
ALIKE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Option:
    """A candidate to be tried.

    Attributes:
        space: Pixels that the network would see.
        operations: Operations that it would have.
        is_allowed: The user's statements allow it.
        is_common: Its constants are merely common ones, which nothing about these data suggests.
    """

    space: PixelSpace
    operations: Mapping[str, str]
    is_allowed: bool = True
    is_common: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """Score of an option on some images: (n,) whether the largest logit is the label, and the mean cross-entropy."""

    hits: Tensor
    loss: float

    @property
    def accuracy(self) -> float:
        """Fraction."""
        return float(self.hits.float().mean())

    def is_much_better(self, other: Score, gain: float) -> bool:
        """It classifies this fraction of the images more, or makes half of the errors; surely."""
        errors, others = int((~self.hits).sum()), int((~other.hits).sum())
        is_large = others - errors >= gain * len(self.hits) or errors <= LEFT * others
        return is_large and _is_sure(self, other)


class Judge:
    """Scores options on the first n of the same real images; networks are built once per set of operations."""

    def __init__(self, build: Callable[[Mapping[str, str]], nn.Module], real: RealData, linear: Tensor | None) -> None:
        """Judge by networks as `build` makes them from operations, on training images (validation where there are none)."""
        self._build, self._real, self._linear = build, real, linear
        self._networks: dict[tuple[tuple[str, str], ...], nn.Module] = {}
        self.split = "training" if len(real.train) else "validation"
        source = real.train if len(real.train) else real.validation
        index = torch.randperm(len(source), generator=make_generator("judge checkpoints", 0))[:SECOND].sort().values
        order = torch.randperm(len(index), generator=make_generator("judge checkpoints", 1))
        self._images: Split = Split(source.batch(index[order]), source.labels[index[order]])

    @property
    def images(self) -> int:
        """Number of images there are."""
        return len(self._images)

    def network(self, operations: Mapping[str, str]) -> nn.Module:
        """A network with these operations."""
        key = tuple(sorted(operations.items()))
        if key not in self._networks:
            self._networks[key] = self._build(operations)
        return self._networks[key]

    def score(self, option: Option, n: int) -> Score:
        """Score on the first n images."""
        view = view_of(option.space, self._real)
        network, labels = self.network(option.operations), self._images.labels[:n]
        with torch.no_grad():
            logits = predict_logits(Seen(network, view, self._linear), self._images.images[:n])
        return Score(logits.argmax(dim=1) == labels, float(F.cross_entropy(logits.float(), labels)))


class Seen(nn.Module):
    """A network behind its view of ready images."""

    def __init__(self, network: nn.Module, view: View, linear: Tensor | None) -> None:
        """Logits of a network that sees images through `view`."""
        super().__init__()
        self.network, self.view, self.linear = network, view, linear

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C)."""
        if self.view.uses_linear:
            assert self.linear is not None
            images = through(self.linear.to(images.device), images)
        scale, shift = (value.view(-1, 1, 1).to(images.device) for value in (self.view.scale, self.view.shift))
        logits: Tensor = self.network(images * scale + shift)
        return logits


def read_as(
    judge: Judge, options: Sequence[Option], *, source: str, classes: int, stated_accuracy: float | None
) -> tuple[Option, Reading]:
    """The option that a checkpoint is taken as.

    Args:
        judge: What scores them.
        options: All that are possible; the first that is allowed is the default.
        source: Path of the checkpoint.
        classes: C.
        stated_accuracy: What the file states, a fraction.
    """
    default = next(number for number, option in enumerate(options) if option.is_allowed)
    scores = _compare(judge, options, default)
    chosen = _choose(options, scores, default, least=1 / classes + (1 - 1 / classes) / 10)
    best = _best(scores, scores)
    errors, least_errors = 1 - scores[chosen].accuracy, 1 - scores[best].accuracy
    named = {n: Candidate(options[n].space.name, options[n].operations, scores[n].accuracy) for n in scores}
    return options[chosen], Reading(
        source=source,
        chosen=named[chosen],
        default=named[default],
        best=named[best] if _is_sure(scores[best], scores[chosen]) else named[chosen],
        is_far=not options[best].is_allowed
        and errors - least_errors >= FAR
        and least_errors <= LEFT_FAR * errors
        and _is_sure(scores[best], scores[chosen]),
        images=judge.images,
        split=judge.split,
        stated_accuracy=stated_accuracy,
    )


def _choose(options: Sequence[Option], scores: Mapping[int, Score], default: int, *, least: float) -> int:
    """The default, unless an allowed option is much better, and better than a network that knows nothing."""
    chosen = default
    likely = [n for n in scores if options[n].is_allowed and not options[n].is_common]
    allowed = [n for n in scores if options[n].is_allowed]
    same = [n for n in likely if options[n].operations == options[default].operations]
    for candidates, gain in ((same, GAIN_PIXELS), (likely, GAIN_OPERATIONS), (allowed, GAIN_CONSTANTS)):
        best = _best(candidates, scores)
        if scores[best].accuracy >= least and scores[best].is_much_better(scores[chosen], gain):
            chosen = _plainest(options, [n for n in candidates if _is_alike(scores[n], scores[best])], chosen, scores)
    return chosen


def _is_alike(score: Score, best: Score) -> bool:
    return best.accuracy - score.accuracy <= ALIKE


def _plainest(options: Sequence[Option], candidates: Sequence[int], default: int, scores: Mapping[int, Score]) -> int:
    """The candidate with the fewest differences from the default; then the better one."""

    def differences(number: int) -> int:
        one, other = options[number], options[default]
        return (one.space is not other.space) + _distance(one, other)

    fewest = min(map(differences, candidates))
    return _best((n for n in candidates if differences(n) == fewest), scores)


def _compare(judge: Judge, options: Sequence[Option], default: int) -> dict[int, Score]:
    """Scores on all images of the default, and of the best on a few images.

    Common constants are tried with the operations that are best without them, as not every combination needs to be.
    """
    likely = [n for n, option in enumerate(options) if not option.is_common]
    few = {number: judge.score(options[number], FIRST) for number in likely}
    first = [default, *_sorted(few)[:1]]
    common = [
        n
        for n, option in enumerate(options)
        if option.is_common and any(option.operations == options[k].operations for k in first)
    ]
    few |= {number: judge.score(options[number], FIRST) for number in common}
    order = _sorted(few)
    kept = {n for n in order[:FINALISTS] if int(few[n].hits.sum()) > int(few[default].hits.sum())}
    base = [n for n in likely if options[n].operations == options[default].operations]
    kept |= {default, *base, *_sorted({n: few[n] for n in likely})[:1]}
    plain = [n for n in likely if _distance(options[n], options[default]) == 1 and _is_near(few[n], few[order[0]])]
    return {number: judge.score(options[number], judge.images) for number in sorted(kept | set(plain))}


def _distance(one: Option, other: Option) -> int:
    """In how many operations two options differ."""
    return len(one.operations.items() - other.operations.items())


def _is_near(score: Score, best: Score) -> bool:
    """On a few images, which decide nothing: at most 3 in 100 fewer."""
    return best.accuracy - score.accuracy <= 0.03


def _sorted(scores: Mapping[int, Score]) -> list[int]:
    return sorted(scores, key=lambda number: _rank(scores[number], number), reverse=True)


def _best(candidates: Iterable[int], scores: Mapping[int, Score]) -> int:
    return max(candidates, key=lambda number: _rank(scores[number], number))


def _rank(score: Score, number: int) -> tuple[int, float, int]:
    """More hits, then less cross-entropy, then earlier."""
    return int(score.hits.sum()), -score.loss if score.loss == score.loss else -math.inf, -number


def _is_sure(better: Score, worse: Score) -> bool:
    """One classifies more images right, by a paired sign test."""
    wins = int((better.hits & ~worse.hits).sum())
    losses = int((worse.hits & ~better.hits).sum())
    return wins > losses and binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue < SURE
