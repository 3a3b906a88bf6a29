"""What was recognised, and what a file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.data.decode import decode_files
from trainables.data.survey import Survey, survey_images
from trainables.sidecar import OF_NAMED_FOLDERS, STATED


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """Image files not decoded yet.

    Attributes:
        root: Folder.
        files: (path below root, index into `names`).
        names: Class folders.
        numbered: The folders' names are the labels.
    """

    root: Path
    files: tuple[tuple[str, int], ...]
    names: tuple[str, ...]
    numbered: bool

    def decode(self, index: np.ndarray, size: int | None) -> Tensor:
        """Some images, uint8 (n, channels, size, size); None keeps the size of the first."""
        chosen = [self.files[i] for i in index]
        return torch.from_numpy(decode_files(self.root, chosen, size, self.survey(index)))

    def survey(self, index: np.ndarray) -> Survey:
        """What some images have in common; of images with more than 8 bits, what all have."""
        survey = survey_images(self.root, [self.files[i] for i in index])
        return survey_images(self.root, self.files) if survey.deep and len(index) < len(self.files) else survey


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a path was recognised as.

    Attributes:
        kind: "distilled", "labels", "checkpoint", or "real" (images for `data.real`).
        format: A word for the layout, such as "gift" or "fkd".
        images: (N, channels, H, W) float or uint8, or files; None where there are none.
        hard: (N,) labels.
        soft: (N, C) labels that came with the images.
        label_kind: Of `soft`, where the content proves it; see `trainables.formats.kinds`.
        classes: C, where the content tells it.
        pixel_space: Where the format fixes it: "uint8", "raw01", "meanstd" or "zca".
        asks: Keys of STATED that the user must give before the set can be used.
        problems: What is doubtful or wrong, in sentences.
        remarks: What was decided about the content and should be known, in sentences.
        details: Further facts for `inspect`.
        file: Of the images, where a folder was given.
    """

    kind: str
    format: str
    images: Tensor | ImageFiles | None = None
    hard: Tensor | None = None
    soft: Tensor | None = None
    label_kind: str | None = None
    classes: int | None = None
    pixel_space: str | None = None
    asks: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None


def asking(found: Found, missing: Sequence[str], path: Path) -> str:
    """The sentence that asks for what nobody stated, with what may be stated of this set."""
    is_named = isinstance(found.images, ImageFiles) and not found.images.numbered
    allowed = STATED | ({"class_order": OF_NAMED_FOLDERS} if is_named else {})
    why = (
        " ".join(remark for remark in found.remarks if "state label_kind" in remark) if "label_kind" in missing else ""
    )
    what = "; ".join(f"{key}: {allowed[key]}" for key in missing)
    said = f"{path}: recognised as {found.format}, which cannot tell everything; state {what}."
    return f"{said} {why[:1].upper()}{why[1:]}" if why else said
