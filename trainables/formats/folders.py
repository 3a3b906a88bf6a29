"""Distilled sets as folders of images, one folder per class.

Layouts: RDED (`syn_data/00000/class00000_id00000.jpg`), SRe2L, CDA, G-VBSM, EDC, CV-DD, LPLD (`new000/class000_id000.jpg`),
D4M (`0/0-image00.png`), Minimax and other generated sets (`n02096294/0.png` or any names).
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Final

import torch

from trainables.formats.found import Found, ImageFiles
from trainables.trees import class_folders, image_names, passed_over

#: Name of the layout by what every class folder is called, tried in this order; the number in it is the label.
_NUMBERED: Final = {"sre2l": r"new(\d{3,5})", "rded": r"(\d{5})", "numbered": r"(\d{1,4})"}
_FILE: Final = re.compile(r"class(\d+)_id(\d+)\.\w+")


def recognise_folder(folder: Path) -> Found | None:
    """A distilled set as class folders of images, None if there are none.

    Raises:
        ValueError: If labels are not 0 .. C - 1, a file says another class than its folder, or a class has no images.
    """
    names = class_folders(folder)
    if "syn_data" in names:
        return recognise_folder(folder / "syn_data")
    names = [name for name in names if image_names(folder / name) or re.fullmatch(r"(new)?\d+|n\d{8}", name)]
    if not any(image_names(folder / name) for name in names):
        return None
    if len(names) < 2:
        raise ValueError(f"{folder}: a distilled set has at least 2 class folders, got {names}.")
    for layout, pattern in _NUMBERED.items():
        if all(re.fullmatch(pattern, name) for name in names):
            return _numbered(folder, layout, pattern, names)
    layout = "wnid" if all(re.fullmatch(r"n\d{8}", name) for name in names) else "folders"
    return _found(folder, layout, tuple(names), numbered=False)


def _numbered(folder: Path, layout: str, pattern: str, names: list[str]) -> Found:
    """Folders whose names are the labels; unpadded numbers count as numbers, never as text. Without 0 they are names."""

    def number(name: str) -> int:
        match = re.fullmatch(pattern, name)
        assert match
        return int(match[1])

    ordered = tuple(sorted(names, key=number))
    if (
        layout != "sre2l" and len({0, *map(number, names)}) == len(names) + 1
    ):  # without 0: real classes may have these names
        return _found(folder, "folders", ordered, numbered=False)
    if [number(name) for name in ordered] != list(range(len(ordered))):
        numbers = [number(name) for name in ordered]
        missing = sorted(set(range(numbers[-1] + 1)) - set(numbers))
        twice = sorted({n for n in numbers if numbers.count(n) > 1})
        what = f"missing: {missing[:5]}" if missing else f"twice: {twice[:5]}"
        raise ValueError(f"{folder}: class folders must be 0 to C - 1; {what}, there are {len(names)}.")
    return _found(folder, layout, ordered, numbered=True)


def _found(folder: Path, layout: str, names: tuple[str, ...], *, numbered: bool) -> Found:
    files = [(f"{name}/{file}", label) for label, name in enumerate(names) for file in image_names(folder / name)]
    counts = Counter(label for _, label in files)
    for label, name in enumerate(names):
        if not counts[label]:
            raise ValueError(f"{folder}: no images in {name}.")
    if numbered:
        _require_agreement(folder, files)
    problems = [] if len(set(counts.values())) == 1 else [f"classes have {_spread(counts)} images; sets are balanced."]
    return Found(
        kind="distilled",
        format=layout,
        images=ImageFiles(folder, tuple(files), names, numbered),
        hard=torch.tensor([label for _, label in files]),
        classes=len(names),
        pixel_space="uint8",
        asks=() if numbered else ("class_order",),
        problems=(*problems, *passed_over([folder / name for name in names])),
    )


def _spread(counts: Counter[int]) -> str:
    return f"{min(counts.values())} to {max(counts.values())}"


def _require_agreement(folder: Path, files: list[tuple[str, int]]) -> None:
    """A class number in a file's name is the folder's."""
    for path, label in files:
        match = _FILE.fullmatch(Path(path).name)
        if match and int(match[1]) != label:
            raise ValueError(f"{folder}: {path} says class {int(match[1])}, its folder says {label}.")
