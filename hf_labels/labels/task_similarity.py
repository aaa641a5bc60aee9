"""How well the features of a source model fit the labels of a target task: PARC, LEEP, NCE, H-score, kNN, RSA, DDS.

All are arrays in, one number out; higher is better. They need no training of the source and no source data.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

Metric = Literal["parc", "leep", "nce", "hscore", "knn", "probe_accuracy"]
METRICS = ("parc", "leep", "nce", "hscore", "knn", "probe_accuracy")


def task_similarity(
    features: Any,
    labels: Any,
    metric: str = "parc",
    n_dims: int | None = 32,
    *,
    source_probs: Any = None,
    num_classes: int | None = None,
    name: str = "features",
) -> float:
    """One of [`METRICS`] between a source's answers on a probe set and its labels.

    Args:
        features (array of shape `(n, d)`): Of the source, on the probe rows. Not read by `leep` and `nce`.
        labels (array of shape `(n,)` of class ids, or `(n, N)` 0/1 for `parc`): Of the target task.
        metric (`str`, *optional*, defaults to `"parc"`): `parc` (-100 to 100), `leep` and `nce` (log-likelihoods, 0 is
            best), `hscore` (0 to N - 1), `knn` (leave-one-out, 0 to 100) or `probe_accuracy` (cross-validated accuracy
            of a linear head, 0 to 100; ours).
        n_dims (`int`, *optional*, defaults to 32): Principal components kept of the features; `None` keeps all.
        source_probs (array of shape `(n, C)`, *optional*): The source's own class probabilities, for `leep` and `nce`.
        num_classes (`int`, *optional*): N; the largest label + 1 by default.
        name (`str`, *optional*): What to call the source in errors.

    Raises:
        ValueError: If there are fewer than 3 rows, one class, NaN or constant features, labels outside [0, N), or the
            metric is unknown or lacks its input; names the source.

    Source: Bolya et al., NeurIPS 2021 (PARC), as in their code; Borup et al., arXiv:2304.12314 (n_dims is PARC's 32).
    """
    if metric not in METRICS:
        raise ValueError(f"`metric` must be one of {', '.join(METRICS)}, got {metric!r}.")
    if metric in ("leep", "nce"):
        if source_probs is None:
            raise ValueError(
                f"Source `{name}`: `{metric}` needs `source_probs`, the source's own class probabilities."
            )
        truth = _class_ids(labels, len(np.asarray(source_probs)), num_classes, name)
        return leep(source_probs, truth) if metric == "leep" else nce(source_probs, truth)
    values = check_features(features, name)
    if metric == "parc":
        return parc(reduce_dims(values, n_dims), labels, num_classes=num_classes, name=name)
    truth = _class_ids(labels, len(values), num_classes, name)
    values = reduce_dims(values, n_dims)
    if metric == "hscore":
        return h_score(values, truth)
    if metric == "knn":
        return knn_leave_one_out(values, truth)
    from hf_labels.labels.linear_head import cross_validated_accuracy

    return cross_validated_accuracy(values, truth)


def check_features(features: Any, name: str = "features") -> np.ndarray:
    """Features as float64 `(n, d)`.

    Raises:
        ValueError: For fewer than 3 rows, NaN or infinity (names the row), or rows that are all the same.
    """
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 2 or len(values) < 3:
        raise ValueError(f"Source `{name}` must have features (n, d) of at least 3 probe rows, got {values.shape}.")
    bad = np.flatnonzero(~np.isfinite(values).all(1))
    if len(bad):
        raise ValueError(f"Source `{name}` has NaN or infinite features at row {bad[0]}. Run it in float32.")
    if bool((values == values[:1]).all()):
        raise ValueError(f"Source `{name}` has the same features for all rows (constant): no similarity is defined.")
    return values


def _class_ids(labels: Any, count: int, num_classes: int | None, name: str) -> np.ndarray:
    ids = np.asarray(labels)
    if ids.shape != (count,) or ids.dtype.kind not in "iu":
        raise ValueError(f"Source `{name}`: `labels` must be {count} class ids, got {ids.dtype} of shape {ids.shape}.")
    top = num_classes if num_classes is not None else int(ids.max(initial=0)) + 1
    wrong = np.flatnonzero((ids < 0) | (ids >= top))
    if len(wrong):
        raise ValueError(f"`labels` must be in [0, {top}), got {ids[wrong[0]]} at row {wrong[0]}.")
    if len(np.unique(ids)) < 2:
        raise ValueError(f"Source `{name}`: the probe rows show one class only ({ids[0]}). Label others.")
    return ids


def standardize(features: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and (population) deviation 1; constant columns become 0."""
    deviation = features.std(0)
    scale = np.abs(features).max(0, initial=0.0)
    constant = deviation <= 1e-12 * np.maximum(scale, 1e-300)
    return np.where(constant, 0.0, (features - features.mean(0)) / np.where(constant, 1.0, deviation))


def reduce_dims(features: np.ndarray, n_dims: int | None) -> np.ndarray:
    """The first principal components, by an exact singular value decomposition; unchanged when there are no more."""
    if n_dims is None or n_dims >= features.shape[1]:
        return features
    if n_dims < 1:
        raise ValueError(f"`n_dims` must be at least 1, got {n_dims}.")
    left, values, _ = np.linalg.svd(features - features.mean(0), full_matrices=False)
    keep = min(n_dims, len(values))
    return left[:, :keep] * values[:keep]


def _dissimilarities(rows: np.ndarray, name: str) -> np.ndarray:
    """Upper triangle of 1 - correlation of rows."""
    centred = rows - rows.mean(1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1)
    flat = np.flatnonzero(norm <= 1e-12 * np.maximum(np.abs(rows).max(1), 1e-300))
    if len(flat):
        raise ValueError(
            f"{name}: row {flat[0]} has one value in all its columns, so its correlation with others is not defined."
        )
    unit = centred / norm[:, None]
    values = 1.0 - unit @ unit.T
    # equal pairs must be ties: rounding errors of the product are not an order
    return np.round(values[np.triu_indices(len(rows), 1)], 12)


def _spearman(a: np.ndarray, b: np.ndarray, name: str) -> float:
    from scipy.stats import rankdata

    ranks = [rankdata(values) - (len(values) + 1) / 2 for values in (a, b)]
    norms = [float(np.linalg.norm(values)) for values in ranks]
    if min(norms) == 0:
        raise ValueError(f"{name}: all pairs of rows are equally far from each other; no rank correlation is defined.")
    return float(ranks[0] @ ranks[1] / (norms[0] * norms[1]))


def parc(features: Any, labels: Any, num_classes: int | None = None, name: str = "features") -> float:
    """PARC: 100 times the Spearman correlation of pairwise dissimilarities of features and of labels.

    Dissimilarity is 1 minus the correlation of two rows; features are standardised by column first, labels are one-hot
    (or 0/1 rows of several labels). Ranks are averaged over ties.

    Args:
        features (array of shape `(n, d)`): At least 3 rows.
        labels (array of shape `(n,)` of class ids, or `(n, N)` of 0 and 1): Target labels.
        num_classes, name (*optional*): As in [`task_similarity`].

    Returns:
        `float`: -100 to 100.

    Raises:
        ValueError: As [`task_similarity`].

    Example:
        >>> one_hot = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
        >>> round(parc(one_hot, [0, 1, 2, 0, 1, 2]), 6)
        100.0

    Cost O(n^2 d + n^2 log n): take at most 500 rows.
    Source: Bolya et al., NeurIPS 2021, section 4.
    """
    values = standardize(check_features(features, name))
    hot = np.asarray(labels)
    if hot.ndim == 1:
        ids = _class_ids(hot, len(values), num_classes, name)
        hot = np.eye(num_classes or int(ids.max()) + 1)[ids]
    if hot.shape[:1] != (len(values),) or hot.ndim != 2 or not np.isin(hot, (0, 1)).all():
        raise ValueError(f"`labels` must be class ids (n,) or 0/1 rows (n, N) with n={len(values)}, got {hot.shape}.")
    if values.shape[1] < 2:
        raise ValueError(f"Source `{name}` has one feature only; rows of one number have no correlation.")
    mine = _dissimilarities(values, f"Source `{name}`")
    return 100.0 * _spearman(mine, _dissimilarities(hot.astype(np.float64), "`labels`"), f"Source `{name}`")


def rsa(features_a: Any, features_b: Any) -> float:
    """RSA: PARC with the features of a second model in place of labels; -100 to 100."""
    a, b = (standardize(check_features(f, n)) for f, n in ((features_a, "features_a"), (features_b, "features_b")))
    return 100.0 * _spearman(_dissimilarities(a, "`features_a`"), _dissimilarities(b, "`features_b`"), "RSA")


def dds(features_a: Any, features_b: Any) -> float:
    """DDS: 100 times the unbiased CKA of the cosine dissimilarity matrices of two models; needs at least 4 rows.

    Raises:
        ValueError: As [`check_features`], or for fewer than 4 rows.
    """
    centred = []
    for features, name in ((features_a, "features_a"), (features_b, "features_b")):
        values = standardize(check_features(features, name))
        if len(values) < 4:
            raise ValueError(f"DDS needs at least 4 rows, got {len(values)}.")
        unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-300)
        centred.append(_unbiased_centring(1.0 - unit @ unit.T))
    a, b = centred
    return 100.0 * float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))


def _unbiased_centring(matrix: np.ndarray) -> np.ndarray:
    count = len(matrix)
    out = matrix.copy()
    np.fill_diagonal(out, 0.0)
    means = out.sum(0) / (count - 2)
    means = means - means.sum() / (2 * (count - 1))
    out = out - means[:, None] - means[None]
    np.fill_diagonal(out, 0.0)
    return out


def _source_probs(source_probs: Any) -> np.ndarray:
    theta = np.asarray(source_probs, dtype=np.float64)
    if theta.ndim != 2 or not np.isfinite(theta).all() or (theta < 0).any():
        raise ValueError("`source_probs` must be finite probabilities (n, C), 0 or more.")
    wrong = np.flatnonzero(abs(theta.sum(1) - 1) > 0.01)
    if len(wrong):
        raise ValueError(f"`source_probs` must sum to 1, got {theta[wrong[0]].sum():.4g} at row {wrong[0]}.")
    return theta


def leep(source_probs: Any, labels: Any) -> float:
    """LEEP: mean log-likelihood of the labels when they are predicted from the source's classes; 0 or less.

    `mean_i log sum_z P(y_i | z) theta_iz`, with `P(y | z)` the share of class y in the mass that source class z gets.
    A source class without mass is left out.

    Source: Nguyen et al., arXiv:2002.12462.
    """
    theta = _source_probs(source_probs)
    truth = _class_ids(labels, len(theta), None, "source_probs")
    joint = np.zeros((int(truth.max()) + 1, theta.shape[1]))
    np.add.at(joint, truth, theta)
    mass = joint.sum(0)
    given = np.divide(joint, mass, out=np.zeros_like(joint), where=mass > 0)
    return float(np.log((given[truth] * theta).sum(1)).mean())


def nce(source_probs: Any, labels: Any, eps: float = 1e-5) -> float:
    """NCE: negative conditional entropy of the labels given the source's top class; about 0 at most.

    `eps` is added to the joint and to the marginal shares, as in the reference code.

    Source: Tran et al., arXiv:1908.08142.
    """
    theta = _source_probs(source_probs)
    truth = _class_ids(labels, len(theta), None, "source_probs")
    joint = np.zeros((int(truth.max()) + 1, theta.shape[1]))
    np.add.at(joint, (truth, theta.argmax(1)), 1.0 / len(truth))
    marginal = joint.sum(0) + eps
    joint = joint + eps
    return float((joint * np.log(joint / marginal)).sum())


def h_score(features: Any, labels: Any) -> float:
    """H-score: `tr(pinv(cov F) cov G)`, F the standardised features, G their class means; 0 to N - 1.

    Source: Bao et al., ICIP 2019.
    """
    values = standardize(check_features(features))
    truth = _class_ids(labels, len(values), None, "features")
    means = np.zeros_like(values)
    for label in np.unique(truth):
        means[truth == label] = values[truth == label].mean(0)
    inverse = np.linalg.pinv(np.atleast_2d(np.cov(values, rowvar=False)), rcond=1e-15)
    return float(np.trace(inverse @ np.atleast_2d(np.cov(means, rowvar=False))))


def knn_leave_one_out(
    features: Any, labels: Any, k: int = 1, metric: str = "euclidean", reference_ties: bool = False
) -> float:
    """Leave-one-out accuracy of k nearest neighbours, times 100. Among tied classes that of the nearer row wins.

    Args:
        features (array of shape `(n, d)`), labels (`(n,)`): Rows.
        k (`int`, *optional*, defaults to 1), metric (`str`, *optional*): As in `scipy.spatial.distance.cdist`.
        reference_ties (`bool`, *optional*, defaults to `False`): As the released code: where all k neighbours differ,
            each of them counts as one prediction, and all rows count k times.

    Raises:
        ValueError: If k is not in [1, n - 1].
    """
    from scipy.spatial.distance import cdist

    values = check_features(features)
    truth = _class_ids(labels, len(values), None, "features")
    if not 1 <= k < len(values):
        raise ValueError(f"`k` must be in [1, {len(values) - 1}], got {k}.")
    distance = cdist(values, values, metric)
    np.fill_diagonal(distance, -1.0)
    votes = truth[np.argsort(distance, axis=1, kind="stable")[:, 1 : k + 1]]
    hits = []
    for row, answer in zip(votes, truth, strict=True):
        counts = {label: int((row == label).sum()) for label in row}
        most = max(counts.values())
        if reference_ties:
            mode = min(label for label in row if counts[label] == most)
            hits.append(float(np.mean(row == answer)) if most == 1 else float(mode == answer))
        else:
            hits.append(float(next(label for label in row if counts[label] == most) == answer))
    return 100.0 * float(np.mean(hits))


def selection_correlation(similarities: Mapping[str, float], scores: Mapping[str, float]) -> float:
    """Spearman correlation of similarities with what a student reached from each source alone; -1 to 1.

    1 means that the similarity puts the sources in the right order.

    Raises:
        KeyError: If the score of a source is missing.
        ValueError: For fewer than 3 sources, or where all are alike.
    """
    if len(similarities) < 3:
        raise ValueError(f"Need at least 3 sources, got {len(similarities)}.")
    values = np.array([[similarities[name], scores[name]] for name in similarities], dtype=np.float64)
    if not np.isfinite(values).all() or (values == values[0]).all(0).any():
        raise ValueError("Similarities and scores must be finite, and must not be the same for all sources.")
    return _spearman(values[:, 0], values[:, 1], "Sources")
