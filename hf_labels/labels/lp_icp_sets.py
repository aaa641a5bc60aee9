"""Subsets of labels under a budget: listed, counted and ranked without looking at the other of the 2^L ones.

`costs` are what it costs to flip each label, ascending and not negative; a *flip set* is allowed when its costs sum to
at most `slack`. All of it is ours (the paper only says that surely rejected label sets are passed over).
"""

import heapq
from collections.abc import Iterator
from itertools import count as counter

import numpy as np


def iter_flip_sets(costs: np.ndarray, slack: float) -> Iterator[tuple[int, ...]]:
    """Every allowed flip set once, depth first: positions in `costs`, ascending. Memory O(largest set).

    At most `2 n - 1` comparisons for n sets: each set has one that succeeds, and at most one that fails.

    Args:
        costs (`np.ndarray` of shape `(L,)`): Ascending, not negative.
        slack (`float`): Budget; below 0 nothing is allowed, not even the empty set.
    """
    if slack < 0:
        return
    prices = [float(cost) for cost in costs]
    path: list[int] = []
    sums = [0.0]
    place = 0
    yield ()
    while True:
        if place < len(prices) and sums[-1] + prices[place] <= slack:
            path.append(place)
            sums.append(sums[-1] + prices[place])
            place += 1
            yield tuple(path)
        elif path:
            place = path.pop() + 1  # ascending costs: later siblings of a place that fails fail too
            sums.pop()
        else:
            return


def enumerate_flip_sets(costs: np.ndarray, slack: float, limit: int) -> np.ndarray | None:
    """All allowed flip sets as rows of a matrix, level by level of their size, each level in one go.

    Cost O(n (L + log L)) for n sets, whatever 2^L is.

    Args:
        costs (`np.ndarray` of shape `(L,)`): Ascending, not negative.
        slack (`float`): Budget.
        limit (`int`): Most sets.

    Returns:
        `np.ndarray` of shape `(n, L)`, bool, or `None` when there are more than `limit`.
    """
    if slack < 0:
        return np.zeros((0, len(costs)), dtype=bool)
    bits = np.zeros((1, len(costs)), dtype=bool)
    last, sums = np.array([-1]), np.zeros(1)
    levels, total = [bits], 1
    while total <= limit:
        children = _children(costs, slack - sums, last)
        more = int(children.sum())
        if not more:
            return np.concatenate(levels)
        total += more
        if total > limit:
            break
        parent, place = _expand(children, last)
        bits = bits[parent]
        bits[np.arange(more), place] = True
        last, sums = place, sums[parent] + costs[place]
        levels.append(bits)
    return None


def _children(costs: np.ndarray, room: np.ndarray, last: np.ndarray) -> np.ndarray:
    """How many places after `last` still fit into `room`: the first ones, because costs ascend."""
    return np.maximum(np.searchsorted(costs, room, side="right") - (last + 1), 0)


def _expand(children: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parent and place of every child."""
    parent = np.repeat(np.arange(len(children)), children)
    first = np.cumsum(children) - children
    return parent, last[parent] + 1 + np.arange(len(parent)) - first[parent]


def count_flip_sets(
    costs: np.ndarray, slack: float, tolerance: float = 0.0, limit: int = 0
) -> tuple[int | None, bool]:
    """How many flip sets are allowed, without listing them: the subsets of every second label are sorted, and those of
    the other labels are looked up among them.

    Cost O(h log h) for h allowed subsets of one half; h is at most the number that is counted, and mostly its root.

    Args:
        costs (`np.ndarray` of shape `(L,)`): Ascending, not negative.
        slack (`float`): Budget.
        tolerance (`float`, *optional*, defaults to 0): Sums up to `slack + tolerance` count.
        limit (`int`, *optional*, defaults to 0): Most allowed subsets of one half, if it is above the default: 2^20
            for 40 labels that can be flipped or fewer (which is always enough), else 2^17.

    Returns:
        `(count, sure)`: `None` when one half has too many subsets, and the count is above the limit; `sure` is false
        when a sum lies within the tolerance of the budget.
    """
    top = slack + tolerance
    if top < 0:
        return 0, True
    free = costs[: np.searchsorted(costs, top, side="right")]
    most = max(limit, 1 << (20 if len(free) <= 40 else 17))
    halves = []
    for part in (free[0::2], free[1::2]):
        sums = np.zeros(1)
        for cost in part:
            sums = np.concatenate([sums, sums[sums <= top - cost] + cost])
            if len(sums) > most:
                return None, False
        halves.append(np.sort(sums))
    number = int(np.searchsorted(halves[0], top - halves[1], side="right").sum())
    certain = int(np.searchsorted(halves[0], slack - tolerance - halves[1], side="right").sum())
    return number, number == certain


def best_first_flip_sets(costs: np.ndarray) -> Iterator[tuple[float, list[int]]]:
    """All flip sets with their sums, cheapest first. O(k log k) for the first k.

    A set is made from a cheaper one in one way only: its last place is moved on by one, or a place is added after it.
    """
    yield 0.0, []
    if not len(costs):
        return
    ties = counter()
    # (sum, tie, last place, the places before it as a linked list, their sum)
    heap: list[tuple[float, int, int, tuple | None, float]] = [(float(costs[0]), next(ties), 0, None, 0.0)]
    while heap:
        total, _, place, rest, before = heapq.heappop(heap)
        yield total, _places(place, rest)
        after = place + 1
        if after < len(costs):
            cost = float(costs[after])
            heapq.heappush(heap, (total + cost, next(ties), after, (place, rest), total))
            heapq.heappush(heap, (before + cost, next(ties), after, rest, before))


def _places(last: int, rest: tuple | None) -> list[int]:
    found = [last]
    while rest is not None:
        place, rest = rest
        found.append(place)
    return found[::-1]
