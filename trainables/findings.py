"""What was found out about prepared data: the teacher's pixels and operations, mixed-up classes, images that occur twice.

Kept as JSON under `findings` of a cache entry's `about.json`. Free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way in which a checkpoint may be meant, tried on real images.

    Attributes:
        pixels: Description of the pixels that the network is shown.
        operations: `pooling`, `activation` and `norm` of a convnet; empty for others.
        accuracy: Fraction of the images that it classifies as labelled.
    """

    pixels: str
    operations: Mapping[str, str]
    accuracy: float

    def words(self) -> str:
        """One phrase."""
        return ", ".join([self.pixels, *(f"{key} {value}" for key, value in self.operations.items())])


@dataclass(frozen=True, slots=True)
class Reading:
    """How a checkpoint was read.

    Attributes:
        source: Path of the checkpoint.
        chosen: What was taken.
        default: What would have been taken without trying.
        best: What classifies best; another one than `chosen` where that was stated, or the two cannot be told apart.
        is_far: `best` is surely, and by 5 points or more, better than `chosen`.
        images: Number of real images that were judged, and the split that they are from.
        stated_accuracy: Fraction that the file states of itself.
    """

    source: str
    chosen: Candidate
    default: Candidate
    best: Candidate
    is_far: bool
    images: int
    split: str
    stated_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class MixUp:
    """Classes whose images look like other classes to the teacher, in a circle.

    Attributes:
        images: "validation" or "distilled".
        labelled: Names of the classes.
        looks_like: Name of the class that the images of each look like.
        hits: Number of images of each that the teacher takes for that class.
        counts: Number of images of each.
        is_sure: There are so many that it cannot be chance.
    """

    images: str
    labelled: tuple[str, ...]
    looks_like: tuple[str, ...]
    hits: tuple[int, ...]
    counts: tuple[int, ...]
    is_sure: bool

    def words(self) -> str:
        """One sentence; at most four classes are named."""
        rows = list(zip(self.labelled, self.looks_like, self.hits, self.counts, strict=True))
        named = [f"labelled {a} look like {b} to the teacher ({h} of {n})" for a, b, h, n in rows[:4]]
        more = f", and so on for {len(rows)} classes in all" if len(rows) > 4 else ""
        return f"{self.images} images {', '.join(named)}{more}."


@dataclass(frozen=True, slots=True)
class Repeats:
    """Numbers of images that also occur in another split, pixel by pixel, at the size that is worked with."""

    distilled_in_test: int = 0
    distilled_in_validation: int = 0
    train_in_test: int = 0
    train_in_validation: int = 0
    validation_in_test: int = 0


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found out about prepared data.

    Attributes:
        readings: One per checkpoint of the teacher.
        mix_ups: Classes that are surely or perhaps exchanged.
        repeats: Images in several splits; None where nobody looked.
        stated: What was stated about the distilled set, in the space or in a sidecar, by key.
        class_test: What the test of classes could tell: "passed", "failed", "doubtful", or why it could not tell.
    """

    readings: tuple[Reading, ...] = ()
    mix_ups: tuple[MixUp, ...] = ()
    repeats: Repeats | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)
    class_test: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> Findings:
        """Those of an entry; empty for entries from before there were any."""
        found = about.get("findings", {})
        if not found:
            return cls()
        readings = (
            Reading(**{**r, **{key: Candidate(**r[key]) for key in ("chosen", "default", "best")}})
            for r in found["readings"]
        )
        lists = ("labelled", "looks_like", "hits", "counts")
        mix_ups = (MixUp(**{**m, **{key: tuple(m[key]) for key in lists}}) for m in found["mix_ups"])
        repeats = None if found["repeats"] is None else Repeats(**found["repeats"])
        return cls(tuple(readings), tuple(mix_ups), repeats, found["stated"], found["class_test"])
