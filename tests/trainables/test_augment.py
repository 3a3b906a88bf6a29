"""Views: rows of parameters that make the same pixels whenever they are applied."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from trainables.augment import COLUMNS, Augmentation, augment, identity_rows, mix_labels, mixes, render
from trainables.names import DSA_OPERATIONS
from trainables.seeding import make_generator
from trainables.splits import Split

IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
BLANK = torch.zeros(3)
ALL = torch.arange(4)


def rows(n: int = 4, **changed: float) -> torch.Tensor:
    """Rows that leave n images as they are, but for the columns given."""
    made = identity_rows(n) | {name: torch.full((n,), value) for name, value in changed.items()}
    return torch.stack([made[name] for name in COLUMNS], dim=1)


def drawn(augmentation: Augmentation, n: int = 300, size: int = 8) -> dict[str, torch.Tensor]:
    view = augmentation.draw(n, size, make_generator("test", 0))
    return dict(zip(COLUMNS, view.unbind(dim=1), strict=True))


def acting(p: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Which images each operation of DSA changes."""
    return {
        "crop": (p["shift_x"] != 0) | (p["shift_y"] != 0),
        "scale": (p["scale_x"] != 1) | (p["scale_y"] != 1),
        "rotate": p["angle"] != 0,
        "color": (p["brightness"] != 0) & (p["saturation"] != 1) & (p["contrast"] != 1),
        "cutout": p["cut_side"] > 0,
        "flip": p["flip"] == 1,
    }


def test_identity_rows_change_no_bit() -> None:
    assert torch.equal(augment(IMAGES, rows(), BLANK), IMAGES)
    assert torch.equal(drawn(Augmentation("none", flips=True))["share"], torch.ones(300))


def test_a_neutral_sampling_grid_changes_nothing() -> None:
    """The rows act (a cutout of one pixel far outside), so the images go through the whole pipeline."""
    torch.testing.assert_close(augment(IMAGES, rows(cut_x=9.0, cut_side=0.1), BLANK), IMAGES)


def test_flip_mirrors() -> None:
    torch.testing.assert_close(augment(IMAGES, rows(flip=1.0), BLANK), IMAGES.flip(-1))


@pytest.mark.parametrize("kind", ["dsa", "rrc", "color_crop_cutout_flip_scale_rotate"])
def test_nothing_is_flipped_where_classes_have_a_handedness(kind: str) -> None:
    assert drawn(Augmentation(kind, flips=True))["flip"].any()
    assert not drawn(Augmentation(kind, flips=False))["flip"].any()


def test_shift_moves_pixels_and_fills_with_background() -> None:
    """A shift of 1/8 of 8 pixels moves by one pixel; what moves in is background."""
    moved = augment(IMAGES, rows(shift_x=1 / 8), BLANK + 7)
    torch.testing.assert_close(moved[..., :-1], IMAGES[..., 1:])
    torch.testing.assert_close(moved[..., -1], torch.full((4, 3, 8), 7.0))


def test_cutout_blanks_a_square_of_half_the_side() -> None:
    cut = augment(IMAGES, rows(cut_side=0.5), BLANK - 1)
    assert (cut[:, :, 2:6, 2:6] == -1).all()
    assert (cut == -1).sum() == 4 * 3 * 16


def test_colour_changes_by_hand() -> None:
    """Brightness is added; saturation 0 makes grey; contrast 1/2 halves the distance to the image mean."""
    torch.testing.assert_close(augment(IMAGES, rows(brightness=0.4), BLANK), IMAGES + 0.4)
    grey = augment(IMAGES, rows(saturation=0.0), BLANK)
    torch.testing.assert_close(grey, IMAGES.mean(1, keepdim=True).expand_as(IMAGES))
    mean = IMAGES.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(augment(IMAGES, rows(contrast=0.5), BLANK), mean + (IMAGES - mean) / 2)


def test_dsa_acts_as_gifts_evaluation_does() -> None:
    """Colour and cutout on every image, one of crop, scale and rotate on each, half of them flipped."""
    p = drawn(Augmentation("dsa", flips=True))
    acts = acting(p)
    assert acts["color"].all()
    assert acts["cutout"].all()
    kinds = torch.stack([acts["crop"], acts["scale"], acts["rotate"]])
    assert kinds.sum(0).max() == 1
    assert (kinds.sum(0) == 1).float().mean() > 0.9, "a crop may move by no pixel"
    assert (kinds.sum(1) > 60).all()
    pixels = 8 * torch.stack([p["shift_x"], p["shift_y"]])
    assert pixels.unique().tolist() == [-1, 0, 1], "an eighth of 8 pixels, whole pixels only"
    assert p["angle"].abs().max() <= math.radians(15)
    assert 100 < acts["flip"].sum() < 200


def test_a_strategy_is_one_of_its_operations_on_each_image() -> None:
    acts = acting(drawn(Augmentation("_".join(DSA_OPERATIONS), flips=True), n=3000))
    assert torch.stack(list(acts.values())).sum(0).max() == 1
    assert all(count > 200 for count in (int(a.sum()) for a in acts.values()))
    some = acting(drawn(Augmentation("color_crop", flips=True)))
    assert not (some["color"] & some["crop"]).any()
    assert (some["color"] | some["crop"]).float().mean() > 0.9
    assert not any(some[name].any() for name in ("scale", "rotate", "cutout", "flip"))


def test_resized_crops_stay_inside_and_respect_the_smallest_area() -> None:
    p = drawn(Augmentation("rrc", flips=True, crop_area_min=0.5), n=3000)
    assert ((p["shift_x"].abs() + p["scale_x"] / 2) <= 0.5 + 1e-6).all()
    area = p["scale_x"] * p["scale_y"]
    assert 0.37 < area.min() < 0.52, "a side longer than the image is cut off"
    assert area.max() > 0.95


def test_a_resized_crop_is_the_box_stretched() -> None:
    """As torchvision's resized crop: nothing outside the box is read, at its edges and at the image's."""
    for row, column in ((0, 0), (2, 4), (4, 1)):
        shift = {"shift_x": column / 8 - 0.25, "shift_y": row / 8 - 0.25}
        crop = augment(IMAGES, rows(scale_x=0.5, scale_y=0.5, inside=1.0, **shift), BLANK - 3)
        box = IMAGES[..., row : row + 4, column : column + 4]
        torch.testing.assert_close(crop, F.interpolate(box, scale_factor=2, mode="bilinear"))


def test_cutmix_pastes_the_partners_box() -> None:
    """A box of 4 x 8 pixels on the left: half the image is the partner's, and half the label."""
    view = rows(share=0.5, box_w=0.5, box_h=1.0)
    view[:, COLUMNS.index("partner")] = torch.tensor([1.0, 0, 3, 2])
    mixed = render(Split(IMAGES, ALL), view, ALL, BLANK)
    assert torch.equal(mixed[..., :4], IMAGES[[1, 0, 3, 2]][..., :4])
    assert torch.equal(mixed[..., 4:], IMAGES[..., 4:])
    labels = mix_labels(F.one_hot(ALL).float(), view)
    assert labels[0].tolist() == [0.5, 0.5, 0, 0]


def test_mixup_blends_images_and_labels() -> None:
    view = rows(share=0.75)
    view[:, COLUMNS.index("partner")] = torch.tensor([1.0, 0, 3, 2])
    mixed = render(Split(IMAGES, ALL), view, ALL, BLANK)
    torch.testing.assert_close(mixed[0], 0.75 * IMAGES[0] + 0.25 * IMAGES[1])
    assert mix_labels(F.one_hot(ALL).float(), view)[2].tolist() == [0, 0, 0.75, 0.25]


@pytest.mark.parametrize("mix", ["cutmix", "mixup"])
def test_shares_follow_the_beta_distribution_and_boxes_have_their_area(mix: str) -> None:
    """Beta(1, 1) is uniform: mean 1/2 for MixUp; CutMix loses area where its box leaves the image."""
    p = drawn(Augmentation("none", flips=True, mix=mix), n=4000, size=32)
    assert (p["share"] >= 0).all()
    assert (p["share"] <= 1).all()
    assert abs(p["share"].mean() - (0.5 if mix == "mixup" else 0.65)) < 0.06
    assert sorted(p["partner"].long().tolist()) == list(range(4000)), "every image is a partner once"
    if mix == "cutmix":
        torch.testing.assert_close(p["share"], 1 - p["box_w"] * p["box_h"])
        whole = p["box_w"] * 32
        torch.testing.assert_close(whole, whole.round())


def test_mix_prob_leaves_the_others_unmixed() -> None:
    p = drawn(Augmentation("none", flips=True, mix="cutmix", mix_prob=0.25), n=4000, size=32)
    assert 0.2 < (p["share"] < 1).float().mean() < 0.26


def test_mixed_images_are_augmented_first_each_by_its_own_row() -> None:
    view = rows(share=0.5)
    view[:, COLUMNS.index("partner")] = torch.tensor([1.0, 0, 3, 2])
    view[1, COLUMNS.index("flip")] = 1
    mixed = render(Split(IMAGES, ALL), view, torch.tensor([0]), BLANK)
    torch.testing.assert_close(mixed[0], 0.5 * IMAGES[0] + 0.5 * IMAGES[1].flip(-1))
    assert mixes(view)


@pytest.mark.parametrize("kind", ["dsa", "rrc", "flip_rotate"])
def test_a_part_of_a_view_is_that_part_of_the_whole(kind: str) -> None:
    images = Split((IMAGES * 255).to(torch.uint8), ALL, torch.full((3,), 0.5), torch.full((3,), 0.25))
    view = Augmentation(kind, flips=True, mix="cutmix").draw(4, 8, make_generator("test", 1))
    whole = render(images, view, ALL, BLANK)
    torch.testing.assert_close(render(images, view, torch.tensor([2, 0]), BLANK), whole[[2, 0]])


def test_drawn_per_batch_the_images_of_a_batch_share_the_operation_and_nothing_else() -> None:
    """Batches of 50 of 300 images; each image keeps parameters of its own."""
    p = drawn(Augmentation("_".join(DSA_OPERATIONS), flips=True, batch_size=50))
    batch, acts = p["batch"].long(), acting(p)
    assert batch.bincount().tolist() == [50] * 6
    for number in range(6):
        there = batch == number
        acting_there = [name for name, who in acts.items() if who[there].any()]
        assert len(acting_there) == 1, acting_there
    p = drawn(Augmentation("dsa", flips=True, batch_size=300))
    assert (p["scale_x"] != 1).all() | (p["angle"] != 0).all() | (p["shift_x"] != 0).any()
    assert len(p["brightness"].unique()) > 290


def test_drawn_per_batch_the_operations_are_equally_likely() -> None:
    """600 batches of 5 images: each of six operations acts in about 100 (standard deviation 9)."""
    p = drawn(Augmentation("_".join(DSA_OPERATIONS), flips=True, batch_size=5), n=3000)
    rotated = (p["angle"] != 0)[p["batch"].argsort(stable=True)].view(600, 5).all(1).sum()
    assert 64 < rotated < 136


@pytest.mark.parametrize("mix", ["cutmix", "mixup"])
def test_drawn_per_batch_a_batch_mixes_within_itself_with_one_share_and_box(mix: str) -> None:
    p = drawn(Augmentation("none", flips=True, mix=mix, mix_prob=0.5, batch_size=30), size=32)
    batch, partner = p["batch"].long(), p["partner"].long()
    assert torch.equal(batch[partner], batch)
    assert sorted(partner.tolist()) == list(range(300))
    for name in ("share", "box_x", "box_y", "box_w", "box_h"):
        assert all(len(p[name][batch == number].unique()) == 1 for number in range(10)), name
    assert 0 < sum(bool(p["share"][batch == number][0] < 1) for number in range(10)) < 10


def test_drawn_per_image_no_image_is_bound_to_a_batch() -> None:
    assert (drawn(Augmentation("dsa", flips=True))["batch"] == -1).all()


def test_operations_joined_by_plus_act_together() -> None:
    """Crop and flip, as in nearly every CIFAR recipe: each image is shifted, half of them are mirrored, nothing else."""
    acts = acting(drawn(Augmentation("crop+flip", flips=True)))
    assert acts["crop"].float().mean() > 0.8, "1 of 9 moves by no pixel"
    assert 100 < acts["flip"].sum() < 200
    assert (acts["crop"] & acts["flip"]).any()
    assert not any(acts[name].any() for name in ("scale", "rotate", "cutout", "color"))


def test_crop_and_flip_together_equal_padding_cropping_and_mirroring() -> None:
    view = Augmentation("crop+flip", flips=True).draw(4, 8, make_generator("test", 0))
    p = dict(zip(COLUMNS, view.unbind(dim=1), strict=True))
    moved = augment(IMAGES, view, BLANK)
    for k, image in enumerate(F.pad(IMAGES, [1, 1, 1, 1])):
        row, column = (1 + round(8 * float(p[name][k])) for name in ("shift_y", "shift_x"))
        expected = image[:, row : row + 8, column : column + 8]
        torch.testing.assert_close(moved[k], expected.flip(-1) if p["flip"][k] else expected)


def test_strengths_set_how_far_operations_go() -> None:
    strengths = {"crop": 0.25, "cutout": 0.25, "scale": 2.0, "rotate": 90.0, "brightness": 4.0, "saturation": 1.0}
    strengths |= {"contrast": 3.0, "flip": 1.0}
    p = drawn(Augmentation("+".join(DSA_OPERATIONS), flips=True, strengths=strengths), n=3000)
    assert (8 * p["shift_x"]).unique().tolist() == [-2, -1, 0, 1, 2]
    assert p["cut_side"].unique().tolist() == [0.25]
    ranges = {"scale_x": (0.5, 2), "brightness": (-2, 2), "saturation": (0, 1), "contrast": (3, 4)}
    for name, (low, high) in (ranges | {"angle": (-math.pi / 2, math.pi / 2)}).items():
        assert (p[name].min(), p[name].max()) == pytest.approx((low, high), abs=0.02), name
    assert p["flip"].all()


def test_labels_may_stay_unmixed() -> None:
    view = Augmentation("none", flips=True, mix="cutmix", own_labels=True).draw(4, 8, make_generator("test", 0))
    assert mixes(view)
    assert torch.equal(mix_labels(F.one_hot(ALL).float(), view), F.one_hot(ALL).float())
