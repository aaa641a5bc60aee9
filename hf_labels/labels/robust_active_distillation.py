"""RAD: which rows to ask a teacher about that is wrong on some of them, nobody knows which.

A game. The learner picks a distribution over the rows, then an adversary picks the K rows on which the teacher is
wrong; a row is worth its gain, and `wrong_reward` times its gain where the teacher is wrong. Both forms (one draw, and
`budget` distinct rows) are solved exactly.
"""

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

FLOOR = 1e-6  # smallest gain that counts
_TIE = 1e-12


@dataclass(frozen=True)
class RADResult:
    """Solution of the game.

    Parameters:
        probs (`np.ndarray` of shape `(n,)`): Probability of each row for a single draw; sums to 1.
        inclusion (`np.ndarray` of shape `(n,)`, *optional*): Probability that a row is among `budget` distinct ones;
            sums to the budget. `None` without a budget.
        k_star (`int`): Rows that a single draw can hit.
        value (`float`): What the solution earns at least, wherever the teacher errs: of `inclusion` if there is one,
            else of `probs`.
        fallback (`bool`): No query pays off in the worst case, and the rows are drawn uniformly instead.
    """

    probs: np.ndarray
    inclusion: np.ndarray | None
    k_star: int
    value: float
    fallback: bool = False


def teacher_errors(wrong: int, checked: int, pool_size: int) -> int:
    """K: how many answers on the pool will be wrong, from a check on labelled rows.

    Args:
        wrong (`int`), checked (`int`): Wrong answers among so many labelled rows.
        pool_size (`int`): n.

    Returns:
        `int`: `ceil(n (wrong + 1) / (checked + 2))` (Laplace), at most n.

    Raises:
        ValueError: If `wrong` is not in [0, checked], or a number is negative.
    """
    if not 0 <= wrong <= checked or pool_size < 0:
        raise ValueError(f"Need 0 <= wrong <= checked, got wrong={wrong}, checked={checked}, pool_size={pool_size}.")
    return errors_of_rate((wrong + 1) / (checked + 2), pool_size)


def errors_of_rate(rate: float, pool_size: int) -> int:
    """K = `ceil(rate * n)`, at most n. Raises `ValueError` if the rate is not in [0, 1]."""
    if not 0 <= rate <= 1:
        raise ValueError(f"The teacher's error rate must be in [0, 1], got {rate}.")
    return min(math.ceil(rate * pool_size - _TIE), pool_size)


def worst_case_value(weights: Any, gains: Any, num_errors: int, wrong_reward: float = -1.0) -> float:
    """What weights (draw or inclusion probabilities) earn when the teacher is wrong on the worst `num_errors` rows.

    `sum_i u_i - (1 - wrong_reward) * (sum of the K largest u)`, with `u_i = weights_i * gains_i`.
    """
    earned = np.sort(np.asarray(weights, dtype=np.float64) * np.asarray(gains, dtype=np.float64))[::-1]
    return float(earned.sum() - (1.0 - wrong_reward) * earned[: max(num_errors, 0)].sum())


def rad_distribution(
    gains: Any,
    num_errors: int,
    wrong_reward: float = -1.0,
    budget: float | None = None,
    fallback: bool = True,
) -> RADResult:
    """Solve the game.

    A single draw: with gains sorted descending, `H_k = sum_{i<=k} 1/g_i` and `c = 1 - wrong_reward`,
    `k* = argmax_k (k - c K) / H_k` (the smallest among equals) and `q_i = (1/g_i) / H_{k*}` on the first `k*` rows:
    among the rows worth asking about, the odds are inverse to the gain, so that none is worth attacking.
    With a budget: inclusion probabilities `pi_i <= 1` that sum to it and maximise
    `sum_i u_i - c * (sum of the K largest u)`, `u = pi * g`.

    Args:
        gains (array of shape `(n,)`): What a right answer is worth, 0 or more. Gains below 1e-6 count as 1e-6.
        num_errors (`int`): K, rows on which the teacher is wrong; more than n counts as n.
        wrong_reward (`float`, *optional*, defaults to `-1.0`): What a wrong answer is worth, as a factor of the gain:
            0 (worthless) or less (-1: does as much harm as a right one does good).
        budget (`float`, *optional*): Rows to ask about.
        fallback (`bool`, *optional*, defaults to `True`): When the best value is not above 0 (the teacher is wrong so
            often that any query loses in the worst case), warn and draw uniformly. `False` returns the optimum.

    Returns:
        [`RADResult`]

    Raises:
        ValueError: If gains are negative, NaN or empty (names the row), `num_errors` or `budget` is negative, or
            `wrong_reward` is above 0.

    Example:
        >>> found = rad_distribution([1.0, 0.5, 0.5, 0.1], num_errors=1, wrong_reward=0.0)
        >>> found.k_star, found.probs.round(2).tolist(), found.value
        (3, [0.2, 0.4, 0.4, 0.0], 0.4)

    Cost O(n log n) time, O(n) memory, with or without a budget.
    Source: Baykal et al., arXiv:2210.01213. The formulas were derived anew and checked against linear programs; the
    paper's own normalisation of the payoff may differ.
    """
    gain = check_gains(gains)
    if num_errors < 0 or (budget is not None and not budget >= 0):
        raise ValueError(f"`num_errors` and `budget` must be 0 or more, got {num_errors} and {budget}.")
    if not wrong_reward <= 0:
        raise ValueError(f"`wrong_reward` must be 0 or less, got {wrong_reward}.")
    size, errors = len(gain), min(int(num_errors), len(gain))
    order = np.argsort(-gain, kind="stable")
    ordered, cost = gain[order], 1.0 - wrong_reward
    probs, k_star, value = _single_draw(ordered, errors, cost)
    inclusion = None
    if budget is not None:
        if budget > size:
            logger.warning("`budget` is %s and there are %d rows: all of them are asked about.", budget, size)
        budget = min(float(budget), float(size))
        inclusion = _budgeted(ordered, errors, cost, budget)
        value = worst_case_value(inclusion, ordered, errors, wrong_reward)
    flat = bool((gain <= FLOOR).all())
    loses = value <= 0 and errors > 0 and (budget is None or 0 < budget < size)
    if fallback and (loses or flat):
        if flat:
            logger.warning("All gains are below %g: rows are drawn uniformly.", FLOOR)
        else:
            logger.warning(
                "With %d of %d answers wrong no query pays off in the worst case: rows are drawn uniformly. Check the "
                "teacher, or lower `num_errors`.",
                *(errors, size),
            )
        probs = np.full(size, 1.0 / size)
        inclusion = None if budget is None else np.full(size, budget / size)
        value = worst_case_value(probs if inclusion is None else inclusion, ordered, errors, wrong_reward)
        return RADResult(probs, inclusion, size, value, True)
    return RADResult(_put(probs, order), None if inclusion is None else _put(inclusion, order), k_star, value)


def check_gains(gains: Any) -> np.ndarray:
    """Gains as float64, raised to the floor. Raises `ValueError` naming the first row that is negative or NaN."""
    gain = np.asarray(gains, dtype=np.float64)
    if gain.ndim != 1 or not len(gain):
        raise ValueError(f"`gains` must be one number for each of at least one row, got shape {gain.shape}.")
    wrong = ~(np.isfinite(gain) & (gain >= 0))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"`gains` must be finite and 0 or more, got {gain[row]} at row {row}.")
    return np.maximum(gain, FLOOR)


def _put(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    out = np.empty_like(values)
    out[order] = values
    return out


def _single_draw(gain: np.ndarray, errors: int, cost: float) -> tuple[np.ndarray, int, float]:
    """For gains in descending order: probabilities, size of the support, value."""
    ranks, sums = np.arange(1, len(gain) + 1), np.cumsum(1.0 / gain)
    values = (ranks - cost * errors) / sums
    best = float(values.max())
    probs = np.zeros(len(gain))
    least = (1.0 - cost) * float(gain[-1])  # all on the smallest gain: better only where every query loses
    if errors and least > best:
        probs[-1] = 1.0
        return probs, 1, least
    k_star = int(np.flatnonzero(values >= best - _TIE * abs(best))[0]) + 1
    probs[:k_star] = 1.0 / gain[:k_star] / sums[k_star - 1]
    return probs, k_star, float(values[k_star - 1])


def _budgeted(gain: np.ndarray, errors: int, cost: float, budget: float) -> np.ndarray:
    """Inclusion probabilities for gains in descending order.

    For a level tau, `pi_i = min(1, tau / g_i)` is filled in descending order until the budget is spent; what is left
    when all rows are filled goes to the smallest gains. The value is concave in tau and linear between the levels
    tried, so the best of them is the optimum.
    """
    size = len(gain)
    if budget >= size:
        return np.ones(size)
    if budget <= 0:
        return np.zeros(size)
    sums = np.concatenate([[0.0], np.cumsum(1.0 / gain)])
    totals = np.concatenate([[0.0], np.cumsum(gain)])
    filling = _filling_levels(gain, sums, budget)
    tau = np.concatenate([filling, gain])
    values = _level_values(tau, gain, sums, totals, errors, cost, budget)
    best = float(values.max())
    level = float(tau[np.flatnonzero(values >= best - _TIE * abs(best))[0]])
    if errors and level <= filling[-1] * (1 + 1e-9):  # the best of these levels is the lowest: look further down
        level = _best_low_level(float(filling[-1]), gain, sums, errors, cost, budget)
    return _fill(level, gain, budget)


def _filling_levels(gain: np.ndarray, sums: np.ndarray, budget: float) -> np.ndarray:
    """Levels at which the first k rows, k from ceil(budget) to n, spend the budget exactly."""
    size = len(gain)
    counts = np.arange(math.ceil(budget), size + 1)
    # sum_{i<=k} min(1, g_m / g_i) = k - (m - g_m H_m) falls with m: m rows are below the cap
    spare = np.arange(1, size + 1) - gain * sums[1:]
    uncapped = np.searchsorted(spare, counts - budget, side="right").clip(1, counts)
    return (budget - (counts - uncapped)) / sums[uncapped]


def _best_low_level(top: float, gain: np.ndarray, sums: np.ndarray, errors: int, cost: float, budget: float) -> float:
    """The best level up to `top`, at which all rows are filled and the smallest gains take what is left.

    Of use where nearly every query loses in the worst case. The value bends where m rows are taken for sure,
    `tau = (budget - m) / H_{n-m}`, and at each gain. It is concave, so it is searched by halving.
    """
    sure = np.arange(0, math.floor(budget) + 1)
    levels = np.concatenate([(budget - sure) / sums[len(gain) - sure], gain, [0.0, top]])
    levels = np.unique(levels[levels <= top])

    def value(place: int) -> float:
        tau = float(levels[place])
        earned = _fill(tau, gain, budget) * gain
        return float(earned.sum() - cost * (errors * tau + np.clip(earned - tau, 0.0, None).sum()))

    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        if value(middle + 1) >= value(middle):
            low = middle + 1
        else:
            high = middle
    return float(levels[low])


def _level_values(
    tau: np.ndarray,
    gain: np.ndarray,
    sums: np.ndarray,
    totals: np.ndarray,
    errors: int,
    cost: float,
    budget: float,
) -> np.ndarray:
    """Worst-case value of every level, from prefix sums; -inf where all rows are filled and budget is left over."""
    size = len(gain)
    above = np.searchsorted(-gain, -tau, side="right")  # rows with g >= tau: pi = tau / g, u = tau
    spent = tau * sums[above]
    values = np.full(len(tau), -np.inf)
    # The budget ends among the rows with u = tau: `full` of them, and one in part.
    early = spent >= budget
    full = np.searchsorted(sums, budget / np.maximum(tau, 1e-300), side="right") - 1
    full = np.minimum(full, above)
    part = np.maximum(budget - tau * sums[full], 0.0) * gain[np.minimum(full, size - 1)]
    hit = tau * np.minimum(errors, full) + np.where(errors > full, part, 0.0)
    values = np.where(early, tau * full + part - cost * hit, values)
    # The budget ends among the rows with u = g.
    left = budget - spent
    whole = np.floor(left + 1e-9).astype(np.int64).clip(0)
    late = ~early & (above + left <= size + 1e-9)
    end = np.minimum(above + whole, size)
    part = np.clip(left - whole, 0.0, 1.0) * np.where(end < size, gain[np.minimum(end, size - 1)], 0.0)
    worst = np.minimum(errors, end)
    hit = tau * np.minimum(worst, above) + np.maximum(totals[worst] - totals[np.minimum(above, worst)], 0.0)
    hit = hit + np.where(errors > end, part, 0.0)
    earned = tau * above + totals[end] - totals[np.minimum(above, end)] + part
    return np.where(late, earned - cost * hit, values)


def _fill(tau: float, gain: np.ndarray, budget: float) -> np.ndarray:
    """Inclusion probabilities at a level, for gains in descending order; they sum to the budget."""
    caps = np.minimum(1.0, tau / gain)
    caps[1.0 - caps < _TIE] = 1.0
    spent = np.cumsum(caps)
    pi = np.clip(budget - (spent - caps), 0.0, caps)
    left = budget - float(pi.sum())
    if left > _TIE * max(budget, 1.0):  # all rows are at their cap
        room = 1.0 - pi[::-1]
        before = np.cumsum(room) - room
        pi = pi + np.clip(left - before, 0.0, room)[::-1]
    return pi


def systematic_sample(inclusion: Any, rng: np.random.Generator) -> np.ndarray:
    """Distinct rows whose inclusion probabilities are exactly those given.

    Rows are put in random order; with one uniform number t, those are taken at which the running sum of `inclusion`
    passes t, t + 1, t + 2, ...

    Args:
        inclusion (array of shape `(n,)`): In [0, 1]; the sum must be a whole number b.
        rng (`np.random.Generator`): Random numbers.

    Returns:
        `np.ndarray` of shape `(b,)`, int64: Row numbers.

    Raises:
        ValueError: If a value is outside [0, 1], or the sum is not whole.
    """
    pi = np.asarray(inclusion, dtype=np.float64)
    if pi.ndim != 1 or not ((pi >= 0) & (pi <= 1 + 1e-9)).all():
        raise ValueError("`inclusion` must hold one probability in [0, 1] per row.")
    count = round(float(pi.sum()))
    if abs(float(pi.sum()) - count) > 1e-6:
        raise ValueError(f"`inclusion` must sum to a whole number of rows, got {pi.sum():.6g}.")
    if count == 0:
        return np.empty(0, dtype=np.int64)
    order = rng.permutation(len(pi))
    sums = np.cumsum(pi[order])
    sums[np.flatnonzero(pi[order])[-1] :] = count
    taken = np.searchsorted(sums, rng.uniform() + np.arange(count), side="right")
    for place in range(1, count):  # rounding may put two marks into a row of probability 1
        taken[place] = max(taken[place], taken[place - 1] + 1)
    return order[taken]


class RADSampler:
    """Draws query sets; a new one with every call.

    Args:
        seed (`int` or sequence of `int`): Seed of the random numbers; the same seed gives the same sets.
        wrong_reward (`float`, *optional*, defaults to `-1.0`): As in [`rad_distribution`].

    Attributes:
        last ([`RADResult`] or `None`): Solution behind the last set.

    Example:
        >>> RADSampler(seed=0).select([0.9, 0.8, 0.1, 0.05], budget=2, num_errors=0).tolist()
        [0, 1]
    """

    def __init__(self, seed: Any, wrong_reward: float = -1.0) -> None:
        self.rng = np.random.default_rng(seed)
        self.wrong_reward = wrong_reward
        self.last: RADResult | None = None

    def select(self, gains: Any, budget: int, num_errors: int) -> np.ndarray:
        """Distinct row numbers, sorted; arguments and errors as in [`rad_distribution`].

        All rows when `budget` is more than their number, none when it is 0.
        """
        self.last = rad_distribution(gains, num_errors, self.wrong_reward, budget)
        return np.sort(systematic_sample(self.last.inclusion, self.rng))
