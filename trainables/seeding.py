"""Common random numbers: the only file that turns a seed into a generator.

A replicate r fixes four independent streams: initial weights, batch order, order of views, and what the network itself draws
while it trains (dropout, stochastic depth). They depend on r and nothing else, so two losses at the same replicate are trained on
the same batches from the same weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
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


class NetworkDraws:
    """The stream of random numbers that a network draws while it trains, which torch gives it from global generators.

    Switching to the stream and back takes about 12 microseconds on a CPU, so it is done for every network: whether one draws cannot
    be read off its layers, for functions draw too.
    """

    def __init__(self, purpose: str, seed: int, device: str) -> None:
        """Begin the stream of a purpose and seed, on the CPU and, where `device` is one, on the current GPU."""
        self._devices = [torch.cuda.current_device()] if torch.device(device).type == "cuda" else []
        begin = stream_seed(purpose, seed)
        places = [torch.device("cpu"), *(torch.device("cuda", number) for number in self._devices)]
        self._states = [torch.Generator(place).manual_seed(begin).get_state() for place in places]
        self.drawn: bool | None = None

    def state(self) -> list[torch.Tensor]:
        """States of the generators, for `restore`."""
        return [state.clone() for state in self._states]

    def restore(self, states: Sequence[torch.Tensor]) -> None:
        """Continue from `state`, taken on a device of the same type.

        Raises:
            ValueError: If it was taken on another type of device.
        """
        if len(states) != len(self._states):
            raise ValueError(f"{len(states)} states of generators, this device has {len(self._states)}.")
        self._states = [state.cpu().clone() for state in states]

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Run a block that draws from this stream; other streams go on as if it had not run. One thread at a time.

        `drawn` says afterwards whether any block has drawn so far.
        """
        with _globals, torch.random.fork_rng(devices=self._devices):
            self._switch()
            try:
                yield
            finally:
                before, self._states = self._states, self._now()
                is_same = all(torch.equal(old, new) for old, new in zip(before, self._states, strict=True))
                self.drawn = bool(self.drawn) or not is_same

    def _switch(self) -> None:
        torch.set_rng_state(self._states[0])
        for number, state in zip(self._devices, self._states[1:], strict=True):
            torch.cuda.set_rng_state(state, number)

    def _now(self) -> list[torch.Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(number) for number in self._devices)]
