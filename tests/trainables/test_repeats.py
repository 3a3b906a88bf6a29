"""Images that are in two splits are counted, whatever form their pixels have."""

from __future__ import annotations

import torch

from trainables.data.real import RealData, normalise
from trainables.data.repeats import count_repeats
from trainables.findings import Repeats
from trainables.splits import Split


def noise(count: int, seed: int, size: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def real_with(train: torch.Tensor, validation: torch.Tensor, test: torch.Tensor) -> RealData:
    zeros = torch.zeros(3)
    splits = [Split(images, torch.zeros(len(images), dtype=torch.long)) for images in (train, validation, test)]
    return normalise(RealData(*splits, names=("a", "b"), flips=True, background=zeros, mean=zeros, std=zeros + 1))


def test_images_of_several_splits_are_counted() -> None:
    test, validation = noise(9, 0), noise(6, 1)
    train = torch.cat([noise(5, 2), test[:3], validation[:2]])
    validation = torch.cat([validation, test[8:]])
    real = real_with(train, validation, test)
    distilled = Split(torch.cat([test[4:6], train[:1], validation[:1]]), torch.zeros(4, dtype=torch.long))
    assert count_repeats(real, distilled) == Repeats(
        distilled_in_test=2, distilled_in_validation=1, train_in_test=3, train_in_validation=2, validation_in_test=1
    )


def test_ready_images_count_as_the_bytes_that_they_were_made_from() -> None:
    real = real_with(noise(4, 0), noise(4, 1), noise(4, 2))
    ready = Split(real.test.batch(slice(0, 3)), torch.zeros(3, dtype=torch.long), real.mean, real.std)
    assert count_repeats(real, ready).distilled_in_test == 3


def test_images_that_agree_in_their_middle_alone_are_others() -> None:
    """4,096 of 4,800 bytes are looked at first; the first pixel differs."""
    images = noise(3, 0)
    other = images.clone()
    other[:, 0, 0, 0] ^= 255
    assert count_repeats(real_with(noise(2, 5), noise(2, 6), images), Split(other, torch.zeros(3).long())) == Repeats()
