"""Replays crowd-soft-labels.json: every aggregator, mixtures of them, losses with soft labels, calibration."""

import numpy as np
import torch

from hf_labels.labels import crowd_votes as votes
from hf_labels.labels.crowd import CrowdAnnotations
from hf_labels.labels.crowd_dawid_skene import dawid_skene
from hf_labels.labels.crowd_glad import glad, glad_objective, glad_posterior
from hf_labels.labels.crowd_mace import mace
from hf_labels.losses.crowd_soft_labels import multi_task_loss, soft_label_loss
from hf_labels.metrics.functional import calibration_scores, temperature_scaling


def replay(function: str, inputs: dict, params: dict) -> dict:
    if "distributions" in inputs:
        return {"soft_labels": _mixture(function, inputs, params)}
    if "soft_labels" in inputs:
        return _loss(function, inputs)
    if "logits" in inputs:
        logits, labels = np.array(inputs["logits"]), np.array(inputs["labels"])
        if "num_bins" in params:
            found = calibration_scores(logits, labels, params["num_bins"], from_logits=True)
            return {"nll": found["nll"], "ece": [found["ece"]], "brier": found["brier"]}
        best = temperature_scaling(logits, labels)
        return {"temperature": best, "nll_post": calibration_scores(logits / best, labels, from_logits=True)["nll"]}
    counts = {name: params[name] for name in ("num_items", "num_workers", "num_labels") if name in params}
    data = CrowdAnnotations.from_arrays(
        inputs["task"], inputs["worker"], inputs["label"], num_items=params["num_tasks"], **counts
    )
    return _aggregate(function.lower(), data, inputs, params)


def _mixture(function: str, inputs: dict, params: dict) -> np.ndarray:
    if "tol" in params or "centroid" in function.lower():
        return votes.jensen_shannon_centroid(
            inputs["distributions"],
            inputs.get("weights"),
            max_iter=params.get("max_iter", 1000),
            tol=params.get("tol", 1e-10),
        )
    if "product" in function:
        return votes.conflation(inputs["distributions"])
    return votes.average(inputs["distributions"], inputs.get("weights"))


def _loss(function: str, inputs: dict) -> dict:
    logits = torch.tensor(inputs["logits"], dtype=torch.float64, requires_grad=True)
    soft = torch.tensor(inputs["soft_labels"], dtype=torch.float64)
    if "soft_logits" in inputs:
        other = torch.tensor(inputs["soft_logits"], dtype=torch.float64)
        return {"loss": multi_task_loss(logits, other, torch.tensor(inputs["labels"]), soft).item()}
    weights = torch.tensor(inputs["class_weights"], dtype=torch.float64) if "class_weights" in inputs else None
    divergence = "ce" if function.lstrip().startswith("-sum") else "kl"
    loss = soft_label_loss(logits, soft, divergence, weights)
    loss.backward()
    return {"loss": loss.item(), "grad": logits.grad.numpy()}


def _aggregate(name: str, data: CrowdAnnotations, inputs: dict, params: dict) -> dict:
    if "init_spamming" in inputs:
        found = mace(
            data,
            params["method"],
            n_iter=params["n_iter"],
            alpha=params.get("alpha", 0.5),
            beta=params.get("beta", 0.5),
            theta_prior=params.get("theta_prior_pseudo_count", 10.0),
            smoothing=params.get("em_smoothing"),
            init=(inputs["init_spamming"], inputs["init_theta"]),
        )
        return {"soft_labels": found.soft, "spamming": found.spamming, "theta": found.theta}
    if "posterior" in inputs:
        value, *slopes = glad_objective(
            data, np.array(inputs["posterior"]), np.array(inputs["alpha"]), np.array(inputs["beta"])
        )
        return {"Q": value, "grad_alpha": slopes[0], "grad_beta": slopes[1]}
    if "alpha" in inputs:
        return {"soft_labels": glad_posterior(data, np.array(inputs["alpha"]), np.array(inputs["beta"]))}
    if "glad" in name:
        tight = params.get("m_step") == "tight"
        limits = {"m_step_max_iter": 2000, "m_step_tol": 1e-10, "method": "L-BFGS-B"} if tight else {}
        limits |= {key: params[key] for key in ("n_iter", "tol", "m_step_max_iter", "m_step_tol") if key in params}
        found = glad(data, stop=params.get("stop", "reference"), **limits)
        return {"soft_labels": found.soft, "alpha": found.alpha, "beta": found.beta}
    if "lr_init" in params:
        options = ("n_iter", "lr_init", "lr_steps_to_reduce", "lr_reduce_factor", "eps")
        soft, skill = votes.zero_based_skill(data, **{key: params[key] for key in options if key in params})
        return {"soft_labels": soft, "skills": skill}
    if "n_iter" in params:
        tol = None if params.get("stop") == "none" else params.get("tol", 1e-5)
        coin = "one-coin" in name or "one coin" in name
        known = inputs.get("true_labels", params.get("true_labels")) or {}
        found = dawid_skene(data, params["n_iter"], tol, coin, {int(item): label for item, label in known.items()})
        return {
            "soft_labels": found.soft,
            "priors": found.priors,
            "errors": found.errors,
            "skills": found.skill,
            "loss_history": found.history,
        }
    if "hard label" in name:
        labels, skill = votes.majority_vote(data)
        return {"labels": labels, "skills": skill}
    if "softmax" in name:
        return {"soft_labels": votes.softmax_votes(data)}
    if "skill" in name:
        soft, skill = votes.wawa(data)
        return {"soft_labels": soft, "skills": skill}
    return {"soft_labels": votes.normalized_votes(data)}
