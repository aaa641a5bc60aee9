"""Messages of count factors: what the number of positives in a bag says about each of its members.

A factor is `exp(-lambda_b (sum of y - c)^2)`, or "the sum is c" for an infinite lambda_b. Messages are log-odds.
Ours: the published code has n (n - 1) / 2 pair factors per bag instead, for the same distribution.

Both exact ways first shift the log-odds of a bag by a common tilt, which brings the expected sum to the count: what
matters is then never a tail, so nothing underflows, however sure and wrong the members are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

CLIP = 500.0  # log-odds are kept within +-CLIP: beyond it a probability is 0 or 1 in double precision
SMALL = 32  # bags up to this size are summed forwards and backwards with "auto", larger ones by frequencies
METHODS = ("auto", "exact", "fourier", "gaussian")
_CELLS = 400_000  # numbers of one batch of bags
_REACH = 27.0  # what is below exp(-27) = 2e-12 of the largest is left out of sums over frequencies


def sigmoid(x: np.ndarray) -> np.ndarray:
    """`1 / (1 + exp(-x))`, without overflow, and with all digits of small values."""
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1.0) / (1 + small)


def _padded(log_odds: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inside = np.arange(log_odds.shape[1])[None] < np.asarray(sizes)[:, None]
    return np.where(inside, np.clip(log_odds, -CLIP, CLIP), -np.inf), inside


def common_tilt(log_odds: np.ndarray, counts: np.ndarray, lambda_b: float, start: Any = 0.0) -> np.ndarray:
    """The t of each bag with `sum of sigma(h_i + t) = c - t / (2 lambda_b)`, to 1e-3.

    Args:
        log_odds (`(B, n)`): h; -inf for padding. counts (`(B,)`): c. lambda_b (`float`), start (`(B,)`, *optional*).
    """
    soft = 0.0 if np.isinf(lambda_b) else 0.5 / lambda_b
    tilt = np.broadcast_to(np.asarray(start, dtype=np.float64), counts.shape).copy()
    low, high = np.full(len(counts), -2 * CLIP), np.full(len(counts), 2 * CLIP)
    for _ in range(60):
        q = sigmoid(log_odds + tilt[:, None])
        gap = q.sum(1) + soft * tilt - counts
        slope = np.maximum((q * (1 - q)).sum(1) + soft, 1e-12)
        low, high = np.where(gap < 0, tilt, low), np.where(gap < 0, high, tilt)
        new = tilt - gap / slope
        new = np.where((new >= low) & (new <= high), new, 0.5 * (low + high))
        moved = np.abs(new - tilt).max(initial=0.0)
        tilt = new
        if moved < 1e-3:
            break
    return tilt


def _potential(counts: np.ndarray, values: np.ndarray, tilt: np.ndarray, lambda_b: float) -> np.ndarray:
    """`exp(-lambda_b (z - c)^2 - t z)` up to a factor for each bag, for z = `values` `(B, m)`: at most 1."""
    apart = values - counts[:, None]
    if np.isinf(lambda_b):
        return (np.abs(apart) < 1e-6).astype(np.float64)
    power = -lambda_b * apart**2 - tilt[:, None] * apart
    return np.exp(power - power.max(1, keepdims=True))


def _sealed(out: np.ndarray, inside: np.ndarray, counts: np.ndarray, lambda_b: float) -> np.ndarray:
    """Messages within +-CLIP; of a hard count of 0 (of all members) they are -CLIP (CLIP)."""
    out = np.clip(np.where(np.isnan(out), 0.0, out), -CLIP, CLIP)
    if np.isinf(lambda_b):
        out = np.where(counts[:, None] < 0.5, -CLIP, out)
        out = np.where(counts[:, None] > inside.sum(1, keepdims=True) - 0.5, CLIP, out)
    return np.where(inside, out, 0.0)


def exact_messages(
    log_odds: np.ndarray, counts: np.ndarray, sizes: np.ndarray, lambda_b: float, start: Any = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Messages to each member by sums forwards and backwards, O(n^2) per bag.

    Args:
        log_odds (`(B, n)`): Incoming log-odds; entries from the size of a bag on are padding.
        counts (`(B,)`): c; need not be whole with a finite `lambda_b`.
        sizes (`(B,)` integers): Members of each bag.
        lambda_b (`float`): Above 0; may be infinite.
        start (`(B,)`, *optional*): Where to begin the search of the tilt.

    Returns:
        `(B, n)`: `log sum_s P(s) phi(s + 1) - log sum_s P(s) phi(s)`, where P is the distribution of the number of
        positives among the other members; padding gets 0. And the tilts `(B,)`.
    """
    bags, width = log_odds.shape
    h, inside = _padded(log_odds, sizes)
    tilt = common_tilt(h, counts, lambda_b, start)
    q, rest = sigmoid(h + tilt[:, None]), sigmoid(-h - tilt[:, None])  # not 1 - q, which may round to 0
    # backward[i, a]: expected potential when the members before i have a positives
    backward = np.zeros((width + 1, bags, width + 2))
    backward[width, :, :-1] = _potential(counts, np.arange(width + 1.0)[None], tilt, lambda_b)
    for i in range(width - 1, -1, -1):
        after, row = backward[i + 1], backward[i, :, :-1]
        np.multiply(after[:, 1:], q[:, i, None], out=row)
        row += after[:, :-1] * rest[:, i, None]
    out = np.zeros((bags, width))
    forward = np.zeros((bags, width + 1))
    forward[:, 0] = 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        for i in range(width):
            with_one = np.einsum("ba,ba->b", forward, backward[i + 1, :, 1:])
            without = np.einsum("ba,ba->b", forward, backward[i + 1, :, :-1])
            out[:, i] = np.log(with_one) - np.log(without)
            moved = forward * q[:, i, None]
            forward *= rest[:, i, None]
            forward[:, 1:] += moved[:, :-1]
    return _sealed(out + tilt[:, None], inside, counts, lambda_b), tilt


def fourier_messages(
    log_odds: np.ndarray, counts: np.ndarray, sizes: np.ndarray, lambda_b: float, start: Any = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """The same messages from the characteristic function of the sum, O(n) per bag.

    Their error is below 1e-8 where a message is within 15 of the tilt; a stronger one, of a bag whose members are all
    sure, is cut at 30 from it, which changes no marginal by more than 1e-12.

    The tilted sum has most of its mass within a few deviations of the count, and its characteristic function most of
    its mass within the inverse of that: some 20 frequencies are enough for a bag of any size. A member is taken out by
    one division.

    Args and returns: as [`exact_messages`]. Ours; the published code has nothing of the kind.
    """
    h, inside = _padded(log_odds, sizes)
    tilt = common_tilt(h, counts, lambda_b, start)
    q = sigmoid(h + tilt[:, None])
    spread = (q * (1 - q)).sum(1)
    centre = np.round(q.sum(1))
    wide = 1 if np.isinf(lambda_b) else int(np.ceil(np.sqrt(40 / lambda_b))) + 2
    # period of the sum on the grid: what lies beyond it is in the tail (Bernstein's bound), or there is nothing
    tail = _REACH / 3 + np.sqrt((_REACH / 3) ** 2 + 2 * _REACH * spread)
    period = np.minimum(np.ceil(tail) + 2 * wide + 2, np.asarray(sizes) + 2)
    period += 1 - period % 2
    share = np.clip(_REACH / 2 / np.maximum(spread - 0.25, 1e-9), 0, 1)  # of the leave-one-out sum
    highest = np.minimum(np.ceil(period * np.arcsin(np.sqrt(share)) / np.pi), (period - 1) / 2)
    k = np.arange(int(highest.max(initial=0)) + 1)
    turn = np.exp(2j * np.pi * k / period[:, None])  # (B, K)
    values = centre[:, None] + np.arange(-wide, wide + 1)
    phi = _potential(counts, values, tilt, lambda_b) * ((values >= 0) & (values <= np.asarray(sizes)[:, None]))
    window = np.einsum(
        "bm,bkm->bk", phi, np.exp(-2j * np.pi * k[None, :, None] * values[:, None] / period[:, None, None])
    )
    window *= np.where(k == 0, 1.0, 2.0) * (k <= highest[:, None])
    factor = q[..., None] * (turn - 1)[:, None]  # (B, n, K)
    factor += 1
    whole = factor.prod(1) * window
    np.reciprocal(factor, out=factor)
    sums = np.matmul(factor, np.stack([whole, whole * turn], 2)).real  # (B, n, 2)
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(sums, 1e-300))
    out = np.where(sums.min(2) > 0, logs[..., 1] - logs[..., 0], np.where(sums[..., 1] > sums[..., 0], 30.0, -30.0))
    return _sealed(out + tilt[:, None], inside, counts, lambda_b), tilt


def gaussian_messages(log_odds: np.ndarray, bag: np.ndarray, counts: np.ndarray, lambda_b: float) -> np.ndarray:
    """Messages by a normal distribution for the number of the other positives, O(n): for large bags.

    Args:
        log_odds (`(N,)`): Incoming log-odds. bag (`(N,)` integers): Bag of each member. counts (`(B,)`): c.

    Returns:
        `(N,)`: `(2 (c - mu_i) - 1) / (2 v_i + 1 / lambda_b)`. Wrong by some 1e-3 from 256 members on where log-odds
        are small, by .2 and more for seven.
    """
    q = sigmoid(np.clip(log_odds, -CLIP, CLIP))
    spread = q * (1 - q)
    mean = np.bincount(bag, weights=q, minlength=len(counts))[bag] - q
    variance = np.bincount(bag, weights=spread, minlength=len(counts))[bag] - spread
    soft = 0.0 if np.isinf(lambda_b) else 1 / lambda_b
    return np.clip((2 * (counts[bag] - mean) - 1) / np.maximum(2 * variance + soft, 1e-9), -CLIP, CLIP)


class CountFactors:
    """The count factors of all bags: which rows are members, and how each bag's messages are computed.

    Parameters:
        bag (`(N,)` integers): 0 to B - 1, -1 for a row in no bag.
        counts (`(B,)`): Positives of each bag.
        lambda_b (`float`), method (`str`): `"exact"` (O(n^2)), `"fourier"` (O(n)), `"auto"` (exact up to 32 members,
            fourier beyond), or `"gaussian"`.
    """

    def __init__(self, bag: np.ndarray, counts: np.ndarray, lambda_b: float, method: str = "auto"):
        self.counts, self.lambda_b, self.method = np.asarray(counts, dtype=np.float64), lambda_b, method
        self.rows = np.flatnonzero(bag >= 0)
        self.bag = bag[self.rows]
        self.sizes = np.bincount(self.bag, minlength=len(self.counts))
        self.tilts = np.zeros(len(self.counts))  # of the last call: where the next search begins
        self.batches = [] if method == "gaussian" else self._batches()

    def _is_small(self, size: int) -> bool:
        return self.method == "exact" or (self.method == "auto" and size <= SMALL)

    def _batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(bags, members `(B, n)` with -1 as padding), bags of like sizes together."""
        order = np.argsort(self.bag, kind="stable")
        start = np.concatenate([[0], np.cumsum(self.sizes)])
        bags = np.flatnonzero(self.sizes > 0)
        bags = bags[np.argsort(self.sizes[bags], kind="stable")]
        found = []
        while len(bags):
            smallest = int(self.sizes[bags[0]])
            most = min(int(smallest * 1.25) + 2, SMALL) if smallest <= SMALL else int(smallest * 1.25) + 2
            reach = int(np.searchsorted(self.sizes[bags], most, side="right"))
            width = int(self.sizes[bags[reach - 1]])
            step = max(1, _CELLS // ((width + 2) ** 2 if self._is_small(width) else 24 * width))
            for first in range(0, reach, step):
                part = bags[first : min(first + step, reach)]
                place = start[part][:, None] + np.arange(width)
                inside = np.arange(width)[None] < self.sizes[part][:, None]
                found.append((part, np.where(inside, order[np.where(inside, place, 0)], -1)))
            bags = bags[reach:]
        return found

    def messages(self, log_odds: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
        """Messages `(N,)` for incoming log-odds `(N,)` of all rows; 0 for rows in no bag, or in no chosen one.

        Args:
            log_odds (`(N,)`). chosen (`(B,)` bool, *optional*): Compute those of these bags only.
        """
        own = np.asarray(log_odds, dtype=np.float64)[self.rows]
        out = np.zeros(len(own))
        if self.method == "gaussian" and len(own):
            out = gaussian_messages(own, self.bag, self.counts, self.lambda_b)
        for bags, members in self.batches:
            if chosen is not None:
                kept = chosen[bags]
                bags, members = bags[kept], members[kept]
                if not len(bags):
                    continue
            inside = members >= 0
            compute = exact_messages if self._is_small(members.shape[1]) else fourier_messages
            sizes, begin = self.sizes[bags], self.tilts[bags]
            part, self.tilts[bags] = compute(own[members], self.counts[bags], sizes, self.lambda_b, begin)
            out[members[inside]] = part[inside]
        whole = np.zeros(len(log_odds))
        whole[self.rows] = out
        return whole
