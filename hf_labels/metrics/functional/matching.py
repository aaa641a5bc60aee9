"""Found classes have no names: accuracy and mixtures after the best match with the true ones."""

from typing import Any

import numpy as np

from hf_labels.metrics.functional._inputs import check_scores, to_numpy


def match_classes(predictions: Any, references: Any, num_classes: int | None = None) -> np.ndarray:
    """The one-to-one match of predicted with true classes that has the most rows in common.

    Args:
        predictions, references (integer arrays of shape `(N,)`): Class ids; rows with a negative reference (missing)
            do not count.
        num_classes (`int`, *optional*): K; the largest id + 1 by default.

    Returns:
        `np.ndarray` of shape `(K,)`, int64: `matching[k]` is the true class of the predicted class k.

    Raises:
        ValueError: If lengths differ, an id is out of range, or no row has a reference.

    Example:
        >>> match_classes([0, 0, 1, 2], [2, 2, 0, 1]).tolist()
        [2, 0, 1]
    """
    return _match(_contingency(*_checked(predictions, references, num_classes)))


def matched_accuracy(
    predictions: Any, references: Any, num_classes: int | None = None, with_matching: bool = False
) -> dict[str, Any]:
    """Accuracy of found classes after the best one-to-one match with the true ones (clustering accuracy).

    Args:
        predictions, references, num_classes: As in [`match_classes`]. `predictions` may be scores `(N, K)`.

        with_matching (`bool`, *optional*, defaults to `False`): Add the match.

    Returns:
        `dict`: `matched_accuracy` in [0, 1], higher is better; `n`, the rows with a reference; on demand `matching`, a
            list: the true class of each predicted one.

    Raises:
        ValueError: As [`match_classes`].

    Example:
        >>> matched_accuracy([0, 0, 1, 1], [1, 1, 0, 1], with_matching=True)
        {'matched_accuracy': 0.75, 'n': 4, 'matching': [1, 0]}

    Source: Roberts et al., arXiv:2207.13179, section 6; Kuhn 1955 for the match.
    """
    found, true, number = _checked(predictions, references, num_classes)
    table = _contingency(found, true, number)
    matching = _match(table)
    right = int(table[np.arange(number), matching].sum())
    found_scores = {"matched_accuracy": right / len(true), "n": len(true)}
    return found_scores | ({"matching": matching.tolist()} if with_matching else {})


def mixture_l1(predictions: Any, references: Any, matching: Any = None, with_matching: bool = False) -> dict[str, Any]:
    """Error of estimated class shares of domains: sum of `|true - estimate|` over classes and domains.

    Args:
        predictions, references (arrays of shape `(K, r)`): p(class | domain), estimated and true.
        matching (array of shape `(K,)`, *optional*): True class of each estimated one, from [`match_classes`]; the
            match with the smallest error by default.
        with_matching (`bool`, *optional*, defaults to `False`): Add the match.

    Returns:
        `dict`: `mixture_l1` in [0, 2 r], lower is better; `mixture_l1_per_domain`, the same divided by r, in [0, 2];
            on demand `matching`, a list.

    Raises:
        ValueError: If shapes differ, a share is negative, a column does not sum to 1 (within 1e-3), or `matching` is
            no permutation.

    Example:
        >>> mixture_l1([[0.25, 0.75], [0.75, 0.25]], [[0.75, 0.25], [0.25, 0.75]])["mixture_l1"]
        0.0

    Source: Roberts et al., arXiv:2207.13179, section 6; the authors' code reports the sum.
    """
    found, true = (
        _mixtures(values, name) for values, name in ((predictions, "predictions"), (references, "references"))
    )
    if found.shape != true.shape:
        raise ValueError(f"`predictions` and `references` must have one shape, got {found.shape} and {true.shape}.")
    if matching is None:
        from scipy.optimize import linear_sum_assignment

        order = linear_sum_assignment(np.abs(found[:, None] - true[None]).sum(2))[1]
    else:
        order = to_numpy(matching, "matching").astype(np.int64)
        if sorted(order.tolist()) != list(range(len(true))):
            raise ValueError(f"`matching` must hold each of the {len(true)} classes once, got {order.tolist()}.")
    total = float(np.abs(found - true[order]).sum())
    scores = {"mixture_l1": total, "mixture_l1_per_domain": total / true.shape[1]}
    return scores | ({"matching": order.tolist()} if with_matching else {})


def _mixtures(values: Any, name: str) -> np.ndarray:
    table = check_scores(values, name).astype(np.float64)
    if (table < 0).any():
        raise ValueError(f"`{name}` must hold shares, got {table.min()}.")
    off = np.abs(table.sum(0) - 1) > 1e-3
    if off.any():
        column = int(off.argmax())
        raise ValueError(f"Domain {column} of `{name}` sums to {table[:, column].sum():.4g} over the classes, not 1.")
    return table


def _checked(predictions: Any, references: Any, num_classes: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    found, true = to_numpy(predictions, "predictions"), to_numpy(references, "references")
    if found.ndim == 2:
        found = check_scores(found).argmax(1)
    if found.ndim != 1 or found.shape != true.shape:
        raise ValueError(f"`predictions` and `references` must be ids (N,), got shapes {found.shape}, {true.shape}.")
    known = true >= 0
    if not known.any():
        raise ValueError("No row has a reference: there is nothing to match.")
    number = int(max(found.max(), true.max())) + 1 if num_classes is None else num_classes
    for name, ids, counts in (("predictions", found, np.ones(len(found), bool)), ("references", true, known)):
        bad = (((ids < 0) | (ids >= number)) & counts) | (ids != np.floor(ids))
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(f"`{name}` must be class ids in [0, {number}), got {ids[row]} at row {row}.")
    return found[known].astype(np.int64), true[known].astype(np.int64), number


def _contingency(found: np.ndarray, true: np.ndarray, number: int) -> np.ndarray:
    return np.bincount(found * number + true, minlength=number * number).reshape(number, number)


def _match(table: np.ndarray) -> np.ndarray:
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(table, maximize=True)[1].astype(np.int64)
