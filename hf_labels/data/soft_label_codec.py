"""How soft labels are written down and read back: codecs, the k largest, and the exact recovery rules.

With stored ids c_1..c_k, decoded values v_1..v_k and s = sum v, a row means:

| residual | distribution |
| --- | --- |
| `smooth` | `p[c_j] = v_j`, every other class `(1 - s) / (C - k)` |
| `renorm` | `p[c_j] = v_j / s`, others 0 |
| `zero_logit` | `softmax(z / T)` with `z[c_j] = v_j`, other logits 0 |

`one-hot` is `smooth` with k = 1 and v = 1. A lossy codec can make s exceed 1: the values are then divided by s.

Sources: FKD (Shen and Xing, arXiv:2112.01528), RDED `keep_top_k` (Sun et al., arXiv:2312.03526), ReLabel (Yun et al.,
arXiv:2101.05022); the 8-bit codecs are our own.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Codec = Literal["float32", "float16", "u8_linear", "u8_log"]
StoreResidual = Literal["smooth", "renorm", "zero_logit"]
CODECS = ("float32", "float16", "u8_linear", "u8_log")
RESIDUALS = ("smooth", "renorm", "zero_logit", "none")
_LOG_RANGE = 16  # u8_log reaches down to 2^-16
_TABLES = {
    "u8_linear": np.arange(256) / 255.0,
    "u8_log": np.concatenate([[0.0], 2.0 ** (_LOG_RANGE * (np.arange(255) / 254.0 - 1.0))]),
}
# Largest error of a value in [0, 1]: absolute, relative (float16 below 2^-14 counts as absolute).
BOUNDS = {
    "float32": (0.0, 2.0**-24),
    "float16": (2.0**-25, 2.0**-11),
    "u8_linear": (1 / 510, 0.0),
    "u8_log": (2.0**-16, 2.0 ** (8 / 254) - 1),
}


def value_dtype(codec: str) -> np.dtype:
    """Type of stored values.

    Raises:
        ValueError: For another codec; lists them.
    """
    check_option("codec", codec, CODECS)
    return np.dtype("uint8" if codec.startswith("u8") else codec)


def id_dtype(num_labels: int) -> np.dtype:
    """Type of stored class ids: uint16 up to 65 536 classes, else uint32; never float16, exact to 2048 only."""
    return np.dtype("uint16" if num_labels <= 65536 else "uint32")


def encode_values(values: Any, codec: Codec) -> np.ndarray:
    """Values as they are stored.

    Args:
        values (array or tensor): Probabilities in [0, 1]; any finite numbers for `float32` and `float16`.
        codec (`str`): `"float32"`, `"float16"`; `"u8_linear"`: `round(255 v)`, absolute error up to 1/510; `"u8_log"`:
            0 below 2^-16, else `1 + round(254 (1 + log2(v) / 16))`, relative error up to 2.21 %. Rounding is half to
            even.

    Raises:
        ValueError: If a value is not finite, or not in [0, 1] for an 8-bit codec, or too large for float16.
    """
    array = _numpy(values)
    dtype = value_dtype(codec)
    wide = array.astype(np.float64)
    if not np.isfinite(wide).all():
        raise ValueError("Soft labels must be finite, got NaN or infinity.")
    if codec.startswith("u8"):
        if wide.size and (wide.min() < 0 or wide.max() > 1):
            raise ValueError(f"`{codec}` stores values in [0, 1], got {wide.min()} to {wide.max()}.")
        if codec == "u8_linear":
            return np.rint(255 * wide).astype(dtype)
        small = wide < 2.0**-_LOG_RANGE
        log = np.log2(np.where(small, 1.0, wide))
        return np.where(small, 0, 1 + np.rint(254 * (1 + log / _LOG_RANGE))).astype(dtype)
    if codec == "float16" and wide.size and np.abs(wide).max() > np.finfo(np.float16).max:
        raise ValueError(f"A value of {np.abs(wide).max()} does not fit into float16. Use `codec='float32'`.")
    return array.astype(dtype)


def decode_values(stored: Any, codec: Codec, dtype: torch.dtype = torch.float32) -> Tensor:
    """Stored values as a tensor of `dtype`. Inverse of [`encode_values`] within `BOUNDS`."""
    array = _numpy(stored)
    check_option("codec", codec, CODECS)
    if codec in _TABLES:
        array = _TABLES[codec][array]
    elif codec == "float16":  # also for numbers from a text file, which are rounded as the file would have them
        array = array.astype(np.float16)
    return torch.from_numpy(np.array(array, dtype=np.float64 if dtype == torch.float64 else np.float32)).to(dtype)


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest entries of each row, largest first.

    Args:
        scores (`Tensor` of shape `(..., C)`): Probabilities or logits.
        k (`int`): 1 to C.

    Returns:
        Ids `(..., k)` int64 and values `(..., k)`.

    Raises:
        ValueError: If k does not fit.
    """
    if not 1 <= k <= scores.shape[-1]:
        raise ValueError(f"k must be in [1, {scores.shape[-1]}], the number of classes, got {k}.")
    values, ids = scores.topk(k, dim=-1)
    return ids, values


def smooth_values(
    ids: Tensor, values: Tensor, num_labels: int, residual: str = "smooth", temperature: float = 1.0
) -> Tensor:
    """The same distribution under the rule `smooth`: the values that take the place of `values`.

    This is what [`~hf_labels.losses.soft_targets.sparse_soft_cross_entropy`] needs: no target of C classes is built
    for any residual rule.

    Args:
        ids (`Tensor` of shape `(..., k)`): Only its shape matters.
        values (`Tensor` of shape `(..., k)`): Decoded values; logits for `zero_logit`.
        num_labels (`int`): C.
        residual (`str`, *optional*, defaults to `"smooth"`): Rule, see above.
        temperature (`float`, *optional*, defaults to 1.0): T of `zero_logit`.

    Returns:
        `Tensor` of shape `(..., k)`: In [0, 1]; sums to at most 1, and to 1 for `renorm` and for k = C.

    Raises:
        ValueError: For another rule, or k > C.
    """
    check_option("residual", residual, ("smooth", "renorm", "zero_logit"))
    k = ids.shape[-1]
    if k > num_labels:
        raise ValueError(f"A row stores k = {k} classes of only {num_labels}.")
    if residual == "zero_logit":
        scaled = values / temperature
        top = scaled.amax(-1, keepdim=True).clamp_min(0.0)
        stored = torch.exp(scaled - top)
        return stored / (stored.sum(-1, keepdim=True) + (num_labels - k) * torch.exp(-top))
    total = values.sum(-1, keepdim=True)
    if residual == "renorm" or k == num_labels:
        return values / total.clamp_min(1e-12)
    return values / total.clamp_min(1.0)


def recover(
    ids: Tensor, values: Tensor, num_labels: int, residual: str = "smooth", temperature: float = 1.0
) -> Tensor:
    """Stored ids and values as a distribution over all classes.

    Args:
        ids (`Tensor` of shape `(..., k)`, integer): Distinct class ids in [0, C).
        values, num_labels, residual, temperature: As in [`smooth_values`].

    Returns:
        `Tensor` of shape `(..., C)`: Rows sum to 1.

    Raises:
        ValueError: If an id is not in [0, C), shapes disagree, or the rule is unknown.
    """
    if ids.shape != values.shape:
        raise ValueError(f"`ids` and `values` must have one shape, got {tuple(ids.shape)} and {tuple(values.shape)}.")
    if ids.numel() and not (0 <= int(ids.min()) and int(ids.max()) < num_labels):
        raise ValueError(f"Class ids must be in [0, {num_labels}), got {int(ids.min())} to {int(ids.max())}.")
    stored = smooth_values(ids, values, num_labels, residual, temperature)
    rest = (1 - stored.sum(-1, keepdim=True)).clamp_min(0.0) / max(num_labels - ids.shape[-1], 1)
    if residual == "renorm":
        rest = torch.zeros_like(rest)
    dense = rest.expand(*ids.shape[:-1], num_labels).clone()
    return dense.scatter_(-1, ids.long(), stored)


def check_option(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise `ValueError` that lists what is allowed."""
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(str, allowed))}, got {value!r}.")


def _numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if torch.is_tensor(values) else np.asarray(values)
