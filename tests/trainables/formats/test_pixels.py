"""Whitened images are never taken for normalised ones: decided by smoothness, the range or a twin, else asked for."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.trainables.formats import builders
from trainables.data.whitening import fit_whitening
from trainables.formats.inspect import inspect_path
from trainables.formats.pixels import correlation_at, looks_whitened, space_of

N, SIDE = 300, 16


def scenes(n: int = N, seed: int = 0) -> Tensor:
    """Pictures whose spectrum falls as that of photographs, 1 / f^2, in [0, 1], (n, 3, 16, 16), bytes over 255."""
    generator = torch.Generator().manual_seed(seed)
    side = 2 * SIDE  # of which a part is cut out, so that edges do not meet
    fy, fx = torch.meshgrid(torch.fft.fftfreq(side), torch.fft.fftfreq(side), indexing="ij")
    spectrum = (fx**2 + fy**2).sqrt().clamp_min(1 / side) ** -1.7
    noise = torch.randn(n, 3, side, side, generator=generator)
    noise = 0.9 * noise[:, :1] + 0.45 * noise  # channels of photographs are alike
    pictures = torch.fft.ifft2(torch.fft.fft2(noise) * spectrum).real[:, :, :SIDE, :SIDE]
    return ((pictures / pictures.std() * 0.22 + 0.45).clamp(0, 1) * 255).round() / 255


@lru_cache
def transform_of_scenes() -> Tensor:
    return fit_whitening((scenes() * 255).round().to(torch.uint8))


def whitened(images: Tensor) -> Tensor:
    transform = transform_of_scenes()
    return (images.flatten(1) @ transform[:-1] + transform[-1]).view(images.shape)


CONSTANTS = {"cifar": (0.4914, 0.2023), "imagenet": (0.485, 0.229), "half": (0.5, 0.5)}


@pytest.mark.parametrize(("n", "seed"), [(10, 0), (10, 1), (10, 2), (100, 3)])
def test_normalised_pictures_are_told_from_whitened_ones(n: int, seed: int) -> None:
    pictures = scenes(n, 100 + seed)
    for mean, std in CONSTANTS.values():
        assert space_of((pictures - mean) / std).name == "meanstd"
    assert space_of(pictures).name == "raw01"
    found = space_of(whitened(pictures))
    assert found.name is None
    assert looks_whitened(whitened(pictures))[0] is True
    assert space_of(whitened(pictures), unwhitened_beside=True).name == "zca"


@pytest.mark.parametrize("share", [1.0, 0.7])
def test_noise_and_pictures_that_drown_in_it_are_left_open(share: float) -> None:
    noise = torch.randn(N, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    mixed = (1 - share) * (scenes() - 0.49) / 0.2 + share * noise
    assert space_of(mixed).name is None
    assert "cannot tell" in space_of(mixed).why


@pytest.mark.parametrize("n", [1, 5])
def test_a_few_images_are_too_few_to_tell(n: int) -> None:
    assert space_of((scenes(n) - 0.49) / 0.2).name is None


def test_low_contrast_does_not_matter_to_smoothness_and_is_no_unit_range() -> None:
    """Bright pictures of low contrast, normalised, lie in [0, 1]: not raw01 by their range."""
    flat = 0.6 + 0.1 * (scenes() - 0.45)
    assert looks_whitened(flat)[0] is False
    normalised = (flat - 0.49) / 0.2
    assert normalised.min() >= 0
    assert normalised.max() <= 1
    assert space_of(normalised).name is None


def test_a_layout_of_normalised_pixels_that_look_whitened_asks() -> None:
    assert space_of((scenes() - 0.49) / 0.2, layout="meanstd").name == "meanstd"
    assert space_of(whitened(scenes()), layout="meanstd").name is None
    assert space_of(scenes() * 5, layout="raw01").name is None


def test_correlation_of_a_ramp_and_of_stripes() -> None:
    """A ramp is as its neighbours, stripes of one pixel are the opposite across and the same along."""
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    stripes = (-1.0) ** torch.arange(16.0).expand(1, 1, 16, 16)
    assert correlation_at(ramp, 1) > 0.8
    assert correlation_at(stripes, 1) == pytest.approx(0, abs=1e-6)


def test_stated_spaces_against_the_evidence_are_said(tmp_path: Path) -> None:
    torch.save(whitened(scenes(30)), tmp_path / "images_best.pt")
    torch.save(torch.arange(3).repeat_interleave(10), tmp_path / "labels_best.pt")
    stated = {"pixel_space": "meanstd", "mean": [0.5] * 3, "std": [0.2] * 3}
    said = inspect_path(tmp_path, given=stated)["problems"]
    assert any("pixel_space is meanstd, but pixels correlate" in problem for problem in said)
    torch.save((scenes(30) - 0.5) / 0.2, tmp_path / "images_best.pt")
    assert any(
        "pixel_space is zca, but" in text for text in inspect_path(tmp_path, given={"pixel_space": "zca"})["problems"]
    )
    assert inspect_path(tmp_path, given=stated)["problems"] == []


def test_constants_that_are_not_used_are_said(tmp_path: Path) -> None:
    path = builders.gift(tmp_path, None)
    given = {"mean": [0.5] * 3, "std": [0.2] * 3}
    assert any("stated and not used" in text for text in inspect_path(path, given=given)["problems"])
