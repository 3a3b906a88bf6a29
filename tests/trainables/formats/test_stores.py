"""Published label stores are label banks that somebody else computed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.formats.builders import C, write_order, write_store
from trainables.augment import COLUMNS, render
from trainables.formats.inspect import inspect_path
from trainables.formats.stores import open_store, read_store
from trainables.splits import Split

LABELS = torch.arange(C).repeat_interleave(4)
Change = Callable[[list[Any]], Any]


def read(
    root: Path, views: int = 2, permutations: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    store = open_store(root)
    assert store is not None
    return read_store(store, LABELS, 8, views=views, permutations=permutations)


@pytest.mark.parametrize(
    ("extra", "layout"), [("", "fkd6"), ("index", "fkd7-index"), ("weight", "fkd7-weight"), ("patch", "fkd8")]
)
@pytest.mark.parametrize("mix", ["cutmix", "mixup", "none"])
def test_every_layout_is_read(extra: str, layout: str, mix: str, tmp_path: Path) -> None:
    facts = inspect_path(write_store(tmp_path, LABELS, extra=extra, mix=mix))
    assert (facts["kind"], facts["format"], facts["classes"]) == ("labels", layout, 3)
    assert facts["labels"] == {"kind": "logit", "shape": [2, 12, 3]}
    assert bool(facts["problems"]) == (extra == "weight"), "weights that are not applied are said"
    parameters, logits, present = read(tmp_path)
    assert present.all()
    assert torch.equal(logits.argmax(-1), LABELS.expand(2, 12))
    share = parameters[..., COLUMNS.index("share")]
    torch.testing.assert_close(share, torch.full((2, 12), {"cutmix": 0.75, "mixup": 0.75, "none": 1.0}[mix]))


@pytest.mark.parametrize("permutations", [1, 2])
def test_the_order_of_the_sampler_is_found_by_its_agreement_with_the_labels(permutations: int, tmp_path: Path) -> None:
    """Torch >= 1.12 draws a second permutation per epoch; the second epoch tells them apart."""
    write_store(tmp_path, LABELS, epochs=6, permutations=permutations)
    _, logits, _ = read(tmp_path, views=6)
    assert torch.equal(logits.argmax(-1), LABELS.expand(6, 12))
    with pytest.raises(ValueError, match="labels and images agree for"):
        read(tmp_path, views=6, permutations=3 - permutations)


def test_a_listed_order_is_used_and_images_it_leaves_out_are_absent(tmp_path: Path) -> None:
    """LPLD: 12 images, batches of 5, the last batch of each epoch was dropped."""
    orders = {
        str(epoch): torch.randperm(12, generator=torch.Generator().manual_seed(epoch)).tolist() for epoch in (0, 1)
    }
    for epoch, order in orders.items():
        for number in range(2):
            index = torch.tensor(order[5 * number : 5 * number + 5])
            said = 8 * torch.eye(C)[LABELS[index]]
            batch = [torch.full((5, 4), 0.5), torch.zeros(5, dtype=torch.bool), None, None, None, said.half()]
            (tmp_path / f"epoch_{epoch}").mkdir(exist_ok=True)
            torch.save(batch, tmp_path / f"epoch_{epoch}" / f"batch_{number}.tar")
    write_order(tmp_path, orders)
    _, logits, present = read(tmp_path)
    assert present.sum(1).tolist() == [10, 10]
    assert not present[0, orders["0"][10:]].any()
    assert torch.equal(logits[0].argmax(-1)[present[0]], LABELS[present[0]])
    write_order(tmp_path, {"0": orders["0"]})
    with pytest.raises(ValueError, match="epoch 1 is missing"):
        read(tmp_path)


def test_a_view_shows_what_was_labelled(tmp_path: Path) -> None:
    """The crop starts at row 0, column 2 of 8 and has half the height and three quarters of the width; the box of
    rows 0 to 4 and columns 2 to 6 comes from the partner, cropped in the same way."""
    write_store(tmp_path, LABELS, extra="index")
    first = torch.load(tmp_path / "epoch_0" / "batch_0.tar", weights_only=False)
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    parameters, _, _ = read(tmp_path)
    index = first[6]
    seen = render(Split(images, LABELS), parameters[0], index, torch.zeros(3))
    for row, image in enumerate(index):
        for own, rows, columns in ((image, slice(5, 7), slice(3, 5)), (index[first[2][row]], slice(1, 3), slice(3, 5))):
            flipped = bool(first[1][row] if own is image else first[1][first[2][row]])
            crop = images[own][None, :, 0:4, 2:8]
            whole = torch.nn.functional.interpolate(crop, size=(8, 8), mode="bilinear")[0]
            whole = whole.flip(-1) if flipped else whole
            torch.testing.assert_close(seen[row][:, rows, columns], whole[:, rows, columns], atol=1e-5, rtol=0)


def test_labels_of_other_images_are_refused(tmp_path: Path) -> None:
    write_store(tmp_path, LABELS[torch.randperm(12, generator=torch.Generator().manual_seed(3))].roll(1), extra="index")
    store = open_store(tmp_path)
    assert store is not None
    wrong = (LABELS + 1) % 3
    with pytest.raises(ValueError, match="near chance: these are labels of other images"):
        read_store(store, torch.where(torch.arange(12) < 9, wrong, LABELS), 8, views=2)


def _with(number: int, value: Any) -> Change:
    return lambda batch: [*batch[:number], value, *batch[number + 1 :]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with(5, torch.zeros(5, 3, dtype=torch.int64)), r"entry 5 must be logits \(B, C\), floats"),
        (_with(5, torch.full((5, 3), float("nan"))), "NaN or infinite"),
        (_with(0, torch.rand(5, 3)), r"entry 0 must have the shape \(5, 4\)"),
        (_with(1, torch.zeros(4)), r"entry 1 must have the shape \(5,\)"),
        (_with(4, [0, 2, 40, 6]), r"box \[0, 2, 40, 6\] is outside images of 8 pixels"),
        (lambda batch: batch[:5], "a batch of labels is a list of 6 to 8 entries"),
        (lambda batch: {"coords": batch[0]}, "a batch of labels is a list"),
        (lambda batch: [batch[0], batch[1], batch[5]], "the original FKD's per-image file"),
        (
            lambda batch: [*batch, torch.zeros(5, 2, dtype=torch.int16)],
            "entries after the logits that no known store has",
        ),
        (lambda batch: [*batch[:5], batch[5][:, :2]], "3 classes, the first batch has 2"),
    ],
)
def test_a_damaged_batch_is_refused(change: Change, message: str, tmp_path: Path) -> None:
    write_store(tmp_path, LABELS, change=change)
    with pytest.raises(ValueError, match=message) as raised:
        read(tmp_path)
    assert "batch_" in str(raised.value), "the message names the file"


def test_a_truncated_missing_or_flat_batch_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "a", LABELS)
    victim = tmp_path / "a" / "epoch_1" / "batch_1.tar"
    victim.write_bytes(victim.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a readable torch file"):
        read(tmp_path / "a")
    victim.unlink()
    with pytest.raises(ValueError, match=r"batches must be 0, 1, \.\.\."):
        read(tmp_path / "a")
    (tmp_path / "b").mkdir()
    torch.save([0], tmp_path / "b" / "batch_0.tar")
    with pytest.raises(ValueError, match=r"sampler_indices_batch\.json: no such file"):
        inspect_path(tmp_path / "b")
    (tmp_path / "a" / "sampler_indices_epoch.json").write_text("{")
    with pytest.raises(ValueError, match=r"batches must be|not readable as JSON"):
        inspect_path(tmp_path / "a")


def test_a_store_for_more_images_than_the_set_has_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path, LABELS.repeat(2))
    with pytest.raises(ValueError, match="labels more images than the set's 12"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with(0, torch.full((5, 4), 8.0)), "entry 0 must be boxes"),
        (_with(0, torch.full((5, 4), float("nan"))), "entry 0 must be boxes"),
        (_with(2, torch.full((5,), 7)), "entry 2 must be a permutation"),
        (_with(4, [0, 2, 4]), r"entry 4 must be a box"),
    ],
)
def test_augmentation_that_cannot_be_is_refused(change: Change, message: str, tmp_path: Path) -> None:
    write_store(tmp_path, LABELS, change=change)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)
    mixup = write_store(tmp_path / "mixup", LABELS, mix="mixup", change=_with(3, 7.0))
    with pytest.raises(ValueError, match="entry 3 must be the share"):
        read(mixup)


def test_a_missing_epoch_or_batch_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path, LABELS, epochs=3)
    (tmp_path / "epoch_2" / "batch_2.tar").unlink()
    with pytest.raises(ValueError, match="epoch_2: 10 labels, the set has 12 images"):
        read(tmp_path, views=3)
    (tmp_path / "epoch_1").rename(tmp_path / "gone")
    with pytest.raises(ValueError, match="epochs must be 0, 1"):
        read(tmp_path)


def test_an_order_that_is_right_in_the_first_epoch_only_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "a", LABELS, epochs=2)
    write_store(tmp_path / "b", (LABELS + 1) % 3, epochs=2)
    (tmp_path / "a" / "epoch_1").rename(tmp_path / "old")
    (tmp_path / "b" / "epoch_1").rename(tmp_path / "a" / "epoch_1")
    with pytest.raises(ValueError, match="labels and images agree for"):
        read(tmp_path / "a")


def test_labels_of_unmixed_images_are_refused(tmp_path: Path) -> None:
    """One batch of an epoch leaves a quarter of the picture to the image; its labels say the image all the same."""
    write_store(tmp_path, LABELS, extra="index", mix="mixup")
    for path in tmp_path.rglob("batch_*.tar"):
        batch = torch.load(path, weights_only=False)
        own = 8.0 * torch.eye(C)[LABELS[batch[6]]]
        share = 0.25 if path.stem == "batch_0" else 0.75
        torch.save([*batch[:3], share, None, own.half(), batch[6]], path)
    with pytest.raises(ValueError, match="its labels belong to the unmixed images"):
        read(tmp_path)


@pytest.mark.parametrize(("change", "kind"), [("softmax", "prob"), ("log_softmax", "logprob")])
def test_probabilities_in_a_store_are_no_logits(change: str, kind: str, tmp_path: Path) -> None:
    write_store(tmp_path, LABELS, extra="index")
    expected = read(tmp_path)[1].float().log_softmax(-1)
    for path in tmp_path.rglob("batch_*.tar"):
        batch = torch.load(path, weights_only=False)
        torch.save([*batch[:5], getattr(batch[5].float(), change)(1).half(), batch[6]], path)
    facts = inspect_path(tmp_path)
    assert facts["labels"]["kind"] == kind
    assert any("labels are" in problem for problem in facts["problems"])
    torch.testing.assert_close(read(tmp_path)[1].float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    ("extra", "name"),
    [("", "SRe2L, CDA, D4M, CV-DD, FADRM"), ("index", "G-VBSM"), ("weight", "WMDD"), ("patch", "EDC")],
)
def test_a_store_is_named_as_its_makers(extra: str, name: str, tmp_path: Path) -> None:
    assert inspect_path(write_store(tmp_path, LABELS, extra=extra))["details"]["made_by"] == name


def write_quantised(root: Path, *, k: int = 2, shares: bool = False) -> torch.Tensor:
    """LPQLD's layout: two epochs of 12 images in batches of 5, flat; the logits that were cut, by image (2, 12, C)."""
    write_store(root / "whole", LABELS, extra="index")
    listed, said = {}, torch.zeros(2, 12, C)
    for number, path in enumerate(sorted((root / "whole").rglob("batch_*.tar"))):
        batch = torch.load(path, weights_only=False)
        values, classes = (batch[5].float().softmax(1) if shares else batch[5].float()).topk(k, dim=1)
        box = [torch.tensor(int(v), dtype=torch.uint8) for v in batch[4]]
        entries = [batch[0].half(), batch[1], batch[2].to(torch.uint8), batch[3], box, values.half(), classes.short()]
        torch.save(entries, root / f"batch_{number}.tar")
        listed[str(number)] = batch[6].tolist()
        said[int(path.parent.name[-1]), batch[6]] = batch[5].float()
    (root / "sampler_indices_batch.json").write_text(json.dumps(listed))
    shutil.rmtree(root / "whole")
    return said


@pytest.mark.parametrize("shares", [False, True])
def test_quantised_labels_are_a_softmax_over_their_largest_classes(shares: bool, tmp_path: Path) -> None:
    whole = write_quantised(tmp_path, shares=shares)
    facts = inspect_path(tmp_path)
    assert (facts["format"], facts["details"]["made_by"], facts["details"]["epochs"]) == ("fkd-topk", "LPQLD", 2)
    store = open_store(tmp_path, C)
    assert store is not None
    _, logits, present = read_store(store, LABELS, 8, views=2)
    assert present.all()
    kept = torch.full_like(whole, -torch.inf).scatter(-1, whole.topk(2).indices, whole.topk(2).values)
    torch.testing.assert_close(logits.float().softmax(-1), kept.softmax(-1), atol=3e-3, rtol=0)


def test_damaged_quantised_stores_are_refused(tmp_path: Path) -> None:
    write_quantised(tmp_path)
    with pytest.raises(ValueError, match="there are 2 classes"):
        read_store(open_store(tmp_path, 2), LABELS.clamp_max(1), 8, views=1)  # type: ignore[arg-type]
    batch = torch.load(tmp_path / "batch_0.tar", weights_only=False)
    torch.save([*batch[:2], 3, *batch[2:]], tmp_path / "batch_0.tar")
    with pytest.raises(ValueError, match="under random augmentation"):
        inspect_path(tmp_path)
    torch.save([*batch[:6], batch[6][:, :1]], tmp_path / "batch_0.tar")
    with pytest.raises(ValueError, match="entries 5 and 6 must be the largest logits and their classes"):
        inspect_path(tmp_path)
    (tmp_path / "sampler_indices_batch.json").write_text('{"0": [1]}')
    with pytest.raises(ValueError, match="batch 1 is missing"):
        inspect_path(tmp_path)
