"""How good are embeddings: linear probe, nearest neighbours, and cosines between and within classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_labels.metrics.functional._inputs import check_scores, to_numpy


def _pair(features: Any, labels: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    vectors, classes = check_scores(features, f"{name}_features"), to_numpy(labels, f"{name}_labels")
    if classes.shape != (len(vectors),):
        raise ValueError(f"`{name}_labels` must be class ids of shape ({len(vectors)},), got {classes.shape}.")
    return vectors, classes


def linear_probe(
    train_features: Any,
    train_labels: Any,
    test_features: Any,
    test_labels: Any,
    val_features: Any = None,
    val_labels: Any = None,
    grid: Sequence[float] = (0.01, 0.1, 1.0, 10.0, 100.0),
    seed: int = 0,
    max_iter: int = 1000,
) -> dict[str, float]:
    """Accuracy of a logistic regression on frozen features, its strength chosen on validation rows.

    Features are standardised with the training mean and deviation. The grid is tried on the validation rows (a
    stratified fifth of the training rows when none are given); the winner, the smallest `C` among equals, is fitted
    again on training and validation rows together. Test rows are used once.

    Args:
        train_features (array-like of shape `(N, d)`), train_labels (`(N,)`): Training rows and class ids.
        test_features (array-like of shape `(M, d)`), test_labels (`(M,)`): Test rows.
        val_features (array-like of shape `(V, d)`, *optional*), val_labels (`(V,)`, *optional*): Validation rows.
        grid (list of `float`, *optional*): Values of scikit-learn's `C`, the inverse of the penalty, above 0.
        seed (`int`, *optional*, defaults to `0`): Seed of the validation split.
        max_iter (`int`, *optional*, defaults to `1000`): Iterations of the solver.

    Returns:
        `dict[str, float]`: `accuracy` (0..1, higher is better), `val_accuracy` of the winner, and `C`.

    Raises:
        ValueError: For shapes that disagree, NaN or infinite features, one class only, an empty or not positive
            `grid`, or only one of the two validation arguments.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    strengths = sorted(float(value) for value in grid)
    if not strengths or strengths[0] <= 0:
        raise ValueError(f"`grid` must hold numbers above 0, got {list(grid)}.")
    train, test = _pair(train_features, train_labels, "train"), _pair(test_features, test_labels, "test")
    if (val_features is None) != (val_labels is None):
        raise ValueError("Give both `val_features` and `val_labels`, or neither.")
    if len(np.unique(train[1])) < 2:
        raise ValueError(f"`train_labels` holds one class only: {np.unique(train[1]).tolist()}.")
    if val_features is None:
        counts = np.unique(train[1], return_counts=True)[1]
        split = train_test_split(
            *train,
            test_size=max(0.2, len(counts) / len(train[1])) if counts.min() > 1 else 0.2,
            random_state=seed,
            stratify=train[1] if counts.min() > 1 else None,
        )
        fit, val = (split[0], split[2]), (split[1], split[3])
        whole = train
    else:
        fit, val = train, _pair(val_features, val_labels, "val")
        whole = (np.concatenate([fit[0], val[0]]), np.concatenate([fit[1], val[1]]))

    def model(strength: float) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=max_iter))

    tried = [float(model(strength).fit(*fit).score(*val)) for strength in strengths]
    best = int(np.argmax(tried))
    accuracy = float(model(strengths[best]).fit(*whole).score(*test))
    return {"accuracy": accuracy, "val_accuracy": tried[best], "C": strengths[best]}


def knn_accuracy(train_features: Any, train_labels: Any, test_features: Any, test_labels: Any, k: int = 5) -> float:
    """Accuracy of the vote of the k training rows of highest cosine; 0..1, higher is better.

    Args:
        train_features (array-like of shape `(N, d)`), train_labels (`(N,)`): Rows that vote, and their class ids.
        test_features (array-like of shape `(M, d)`), test_labels (`(M,)`): Rows to classify.
        k (`int`, *optional*, defaults to `5`): Voters. A tied vote goes to the class that sorts first.

    Raises:
        ValueError: For shapes that disagree, NaN or infinite features, or k outside [1, N].
    """
    from sklearn.neighbors import KNeighborsClassifier

    train, test = _pair(train_features, train_labels, "train"), _pair(test_features, test_labels, "test")
    if not 1 <= k <= len(train[1]):
        raise ValueError(f"`k` must be from 1 to the {len(train[1])} training rows, got {k}.")
    model = KNeighborsClassifier(n_neighbors=k, metric="cosine", algorithm="brute")
    return float(model.fit(*train).score(*test))


def pair_cosines(
    features: Any, labels: Any, keys: Any = None, key_labels: Any = None, max_cells: int = 4_000_000
) -> dict[str, float]:
    """Mean cosine of the pairs that share a label and of the pairs that do not.

    Args:
        features (array-like of shape `(N, d)`): Vectors.
        labels (array-like of shape `(N,)` or `(N, C)`): Class ids, or 0/1 label sets (a pair shares a label when the
            sets meet).
        keys (array-like of shape `(M, d)`, *optional*): Partners, such as class centres. By default the features
            themselves, where the pair of a row with itself does not count.
        key_labels (`(M,)` or `(M, C)`, *optional*): Labels of `keys`, of the same kind as `labels`.
        max_cells (`int`, *optional*, defaults to `4_000_000`): Most cosines held at once.

    Returns:
        `dict[str, float]`: `mean_positive_cosine` (higher is better) and `mean_negative_cosine` (lower is better),
        both in [-1, 1]; NaN when there is no such pair.

    Raises:
        ValueError: For shapes that disagree, NaN, infinite or zero vectors, or only one of `keys` and `key_labels`.

    Cost O(N M (d + C)), memory O(max_cells). Used to watch multi-label cluster discrimination (arXiv:2407.17331).
    """
    if (keys is None) != (key_labels is None):
        raise ValueError("Give both `keys` and `key_labels`, or neither.")
    unit, sets = _unit(features, "features"), to_numpy(labels, "labels")
    other, other_sets = (unit, sets) if keys is None else (_unit(keys, "keys"), to_numpy(key_labels, "key_labels"))
    if sets.ndim not in (1, 2) or sets.ndim != other_sets.ndim or sets.shape[1:] != other_sets.shape[1:]:
        raise ValueError(f"Labels must both be (N,) or both (N, C), got {sets.shape} and {other_sets.shape}.")
    if len(sets) != len(unit) or len(other_sets) != len(other) or unit.shape[1] != other.shape[1]:
        raise ValueError(
            f"Vectors and labels disagree: {unit.shape} with {sets.shape}, {other.shape} with {other_sets.shape}."
        )
    sums, counts = np.zeros(2), np.zeros(2)
    step = max(1, max_cells // len(other))
    for start in range(0, len(unit), step):
        block = slice(start, start + step)
        cosine = unit[block] @ other.T
        if sets.ndim == 1:
            same = sets[block, None] == other_sets
        else:
            same = (sets[block].astype(np.float32) @ other_sets.T.astype(np.float32)) > 0
        counted = np.ones_like(same)
        if keys is None:
            counted[np.arange(len(cosine)), np.arange(start, start + len(cosine))] = False
        for which, cells in enumerate((same & counted, ~same & counted)):
            sums[which] += cosine[cells].sum()
            counts[which] += cells.sum()
    means = [float(total / count) if count else math.nan for total, count in zip(sums, counts, strict=True)]
    return {"mean_positive_cosine": means[0], "mean_negative_cosine": means[1]}


def _unit(vectors: Any, name: str) -> np.ndarray:
    array = check_scores(vectors, name).astype(np.float64)
    norm = np.linalg.norm(array, axis=1, keepdims=True)
    if not norm.all():
        raise ValueError(f"`{name}` has a zero vector at row {int(norm[:, 0].argmin())}: no cosine.")
    return array / norm
