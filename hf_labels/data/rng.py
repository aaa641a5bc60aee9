"""Random numbers that do not disturb each other: drawing data or evaluating never moves the model's random numbers."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*parts: int) -> int:
    """One 32-bit seed from several non-negative integers, for example `(seed, epoch, row)`. The same everywhere.

    Example:
        >>> derive_seed(42, 0, 7) == derive_seed(42, 0, 7), derive_seed(42, 0, 7) == derive_seed(42, 7, 0)
        (True, False)
    """
    return int(np.random.SeedSequence([int(part) for part in parts]).generate_state(1)[0])


def seed_host(seed: int) -> None:
    """Seed `random`, numpy and torch on the host. Generators of accelerators are left alone."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


@contextmanager
def isolated_rng(seed: int | None = None, device: torch.device | None = None) -> Iterator[None]:
    """Give back all random states at the end, whatever the block drew.

    Args:
        seed (`int`, *optional*): Seed the host generators for the block.
        device (`torch.device`, *optional*): A CUDA device whose state is given back too.
    """
    python, numpy, host = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_cuda = device if device is not None and device.type == "cuda" else None
    cuda = None if on_cuda is None else torch.cuda.get_rng_state(on_cuda)
    try:
        if seed is not None:
            seed_host(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(host)
        if on_cuda is not None and cuda is not None:
            torch.cuda.set_rng_state(cuda, on_cuda)
