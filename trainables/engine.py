"""How a network is executed: kernel by kernel as PyTorch does (eager), or compiled into fewer, fused kernels.

Students of engine "grouped" are executed together, see `trainables.grouped`; alone, each is executed as in "eager".
"""

from __future__ import annotations

import logging
from typing import Final, cast

from torch import nn

from trainables.names import ENGINES

#: Kernels are kept per network, batch shape and mode; a worker that meets many of them must not fall back to eager.
MOST_VARIANTS: Final = 256


def executable(network: nn.Module, engine: str) -> nn.Module:
    """A network that is called like the given one, shares its weights and runs under an engine.

    Kernels of another instance of the same architecture are used again: compiling happens once per process, and takes
    seconds; its result is kept on disk, where the next process finds it.

    Args:
        network: Any.
        engine: A name of ENGINES. "compiled" changes float sums in the last digits.

    Raises:
        ValueError: If the engine is unknown.
    """
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}; valid: {list(ENGINES)}.")
    if engine != "compiled":
        return network
    import torch._dynamo
    import torch._inductor.config

    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # warns where there is no CUDA
    torch._inductor.config.compile_threads = 1  # or each of many workers would start a pool of compilers
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = MOST_VARIANTS
    mode = "reduce-overhead" if next(network.parameters()).is_cuda else "default"  # the former is CUDA graphs
    return cast("nn.Module", torch.compile(network, dynamic=False, mode=mode))
