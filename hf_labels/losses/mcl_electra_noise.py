"""Random numbers per row: what a text draws depends on a seed and on the text, never on the batch around it.

A `torch.Generator` gives numbers to a batch in the order of its rows: another batch size, another padding or a second
process, and every text is corrupted differently. `RowNoise` computes the numbers from the row itself, so accumulated
batches, several processes and a resumed run draw what one uninterrupted run on one device draws.
"""

import torch
from torch import Tensor

# splitmix64: multipliers as signed 64-bit numbers; products wrap around
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): int64 -> well mixed int64, elementwise."""
    x = x + _GOLDEN
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


class RowNoise:
    """A generator of uniform numbers for the rows of one batch.

    Every call of [`uniform`] is a new stream; the number in row b and column t depends on the seed, the content of row
    b, the number of the call and t, and on nothing else.

    Args:
        input_ids (`Tensor` of shape `(B, T)`, integer): Tokens; rows with equal tokens draw equal numbers.
        attention_mask (`Tensor` of shape `(B, T)`): 1 = token, 0 = pad; pads do not count, on whichever side.
        seed (`int` or `Tensor` of shape `()`): For example derived from the seed of the run and the step.
    """

    def __init__(self, input_ids: Tensor, attention_mask: Tensor, seed: int | Tensor):
        real = attention_mask.bool()
        places = real.long().cumsum(1)
        parts = _mix(_mix(input_ids.long()) + places).masked_fill(~real, 0)
        start = torch.as_tensor(seed, dtype=torch.int64, device=input_ids.device)
        self.keys = _mix(parts.sum(1) ^ _mix(start))  # (B,)
        self.calls = 0

    def uniform(self, width: int) -> Tensor:
        """Numbers in `(0, 1)`, float32 of shape `(B, width)`, in steps of 2^-24."""
        self.calls += 1
        columns = torch.arange(width, device=self.keys.device)
        bits = _mix(_mix(self.keys + self.calls)[:, None] + columns * _GOLDEN)
        return (_shift(bits, 41).float() + 0.5) * 2.0**-23


class BatchNoise:
    """The same interface over a `torch.Generator` (`None`: the global one), which runs through the batch.

    Args:
        rows (`int`): B.
        device: Where the numbers are wanted; they are drawn on the generator's own device.
        generator (`torch.Generator`, *optional*)
    """

    def __init__(self, rows: int, device: torch.device | str, generator: torch.Generator | None = None):
        self.rows, self.device, self.generator = rows, torch.device(device), generator

    def uniform(self, width: int) -> Tensor:
        """Numbers in `[0, 1)`, float32 of shape `(B, width)`."""
        where = self.device if self.generator is None else self.generator.device
        return torch.rand(self.rows, width, generator=self.generator, device=where).to(self.device)


Generator = torch.Generator | RowNoise | BatchNoise | None


def as_noise(generator: Generator, like: Tensor) -> RowNoise | BatchNoise:
    """A source of numbers for the rows of `like` (B, ...) from a `torch.Generator`, `None` or one of the two above."""
    if isinstance(generator, (RowNoise, BatchNoise)):
        return generator
    return BatchNoise(like.shape[0], like.device, generator)
