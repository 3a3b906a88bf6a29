"""What is found out about prepared data before anything is trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from trainables.data.classes import find_mix_ups
from trainables.data.real import RealData
from trainables.data.repeats import count_repeats
from trainables.findings import Findings, MixUp
from trainables.prepare.teacher import AboutTeacher
from trainables.splits import Split


def find_out(
    recipe: Mapping[str, Any], real: RealData, distilled: Split, about: AboutTeacher, counts: np.ndarray | None
) -> Findings:
    """Mixed-up classes, images in several splits, and what was stated.

    Args:
        recipe: Of the data.
        real: Real data.
        distilled: The distilled set as students see it.
        about: What is known of the teacher.
        counts: (C, C) distilled images by label and by what the teacher says; None without one.
    """
    mix_ups, class_test = _test_classes(real, about, counts)
    return Findings(
        readings=about.readings,
        mix_ups=tuple(mix_ups),
        repeats=count_repeats(real, _comparable(real, distilled)),
        stated=recipe["data"]["distilled"].get("stated", {}),
        class_test=class_test,
    )


def _test_classes(real: RealData, about: AboutTeacher, counts: np.ndarray | None) -> tuple[list[MixUp], str]:
    """The teacher's classes against the real ones, and the distilled set's against both."""
    if counts is None or about.confusion is None:
        return [], "there is no teacher to test the classes with"
    of_real, real_test = find_mix_ups(about.confusion, None, real.names, images="validation")
    # A teacher with mixed-up classes says nothing of the distilled set that has not been said.
    reference = None if of_real else about.confusion
    of_set, test = find_mix_ups(counts, reference, real.names, images="distilled")
    return [*of_real, *of_set], real_test if of_real else test


def _comparable(real: RealData, distilled: Split) -> Split | None:
    """With the constants that its pixels were normalised with; None for whitened floats."""
    if distilled.images.dtype == torch.uint8:
        return distilled
    return None if real.test.whitening is not None else replace(distilled, mean=real.mean, std=real.std)
