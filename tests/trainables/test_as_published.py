"""Operations of DSA equal the published formulas, which are written out again here, pixel by pixel, from the papers' released code.

Released: VICO-UoE/DatasetCondensation (DSA), LINs-lab/GIFT, NUS-HPC-AI-Lab/DD-Ranking. Fill is 0 after normalisation. Tolerance:
1e-4 absolute on pixels of unit deviation, which is what float32 leaves of a resampling.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import ks_2samp
from torch import Tensor

from benchmarks.reference import GIFT_LOSSES, TEMPERATURE, augment_as_gift
from search_spaces.settings import Fixed
from trainables.augment import COLUMNS, Augmentation, augment
from trainables.config import KNOBS, canonical_loss
from trainables.losses import compare, make_target
from trainables.seeding import make_generator

N, SIZE, TOLERANCE = 24, 32, {"atol": 1e-4, "rtol": 0}
IMAGES = torch.randn(N, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
MEAN_COLOUR = torch.zeros(3)


def drawn(kind: str, n: int = N, size: int = SIZE) -> tuple[Tensor, dict[str, Tensor]]:
    view = Augmentation(kind, flips=True).draw(n, size, make_generator("test", 0))
    return view, dict(zip(COLUMNS, view.unbind(dim=1), strict=True))


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """Output pixel (i, j) is input pixel (i + down, j + right), 0 outside."""
    result = torch.zeros_like(image)
    side = image.shape[-1]
    for i, j in itertools.product(range(side), range(side)):
        if 0 <= i + down < side and 0 <= j + right < side:
            result[:, i, j] = image[:, i + down, j + right]
    return result


def sampled(image: Tensor, matrix: list[list[float]], *, align_corners: bool = False) -> Tensor:
    """Bilinear sampling, 0 outside: output position (x, y) in [-1, 1] reads the input at matrix (x, y)."""
    side = image.shape[-1]
    half = (side - 1) / 2 if align_corners else side / 2
    positions = (torch.arange(side, dtype=torch.double) - (side - 1) / 2) / half
    x, y = positions[None, :], positions[:, None]
    column = (matrix[0][0] * x + matrix[0][1] * y) * half + (side - 1) / 2
    row = (matrix[1][0] * x + matrix[1][1] * y) * half + (side - 1) / 2
    left, top = column.floor().long(), row.floor().long()
    result = torch.zeros_like(image, dtype=torch.double)
    for di, dj in itertools.product((0, 1), (0, 1)):
        i, j = top + di, left + dj
        weight = (1 - (row - i).abs()) * (1 - (column - j).abs())
        there = (i >= 0) & (i < side) & (j >= 0) & (j < side)
        result += image.double()[:, i.clamp(0, side - 1), j.clamp(0, side - 1)] * (weight * there)
    return result.float()


def test_a_crop_is_a_shift_by_whole_pixels_up_to_an_eighth_zeros_moving_in() -> None:
    view, p = drawn("crop", n=3000)
    down, right = (SIZE * p[name] for name in ("shift_y", "shift_x"))
    for pixels in (down, right):
        counts = pixels.round().long().add(4).bincount()
        assert pixels.unique().tolist() == list(range(-4, 5))
        assert (counts > 250).all(), "each of the nine is as likely"
    expected = [shifted(image, int(down[k]), int(right[k])) for k, image in enumerate(IMAGES)]
    torch.testing.assert_close(augment(IMAGES, view[:N], MEAN_COLOUR), torch.stack(expected), **TOLERANCE)


@pytest.mark.parametrize(("size", "side"), [(32, 16), (8, 4), (6, 3)])
def test_cutout_is_a_square_of_half_the_side_cut_off_at_the_border(size: int, side: int) -> None:
    """Published: first row = offset - side // 2, offset in 0 .. size for an even side, 0 .. size - 1 for an odd one."""
    view, p = drawn("cutout", n=4000, size=size)
    images = 1 + torch.rand(4000, 3, size, size)
    cut = augment(images, view, MEAN_COLOUR)
    offsets = range(size + 1 - side % 2)
    rows = [[i for i in range(o - side // 2, o - side // 2 + side) if 0 <= i < size] for o in offsets]
    seen = {(tuple((cut[k] == 0).all(0).any(d).nonzero().flatten().tolist())) for k in range(4000) for d in (0, 1)}
    assert seen == {tuple(inside) for inside in rows}
    squares = (cut == 0).all(dim=1)
    assert torch.equal(squares, squares.any(1, keepdim=True) & squares.any(2, keepdim=True)), "a rectangle, and no more"
    torch.testing.assert_close(cut, images * ~squares[:, None], **TOLERANCE)
    counts = (p["cut_x"] * size - side % 2 / 2).round().long().bincount()
    assert len(counts) == len(offsets)
    assert counts.min() > 0.6 * 4000 / len(offsets), "borders are as likely as the middle"


def test_scale_and_rotation_sample_as_published() -> None:
    view, p = drawn("scale", n=3000)
    for name in ("scale_x", "scale_y"):
        assert 1 / 1.2 <= p[name].min() < 0.84
        assert 1.19 < p[name].max() <= 1.2
    expected = [
        sampled(image, [[float(p["scale_x"][k]), 0], [0, float(p["scale_y"][k])]]) for k, image in enumerate(IMAGES)
    ]
    torch.testing.assert_close(augment(IMAGES, view[:N], MEAN_COLOUR), torch.stack(expected), **TOLERANCE)
    view, p = drawn("rotate", n=3000)
    assert math.radians(14.9) < p["angle"].abs().max() <= math.radians(15)
    matrices = [[[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]] for a in p["angle"].tolist()]
    expected = [sampled(image, matrices[k]) for k, image in enumerate(IMAGES)]
    torch.testing.assert_close(augment(IMAGES, view[:N], MEAN_COLOUR), torch.stack(expected), **TOLERANCE)


def test_colour_is_brightness_then_saturation_then_contrast() -> None:
    view, p = drawn("color", n=3000)
    for name, low, high in (("brightness", -0.5, 0.5), ("saturation", 0, 2), ("contrast", 0.5, 1.5)):
        assert low <= p[name].min() < low + 0.01
        assert high - 0.01 < p[name].max() <= high
    expected = []
    for k, image in enumerate(IMAGES):
        x = image + p["brightness"][k]
        x = (x - x.mean(0)) * p["saturation"][k] + x.mean(0)
        expected.append((x - x.mean()) * p["contrast"][k] + x.mean())
    torch.testing.assert_close(augment(IMAGES, view[:N], MEAN_COLOUR), torch.stack(expected), **TOLERANCE)


def test_gifts_chain_in_one_resampling_equals_its_operations_one_by_one() -> None:
    """Flip, colour, one of crop, scale and rotate, cutout.

    GIFT flips first; here the image is flipped last, which is the same after the mirrored operation: a shift to the other
    side, a rotation the other way. Both are drawn from symmetric ranges.
    """
    view, p = drawn("dsa")
    expected = []
    for k, image in enumerate(IMAGES):
        x = image + p["brightness"][k]
        x = (x - x.mean(0)) * p["saturation"][k] + x.mean(0)
        x = (x - x.mean()) * p["contrast"][k] + x.mean()
        sign = -1 if p["flip"][k] else 1
        x = x.flip(-1) if p["flip"][k] else x
        x = shifted(x, round(SIZE * float(p["shift_y"][k])), sign * round(SIZE * float(p["shift_x"][k])))
        a, sx, sy = sign * float(p["angle"][k]), float(p["scale_x"][k]), float(p["scale_y"][k])
        if a or (sx, sy) != (1, 1):
            x = sampled(x, [[sx * math.cos(a), -sx * math.sin(a)], [sy * math.sin(a), sy * math.cos(a)]])
        first = [round(SIZE * float(p[name][k])) - 8 for name in ("cut_y", "cut_x")]
        x = x.clone()
        x[:, max(first[0], 0) : first[0] + 16, max(first[1], 0) : first[1] + 16] = 0
        expected.append(x)
    torch.testing.assert_close(augment(IMAGES, view, MEAN_COLOUR), torch.stack(expected), **TOLERANCE)


def test_both_conventions_of_corners_give_the_same_scale_and_rotation() -> None:
    """DD-Ranking samples with `align_corners=True`: another unit of length, on which a map without a shift does not depend."""
    image, matrix = IMAGES[0], [[math.cos(0.2), -math.sin(0.2)], [math.sin(0.2), math.cos(0.2)]]
    torch.testing.assert_close(sampled(image, matrix), sampled(image, matrix, align_corners=True), **TOLERANCE)
    theta = torch.tensor([[[1.1, 0, 0], [0, 0.9, 0]]])
    grids = [F.affine_grid(theta, [1, 3, SIZE, SIZE], align_corners=c) for c in (False, True)]
    one, other = (F.grid_sample(image[None], g, align_corners=c) for g, c in zip(grids, (False, True), strict=True))
    torch.testing.assert_close(one, other, **TOLERANCE)


def features(batches: Tensor) -> dict[str, Tensor]:
    """What tells augmentations apart: of images (..., 3, H, W), one number per image, and per batch of `blur`."""
    flat = batches.flatten(-3)
    blur = (batches.diff(dim=-1).abs().mean(dim=(-3, -2, -1)) / flat.std(dim=-1)).mean(dim=1)
    zeros = (batches.abs() < 1e-6).all(dim=-3).float().mean(dim=(-2, -1))
    return {"mean": flat.mean(-1).flatten(), "std": flat.std(-1).flatten(), "zeros": zeros.flatten(), "blur": blur}


def test_views_have_the_distribution_of_the_released_chain() -> None:
    """Two-sample tests of 300 batches of 20 images, ours against the plain reference (GIFT).

    The same tests tell apart a black fill and an operation drawn per image.
    """
    images = torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    reference = features(torch.stack([augment_as_gift(images) for _ in range(300)]))

    def p_values(batch_size: int | None, fill: float) -> dict[str, float]:
        dsa, generator = Augmentation("dsa", flips=True, batch_size=batch_size), make_generator("test", 0)
        views = [augment(images, dsa.draw(20, 16, generator), MEAN_COLOUR + fill) for _ in range(300)]
        found = features(torch.stack(views))
        return {name: float(ks_2samp(found[name].numpy(), reference[name].numpy()).pvalue) for name in reference}

    assert min(p_values(20, 0).values()) > 0.01
    assert p_values(None, 0)["blur"] < 1e-6
    assert p_values(20, -2)["std"] < 1e-6


@pytest.mark.parametrize("name", GIFT_LOSSES)
def test_losses_have_the_gradients_of_the_released_code(name: str) -> None:
    """GIFT's eight, at its temperature and weights; values may differ by a constant (entropy of the label) or a factor.

    AdamW takes no notice of a constant factor; cosine and mse are compared to the factor 1.
    """
    generator = torch.Generator().manual_seed(0)
    teacher, start = (3 * torch.randn(8, 10, generator=generator) for _ in range(2))
    hard = torch.randint(10, (8,), generator=generator)
    fixed = {**Fixed().model_dump(include=set(KNOBS)), "temperature": TEMPERATURE if name == "kl" else 1.0}
    loss, knobs, _ = canonical_loss(name, fixed)
    gradients = []
    for released in (True, False):
        student = start.clone().requires_grad_()
        if released:
            value = GIFT_LOSSES[name](student, teacher, hard)
        else:
            value = compare(loss, student, make_target(loss, teacher, hard, knobs), hard, knobs)
        gradients += torch.autograd.grad(value, student)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-8)
