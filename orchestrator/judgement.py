"""What was found out about prepared data, judged: what forbids a run, what a reader must know, and what is just so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from trainables.findings import Findings, MixUp, Reading, Repeats

#: A file that states an accuracy this much above what its network has here is of other data, pixels or operations.
LARGE_GAP: Final = 0.1
SMALL_GAP: Final = 0.03
#: Said of a set from outside where no teacher looks at it.
UNTESTED: Final = (
    "The classes of the distilled set are not tested, for there is no teacher: exchanged classes, or labels in another order, would "
    "only be seen as a low accuracy. A `teacher` in the space tests them."
)
_SPLITS: Final = {
    "distilled_in_test": ("distilled images", "n_distilled", "test"),
    "distilled_in_validation": ("distilled images", "n_distilled", "validation"),
    "train_in_test": ("training images", None, "test"),
    "train_in_validation": ("training images", None, "validation"),
    "validation_in_test": ("validation images", "n_validation", "test"),
}


def is_from_outside(distilled: str | None) -> bool:
    """A set of this format was made elsewhere, so that its labels may be wrong."""
    return distilled not in (None, "random", "rded")


def doubts_about(about: Mapping[str, Any]) -> list[str]:
    """What is wrong with a teacher, in words; nothing if it does better than chance, 1 / C, by a tenth of the rest."""
    chance = 1 / about["classes"]
    least = chance + (1 - chance) / 10
    accuracies = {split: about.get(f"teacher_{split}_accuracy") for split in ("validation", "distilled")}
    mixed = {mix_up.images: mix_up for mix_up in Findings.of(about).mix_ups}
    return [
        f"the teacher's accuracy on the {split} images is {value:.1%}, near chance ({chance:.1%})."
        + (f" Classes look mixed up: {mixed[split].words()}" if split in mixed else "")
        for split, value in accuracies.items()
        if value is not None and value < least
    ]


def mistakes_in(about: Mapping[str, Any]) -> list[str]:
    """What is surely wrong with prepared data, apart from a teacher near chance; a sweep on them is refused."""
    findings = Findings.of(about)
    near_chance = [doubt for doubt in doubts_about(about) if "mixed up" in doubt]
    sure = [m for m in findings.mix_ups if m.is_sure and not any(m.words() in doubt for doubt in near_chance)]
    return [
        *(f"classes are mixed up: {mix_up.words()} {_advice(mix_up)}" for mix_up in sure),
        *(
            f"teacher {r.source}: as stated ({r.chosen.words()}) it classifies {_share(r)}, but with {r.best.words()} "
            f"{r.best.accuracy:.1%}; correct what was stated, or leave it out."
            for r in findings.readings
            if r.is_far
        ),
        *_gaps(findings.readings, about, least=LARGE_GAP, most=1.0),
    ]


def remarks_on(about: Mapping[str, Any]) -> list[str]:
    """What somebody who reads results on prepared data must know: doubts, and choices that were made."""
    findings = Findings.of(about)
    return [
        *(f"Classes may be mixed up: {m.words()} {_advice(m)}" for m in findings.mix_ups if not m.is_sure),
        *(text for reading in findings.readings for text in _choices(reading)),
        *_gaps(findings.readings, about, least=SMALL_GAP, most=LARGE_GAP),
        *_repeated(findings.repeats, about),
        *([f"Test of the classes: {findings.class_test}."] if findings.class_test.startswith("cannot tell") else []),
        *([UNTESTED] if "teacher_test_accuracy" not in about and is_from_outside(about.get("distilled")) else []),
    ]


def describe_data(about: Mapping[str, Any]) -> Iterator[str]:
    """What there is: the teacher's accuracies on real and distilled images, what it sees, and what was stated."""
    findings = Findings.of(about)
    splits = {split: about.get(f"teacher_{split}_accuracy") for split in ("validation", "test", "distilled")}
    known = [f"{value:.1%} of the {split} images" for split, value in splits.items() if value is not None]
    if known:
        sees = "; ".join(dict.fromkeys(reading.chosen.words() for reading in findings.readings))
        yield f"The teacher classifies {', '.join(known)} as labelled{f' (it sees {sees})' if sees else ''}."
    if stated := stated_words(findings.stated):
        yield f"Stated of the distilled set: {stated}."


def stated_words(stated: Mapping[str, Any]) -> str:
    """What was stated of a distilled set, in the space or in its sidecar."""
    return ", ".join(f"{key} = {value}" for key, value in stated.items())


def _advice(mix_up: MixUp) -> str:
    where = "data.class_order, or the teacher's own order" if mix_up.images == "validation" else "class_order"
    return f"Check {where}."


def _share(reading: Reading) -> str:
    return f"{reading.chosen.accuracy:.1%} of {reading.images} {reading.split} images"


def _choices(reading: Reading) -> Iterator[str]:
    """What was taken instead of the default, and what would have been better."""
    if reading.chosen != reading.default:
        yield (
            f"Teacher {reading.source} is taken with {reading.chosen.words()}: so it classifies {_share(reading)}, with "
            f"{reading.default.words()} {reading.default.accuracy:.1%}."
        )
    if reading.best != reading.chosen and not reading.is_far:
        yield (
            f"Teacher {reading.source} classifies {_share(reading)} with {reading.chosen.words()}, and "
            f"{reading.best.accuracy:.1%} with {reading.best.words()}, which proves nothing; state teacher.mean, std, "
            "pixel_space, pooling, activation or norm if you know how it was trained."
        )


def _gaps(readings: Sequence[Reading], about: Mapping[str, Any], *, least: float, most: float) -> Iterator[str]:
    """Checkpoints that state a better accuracy than they have here; on test images, or as measured where they are several."""
    for reading in readings:
        here, where = reading.chosen.accuracy, f"{reading.split} images"
        if len(readings) == 1:
            here, where = about["teacher_test_accuracy"], "test images"
        if reading.stated_accuracy is not None and least <= reading.stated_accuracy - here < most:
            yield (
                f"teacher {reading.source}: its file states an accuracy of {reading.stated_accuracy:.1%}, here it "
                f"classifies {here:.1%} of the {where}; check its pixels (teacher.mean, std, pixel_space), its operations "
                "(teacher.pooling, activation, norm) and that these are the data that it was trained on."
            )


def _repeated(repeats: Repeats | None, about: Mapping[str, Any]) -> Iterator[str]:
    """Images that occur in two splits."""
    for key, (what, total, where) in _SPLITS.items() if repeats is not None else ():
        if count := getattr(repeats, key):
            of = f" of {about[total]}" if total else ""
            yield f"{count}{of} {what} are also {where} images, pixel by pixel."
