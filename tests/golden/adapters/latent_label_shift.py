"""Replays latent-label-shift.json: table of clusters, factors, posteriors, and the two errors."""

import re

import numpy as np

from hf_labels.labels.latent_label_shift_factors import (
    class_posterior,
    cluster_domain_matrix,
    domain_given_class,
    domain_posterior,
    nmf_factors,
    rescale_factors,
)
from hf_labels.metrics.functional import matched_accuracy, mixture_l1


def replay(function: str, inputs: dict, params: dict) -> dict:
    data = {key: np.array(value) for key, value in inputs.items()}
    if "cluster" in data:
        table = cluster_domain_matrix(data["cluster"], data["domain"], params["num_clusters"], params["num_domains"])
        return {"matrix": table}
    if "matrix" in data:
        return _factors(data["matrix"], params)
    if "C" in data:
        left, right = rescale_factors(data["C"], data["W"])
        return {"p_cluster_given_y": left, "p_y_given_d": right}
    if "p_d_given_x" in data:
        table = domain_given_class(data["p_y_given_d"])
        posterior = class_posterior(data["p_d_given_x"], table, "pinv")
        if "domain" not in data:
            return {"p_y_given_x": posterior}
        rows = domain_posterior(posterior, table, data["domain"], clip=False)
        return {"p_y_given_x": posterior, "p_y_given_x_domain": rows, "labels": rows.argmax(1)}
    if "predicted" in data:
        found = matched_accuracy(data["predicted"], data["true"], with_matching=True)
        order = np.array(found["matching"])
        share = float(f"{found['matched_accuracy']:.11g}")  # the files keep 11 digits and allow no tolerance here
        return {"ordering": order, "permuted": order[data["predicted"]], "accuracy": share}
    if "estimate" in data:
        found = mixture_l1(data["estimate"], data["true"], data.get("ordering"))
        return {"l1": found["mixture_l1"], "l1_per_domain": found["mixture_l1_per_domain"]}
    raise LookupError(f"No function for {function!r}.")


def _factors(matrix: np.ndarray, params: dict) -> dict:
    """The settings stand in words in `nmf`; without them they are the reference code's."""
    said = params.get("nmf", "")
    settings = {}
    for name, kind in (("init", str), ("max_iter", int), ("tol", float)):
        match = re.search(rf"{name}=([\w.+-]*\w)", said)
        if match or name in params:
            settings[name] = kind(params[name] if name in params else match.group(1))
    left, right, residual = nmf_factors(matrix, params["num_classes"], seed=params["nmf_seed"], **settings)
    return {"p_y_given_d": right, "p_cluster_given_y": left, "reconstruction_fro": residual}
