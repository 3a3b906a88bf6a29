"""What was found out about data is said in plan, run and report, and refused where it is surely wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.judgement import describe_data, doubts_about, mistakes_in, remarks_on
from trainables.findings import Candidate, Findings, MixUp, Reading, Repeats

SWAP = MixUp("distilled", ("bee", "eel"), ("eel", "bee"), (9, 10), (10, 10), is_sure=True)
PLAIN = Candidate("the training images' own mean and std", {"pooling": "avg"}, 0.591)
MAX = Candidate("the training images' own mean and std", {"pooling": "max"}, 0.679)
READING = Reading("net.pt", chosen=PLAIN, default=PLAIN, best=PLAIN, is_far=False, images=1000, split="training")


def about(**found: Any) -> dict[str, Any]:
    facts = {"classes": 10, "n_distilled": 100, "n_validation": 50, "findings": Findings(**found).as_dict()}
    accuracies = {"validation": 0.7, "test": 0.6, "distilled": 0.8}
    return facts | {f"teacher_{split}_accuracy": value for split, value in accuracies.items()}


def test_findings_come_back_from_json_as_they_were() -> None:
    findings = Findings((READING,), (SWAP,), Repeats(train_in_test=3), {"pixel_space": "zca"}, "failed")
    assert Findings.of({"findings": findings.as_dict()}) == findings
    assert Findings.of({}) == Findings()


def test_exchanged_classes_are_a_mistake_if_sure_and_a_remark_if_not() -> None:
    sure, unsure = about(mix_ups=(SWAP,)), about(mix_ups=(replace(SWAP, is_sure=False),))
    (text,) = mistakes_in(sure)
    assert "labelled bee look like eel to the teacher (9 of 10)" in text
    assert mistakes_in(unsure) == []
    assert remarks_on(unsure)[0].startswith("Classes may be mixed up: distilled images labelled bee")


def test_near_chance_names_the_exchanged_classes_once() -> None:
    found = about(mix_ups=(SWAP,)) | {"teacher_distilled_accuracy": 0.05}
    (text,) = doubts_about(found)
    assert "near chance (10.0%). Classes look mixed up: distilled images labelled bee" in text
    assert mistakes_in(found) == []


def test_what_was_stated_is_a_mistake_where_another_reading_is_far_better() -> None:
    (text,) = mistakes_in(about(readings=(replace(READING, best=MAX, is_far=True),)))
    assert "as stated" in text
    assert "59.1% of 1000 training images, but with" in text
    assert "pooling max 67.9%" in text


def test_a_choice_and_a_better_reading_that_proves_nothing_are_remarks() -> None:
    chosen = remarks_on(about(readings=(replace(READING, chosen=MAX, best=MAX),)))
    assert "is taken with the training images' own mean and std, pooling max" in chosen[0]
    better = remarks_on(about(readings=(replace(READING, best=MAX),)))
    assert "which proves nothing; state teacher.mean" in better[0]


def test_a_file_that_states_a_better_accuracy_is_a_mistake_or_a_remark_by_the_gap() -> None:
    for stated, mistakes, remarks in ((0.95, 1, 0), (0.65, 0, 1), (0.61, 0, 0), (0.3, 0, 0)):
        found = about(readings=(replace(READING, stated_accuracy=stated),))
        assert (len(mistakes_in(found)), len(remarks_on(found))) == (mistakes, remarks), stated


def test_images_in_two_splits_and_stated_keys_are_said() -> None:
    found = about(repeats=Repeats(distilled_in_test=12, train_in_test=2), stated={"pixel_space": "zca"})
    assert remarks_on(found) == [
        "12 of 100 distilled images are also test images, pixel by pixel.",
        "2 training images are also test images, pixel by pixel.",
    ]
    assert list(describe_data(found)) == [
        "The teacher classifies 70.0% of the validation images, 60.0% of the test images, 80.0% of the distilled images as labelled.",
        "Stated of the distilled set: pixel_space = zca.",
    ]
