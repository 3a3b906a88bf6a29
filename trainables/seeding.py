"""Common random numbers: the only file that turns a seed into a generator.

A replicate r fixes three independent streams (initial weights, batch order, order of views). They depend on r and
nothing else, so two losses at the same replicate are trained on the same batches from the same weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

_globals = Lock()


def stream_seed(purpose: str, seed: int) -> int:
    """A 63-bit seed for one purpose, independent of the seeds for other purposes.

    SHA-256 of "purpose/seed", so neighbouring seeds give unrelated streams.
    """
    digest = hashlib.sha256(f"{purpose}/{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def make_generator(purpose: str, seed: int) -> torch.Generator:
    """A CPU generator for one purpose (such as "batch order") and seed."""
    return torch.Generator().manual_seed(stream_seed(purpose, seed))


@contextmanager
def seeded_globals(purpose: str, seed: int) -> Iterator[None]:
    """Run a block under a forked, seeded global state: layer initialisation accepts no generator. One thread at a time."""
    with _globals, torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(purpose, seed))
        yield
