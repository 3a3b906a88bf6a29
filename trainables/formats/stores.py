"""Published label stores (FKD): teacher logits for every image of every epoch, with the augmentation they belong to.

A store is a label bank that somebody else computed: each stored epoch becomes a view. Layout:
`epoch_E/batch_B.tar`, a torch file [coords, flip, mix_index, mix_lam, mix_bbox, logits, ...]; 6 entries (SRe2L, CDA,
D4M, CV-DD, FADRM, LPLD), 7 with image indices (G-VBSM) or sample weights (WMDD), 8 (EDC). LPQLD's are in `topk`. Entry 5
may hold probabilities or their logarithms, which its values tell.

Source: Shen and Xing 2022, arXiv:2112.01528 (FKD); Yin et al. 2023, arXiv:2306.13092 (SRe2L).
Differs: crops are resampled bilinearly without antialiasing, which differs where a crop is larger than the output.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from trainables.augment import COLUMNS, identity_rows
from trainables.formats.found import Found
from trainables.formats.kinds import as_kind, kind_of_rows
from trainables.formats.topk import ORDER, as_full_batch, read_order, spread_over_classes, views_of
from trainables.models import safe_load

SAMPLER_SEED: Final = 42
Stored = tuple[Tensor, Tensor, Tensor]
#: Whose stores have which layout.
_MADE_BY: Final = {
    "fkd6": "SRe2L, CDA, D4M, CV-DD, FADRM",
    "fkd7-index": "G-VBSM",
    "fkd7-weight": "WMDD",
    "fkd8": "EDC",
    "fkd-topk": "LPQLD",
}
_UNKNOWN: Final = "entries after the logits that no known store has (G-VBSM, WMDD, EDC and LPQLD are read)"


@dataclass(frozen=True)
class LabelStore:
    """Batches of stored epochs.

    Attributes:
        root: Folder.
        epochs: Files of each stored epoch, in order.
        layout: "fkd6", "fkd7-index", "fkd7-weight", "fkd8" or "fkd-topk".
        batch_size: Of every batch but an epoch's last.
        classes: C.
        order: Image indices by epoch where a file tells them (LPLD, LPQLD).
        label_kind: Of the first batch: "logit", "prob" or "logprob"; None if its values cannot tell.
    """

    root: Path
    epochs: tuple[tuple[Path, ...], ...]
    layout: str
    batch_size: int
    classes: int
    order: dict[str, list[int]] | None
    label_kind: str | None = "logit"

    @cached_property
    def images(self) -> int:
        """Labels in the first epoch."""
        last = _read_batch(self.epochs[0][-1], self.classes)
        return self.batch_size * (len(self.epochs[0]) - 1) + len(last[5])


def open_store(root: Path, classes: int | None = None) -> LabelStore | None:
    """The label store in a folder, None if there is none.

    Args:
        root: Folder.
        classes: C, which quantised labels do not tell; None takes the largest class of their first batches.

    Raises:
        ValueError: If it is damaged or of a kind that is refused.
    """
    folders = sorted(root.glob("epoch_*"), key=lambda path: _number(path.name))
    if not folders:
        return _open_quantised(root, classes) if any(root.glob("batch_*.tar")) else None
    if [_number(path.name) for path in folders] != list(range(len(folders))):
        raise ValueError(f"{root}: epochs must be 0, 1, ...; got {[path.name for path in folders][:5]}.")
    epochs = tuple(tuple(sorted(path.glob("batch_*.tar"), key=lambda p: _number(p.name))) for path in folders)
    for folder, files in zip(folders, epochs, strict=True):
        if [_number(path.name) for path in files] != list(range(len(files))) or not files:
            raise ValueError(f"{folder}: batches must be 0, 1, ...; got {[path.name for path in files][:5]}.")
    first = _read_batch(epochs[0][0], None)
    listed = root / "sampler_indices_epoch.json"
    order = read_order(listed) if listed.is_file() else None
    layout, kind = _layout(first, epochs[0][0]), kind_of_rows(first[5], may_be_learned=False).kind
    return LabelStore(root, epochs, layout, len(first[5]), first[5].shape[1], order, kind)


def _open_quantised(root: Path, classes: int | None) -> LabelStore:
    """LPQLD's store."""
    views, order = views_of(root)
    parts = [_read_batch(file, None) for file in views[0][:20]]
    seen = 1 + max(int(batch[6].max()) for batch in parts)
    return LabelStore(root, views, "fkd-topk", len(parts[0][5]), classes or seen, order, "logprob")


def recognise_store(root: Path) -> Found | None:
    """A label store as `inspect` shows it."""
    store = open_store(root)
    if store is None:
        return None
    weights = ("its sample weights are not applied.",) * (store.layout == "fkd7-weight")
    made_by = "LPLD" if store.layout == "fkd6" and store.order is not None else _MADE_BY[store.layout]
    details = {"epochs": len(store.epochs), "batch_size": store.batch_size, "images": store.images, "made_by": made_by}
    return Found(
        kind="labels",
        format=store.layout,
        label_kind=store.label_kind,
        classes=store.classes,
        problems=(*weights, *doubts_about_store(store)),
        details=details | {"order": "listed" if _tells_order(store) else "seed 42 of a random sampler"},
    )


def doubts_about_store(store: LabelStore) -> list[str]:
    """What is doubtful about the labels, in sentences."""
    if store.layout == "fkd-topk":
        return ["labels are cut to their largest classes, the others have probability 0."]
    said = {
        "prob": ["labels are probabilities; their logarithms are taken."],
        "logprob": ["labels are logarithms of probabilities."],
        "logit": [],
    }
    return said.get(str(store.label_kind), ["labels may be logits or probabilities; the values do not tell."])


def read_store(store: LabelStore, hard: Tensor, size: int, *, views: int, permutations: int | None = None) -> Stored:
    """The first stored epochs as views.

    Args:
        store: What to read.
        hard: (N,) labels of the images, in ImageFolder's order of their files.
        size: Side of the images that were labelled, pixels.
        views: V, at most the stored epochs.
        permutations: Random permutations that the sampler drew per epoch: 2 (torch >= 1.12) or 1; None tries both and
            takes the one under which labels and images agree. Needed only where no file tells the order.

    Returns:
        Parameters (V, N, len(COLUMNS)); logits (V, N, C), float16; which images each epoch has, (V, N) bool.

    Raises:
        ValueError: If a batch is damaged, or labels do not belong to these images.
    """
    if store.label_kind is None:
        raise ValueError(f"{store.root}: its labels may be logits or probabilities, which their values do not tell.")
    if _tells_order(store):
        permutations = 0
    elif permutations is None:  # the first epoch is the same under both, so two are looked at
        permutations = max(
            (2, 1), key=lambda number: _agreement(hard, _read_views(store, hard, size, min(views, 2), number))
        )
    return _require_agreement(store, hard, _read_views(store, hard, size, views, permutations))


def _read_views(store: LabelStore, hard: Tensor, size: int, views: int, permutations: int) -> Stored:
    n = len(hard)
    parameters = torch.stack([torch.stack([identity_rows(n)[c] for c in COLUMNS], dim=1)] * views)
    logits = torch.zeros(views, n, store.classes, dtype=torch.float16)
    present = torch.zeros(views, n, dtype=torch.bool)
    shuffled = _sampler_orders(n, permutations) if permutations else None
    for view, files in enumerate(store.epochs[:views]):
        order = next(shuffled) if shuffled else _listed_order(store, view, n)
        first = 0
        for file in files:
            batch = _read_batch(file, store.classes)
            count = len(batch[5])
            said = _as_logits(batch, store, file)
            index = batch[6].long() if _has_index(store) else order[first : first + count]
            if len(index) != count or int(index.max()) >= n:
                raise ValueError(f"{file}: labels more images than the set's {n}.")
            parameters[view, index] = _rows(batch, index, size, file)
            logits[view, index] = said.half()
            present[view, index] = True
            first += count
        if first != n and store.order is None:
            raise ValueError(f"{files[0].parent}: {first} labels, the set has {n} images.")
    return parameters, logits, present


def _as_logits(batch: list[Any], store: LabelStore, file: Path) -> Tensor:
    """Entry 5 as logits (B, C); probabilities enter as log p (floor 1e-8)."""
    if store.layout == "fkd-topk":
        return spread_over_classes(batch[5], batch[6], store.classes, file)
    said: Tensor = batch[5]
    return as_kind(said, "prob").clamp_min(1e-8).log() if store.label_kind == "prob" else said


def _rows(batch: list[Any], index: Tensor, size: int, file: Path) -> Tensor:
    """A batch's augmentation as rows of a view's table."""
    rows = identity_rows(len(index))
    top, left, height, width = batch[0].float().unbind(dim=1)
    rows |= {"scale_x": width, "scale_y": height, "shift_x": left + width / 2 - 0.5, "shift_y": top + height / 2 - 0.5}
    rows |= {"flip": batch[1].float(), "inside": torch.ones(len(index))}
    if batch[2] is not None:
        rows["partner"] = index[batch[2].long()].float()
        rows |= _mixing(batch, size, len(index), file)
    return torch.stack([rows[name] for name in COLUMNS], dim=1)


def _mixing(batch: list[Any], size: int, count: int, file: Path) -> dict[str, Tensor]:
    """The share, and CutMix's box: its x counts rows, as `img[:, :, x1:x2, y1:y2]` does."""
    if batch[4] is None:
        values = {"share": float(batch[3])}
    else:
        x1, y1, x2, y2 = (int(number) for number in batch[4])
        if not 0 <= x1 <= x2 <= size or not 0 <= y1 <= y2 <= size:
            raise ValueError(f"{file}: its box {[x1, y1, x2, y2]} is outside images of {size} pixels.")
        box = {"box_x": y1 / size, "box_y": x1 / size, "box_w": (y2 - y1) / size, "box_h": (x2 - x1) / size}
        values = box | {"share": 1 - box["box_w"] * box["box_h"]}
    return {name: torch.full((count,), value) for name, value in values.items()}


def _sampler_orders(n: int, permutations: int) -> Iterator[Tensor]:
    """Torch's RandomSampler under seed 42, epoch after epoch; its later versions draw a second, unused permutation."""
    generator = torch.Generator().manual_seed(SAMPLER_SEED)
    while True:
        yield torch.randperm(n, generator=generator)
        for _ in range(permutations - 1):
            torch.randperm(n, generator=generator)


def _listed_order(store: LabelStore, view: int, n: int) -> Tensor:
    if store.order is None:
        return torch.arange(n)
    if str(view) not in store.order:
        raise ValueError(f"{store.root}/sampler_indices_epoch.json: epoch {view} is missing.")
    return torch.tensor(store.order[str(view)])


def _agreement(hard: Tensor, found: Stored) -> float:
    """Of the worst epoch: share of labels whose largest logit is the class of the image that fills most of the picture."""
    parameters, logits, present = found
    share, partner = parameters[..., COLUMNS.index("share")], parameters[..., COLUMNS.index("partner")].long()
    main = torch.where(share >= 0.5, hard.expand_as(share), hard[partner])
    right = (logits.argmax(dim=-1) == main) & present
    return float((right.sum(dim=1) / present.sum(dim=1)).min())


def _labels_unmixed(hard: Tensor, found: Stored) -> bool:
    """Where most of the picture is the partner, labels that say the image itself belong to unmixed images."""
    parameters, logits, present = found
    share, partner = parameters[..., COLUMNS.index("share")], parameters[..., COLUMNS.index("partner")].long()
    told_apart = present & (share < 0.5) & (hard[partner] != hard)
    said = logits.argmax(dim=-1)
    own = (said == hard)[told_apart].float().mean()
    return bool(told_apart.any() and own > (said == hard[partner])[told_apart].float().mean())


def _least_agreement(classes: int) -> float:
    """Chance and a tenth of the rest: a teacher is far above, a wrong order is not."""
    return 1 / classes + (1 - 1 / classes) / 10


def _require_agreement(store: LabelStore, hard: Tensor, found: Stored) -> Stored:
    agreement = _agreement(hard, found)
    if agreement <= _least_agreement(store.classes):
        raise ValueError(
            f"{store.root}: labels and images agree for {agreement:.1%}, near chance: these are labels of other images, "
            "of another order, or the class order differs."
        )
    if _labels_unmixed(hard, found):
        raise ValueError(
            f"{store.root}: its labels belong to the unmixed images (as CV-DD's and G-VBSM's under MixUp do), but images "
            "are mixed in training; such stores are not supported."
        )
    return found


def _has_index(store: LabelStore) -> bool:
    return store.layout in ("fkd7-index", "fkd8")


def _tells_order(store: LabelStore) -> bool:
    return _has_index(store) or store.order is not None


def _layout(batch: list[Any], file: Path) -> str:
    extra = [(entry.dtype, entry.ndim) if isinstance(entry, Tensor) else None for entry in batch[6:]]
    known: dict[tuple[Any, ...], str] = {
        (): "fkd6",
        ((torch.int64, 1),): "fkd7-index",
        ((torch.float64, 1),): "fkd7-weight",
        ((torch.float32, 1),): "fkd7-weight",
        ((torch.int64, 1), (torch.int64, 3)): "fkd8",
    }
    if (layout := known.get(tuple(extra))) is None:
        raise ValueError(f"{file}: {_UNKNOWN}.")
    return layout


def _read_batch(file: Path, classes: int | None) -> list[Any]:
    """One batch, its entries checked."""
    batch = safe_load(file)
    if isinstance(batch, list) and len(batch) == 3:
        raise ValueError(f"{file}: the original FKD's per-image file; stores per batch (SRe2L) are read.")
    if not isinstance(batch, list) or not 6 <= len(batch) <= 8:
        raise ValueError(f"{file}: a batch of labels is a list of 6 to 8 entries, got {type(batch).__name__}.")
    is_quantised = (file.parent / ORDER).is_file()
    if is_quantised:
        batch = as_full_batch(batch, file)
    logits = batch[5]
    if not isinstance(logits, Tensor) or logits.ndim != 2 or not logits.is_floating_point():
        raise ValueError(f"{file}: entry 5 must be logits (B, C), floats.")
    if classes is not None and logits.shape[1] != classes and not is_quantised:
        raise ValueError(f"{file}: {logits.shape[1]} classes, the first batch has {classes}.")
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(f"{file}: logits that are NaN or infinite.")
    shapes = {0: (len(logits), 4), 1: (len(logits),)} | ({2: (len(logits),)} if batch[2] is not None else {})
    for number, shape in shapes.items():
        if not isinstance(batch[number], Tensor) or tuple(batch[number].shape) != shape:
            raise ValueError(f"{file}: entry {number} must have the shape {shape}.")
    _require_augmentation(batch, file)
    return batch


def _require_augmentation(batch: list[Any], file: Path) -> None:
    """Crops are boxes inside the image in fractions of its side; partners are in the batch; shares are shares."""
    coords, partners, share, box = batch[0].float(), batch[2], batch[3], batch[4]
    ends = coords[:, :2] + coords[:, 2:]
    if not bool((coords >= 0).all() and (ends <= 1 + 1e-3).all() and (coords[:, 2:] > 0).all()):
        raise ValueError(f"{file}: entry 0 must be boxes (top, left, height, width) inside the image, 0 to 1.")
    if partners is None:
        return
    if not 0 <= int(partners.min()) <= int(partners.max()) < len(partners):
        raise ValueError(f"{file}: entry 2 must be a permutation of the batch.")
    if box is None and not (isinstance(share, float | int) and 0 <= share <= 1):
        raise ValueError(f"{file}: entry 3 must be the share of an image in its mix, 0 to 1, got {share!r}.")
    if box is not None and len(box) != 4:
        raise ValueError(f"{file}: entry 4 must be a box [x1, y1, x2, y2], got {box!r}.")


def _number(name: str) -> int:
    match = re.search(r"(\d+)", name)
    return int(match[1]) if match else -1
