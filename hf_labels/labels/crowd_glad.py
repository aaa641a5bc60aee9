"""GLAD: ability of each worker and easiness of each item.

Source: Whitehill et al., "Whose vote should count more", NeurIPS 2009; K labels, priors N(1, 1) and the stop rule of
the public library crowd-kit.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_expit

from hf_labels.labels.crowd import CrowdAnnotations

STOPS = ("reference", "bound", "none")


@dataclass(frozen=True)
class Glad:
    """What the model says.

    Parameters:
        soft (`np.ndarray` of shape `(T, K)`): Posterior of the true label.
        alpha (`np.ndarray` of shape `(W,)`): Ability; 0 is chance, below 0 adverse.
        beta (`np.ndarray` of shape `(T,)`): Log easiness.
        skill (`np.ndarray` of shape `(W,)`): Chance to be right on an item of average easiness.
        history (`list[float]`): Number that the stop rule looks at, after each round.
    """

    soft: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    skill: np.ndarray
    history: list[float] = field(default_factory=list)


def glad_posterior(data: CrowdAnnotations, alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Posterior of the true labels for given abilities `(W,)` and log easiness `(T,)`, uniform prior, `(T, K)`."""
    right, wrong = _chances(data, alpha, beta)
    # An annotation adds `right` to its label and `wrong` to the others: only the difference tells labels apart.
    logs = data.counts(right - wrong)
    logs -= logs.max(1, keepdims=True)
    soft = np.exp(logs)
    return soft / soft.sum(1, keepdims=True)


def _chances(data: CrowdAnnotations, alpha: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log chance of each annotation if it is right, and if it is wrong, `(N,)`."""
    score = alpha[data.worker] * np.exp(beta)[data.item]
    right = log_expit(score)
    return right, right - score - np.log(data.num_labels - 1)


def glad_objective(
    data: CrowdAnnotations, soft: np.ndarray, alpha: np.ndarray, beta: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """What the M-step maximises, and its gradient by `alpha` and `beta`.

    Args:
        soft (`np.ndarray` of shape `(T, K)`): Posterior of the E-step.
        alpha (`np.ndarray` of shape `(W,)`), beta (`np.ndarray` of shape `(T,)`): Where.
    """
    return _objective(data, soft[data.item, data.label], alpha, beta)


def _objective(
    data: CrowdAnnotations, believed: np.ndarray, alpha: np.ndarray, beta: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """`believed` is the posterior of what each annotation says, `(N,)`."""
    easiness = np.exp(beta)[data.item]
    ability = alpha[data.worker]
    score = ability * easiness
    right = log_expit(score)
    wrong = right - score - np.log(data.num_labels - 1)
    value = float(believed @ right + (1 - believed) @ wrong)
    value -= 0.5 * float(((alpha - 1) ** 2).sum() + ((beta - 1) ** 2).sum())
    value -= 0.5 * np.log(2 * np.pi) * (len(alpha) + len(beta))
    surprise = (believed - np.exp(right)) * easiness
    by_alpha = np.bincount(data.worker, weights=surprise, minlength=len(alpha)) - (alpha - 1)
    by_beta = np.bincount(data.item, weights=surprise * ability, minlength=len(beta)) - (beta - 1)
    return value, by_alpha, by_beta


def glad(
    data: CrowdAnnotations,
    n_iter: int = 100,
    tol: float = 1e-5,
    m_step_max_iter: int = 25,
    m_step_tol: float = 1e-2,
    stop: str = "reference",
    method: str = "CG",
) -> Glad:
    """Fit by EM.

    Args:
        data ([`CrowdAnnotations`]): Annotations.
        n_iter (`int`, *optional*, defaults to 100): Rounds at most.
        tol (`float`, *optional*, defaults to 1e-5): See `stop`.
        m_step_max_iter, m_step_tol (*optional*, default to 25 and 1e-2): Limits of the optimiser in each M-step.
        stop (`str`, *optional*, defaults to `"reference"`): `reference`: when the objective of the M-step, per
            annotation and label, rises by less than `tol`; this often is the second round. `bound`: when the bound on
            the log-likelihood (which never falls) rises by less than `tol` per annotation. `none`: all rounds.
        method (`str`, *optional*, defaults to `"CG"`): Optimiser of `scipy.optimize.minimize`; `L-BFGS-B` converges
            faster to tight tolerances.

    Raises:
        ValueError: For another stop rule.
    """
    if stop not in STOPS:
        raise ValueError(f"`stop` is {stop!r}, expected one of {', '.join(STOPS)}.")
    data = data.sorted()  # a loose optimiser shows the order in which floats are added
    alpha, beta = np.ones(data.num_workers), np.ones(data.num_items)
    soft, last, history = glad_posterior(data, alpha, beta), -np.inf, []
    for number in range(n_iter):
        soft = soft if number == 0 else glad_posterior(data, alpha, beta)
        believed = soft[data.item, data.label]

        def loss(x: np.ndarray, believed: np.ndarray = believed) -> tuple[float, np.ndarray]:
            value, by_alpha, by_beta = _objective(data, believed, x[: data.num_workers], x[data.num_workers :])
            return -value, -np.concatenate([by_alpha, by_beta])

        options = {"maxiter": m_step_max_iter, ("ftol" if method == "L-BFGS-B" else "gtol"): m_step_tol}
        if method == "L-BFGS-B":
            options |= {"gtol": m_step_tol}
        found = minimize(loss, np.concatenate([alpha, beta]), jac=True, method=method, options=options)
        alpha, beta = found.x[: data.num_workers], found.x[data.num_workers :]
        if stop == "bound":
            entropy = -float((soft * np.log(np.maximum(soft, 1e-300))).sum())
            history.append((-float(found.fun) + entropy) / len(data))
        else:
            history.append(-float(found.fun) / (len(data) * data.num_labels))
        if stop != "none" and history[-1] - last < tol:
            break
        last = history[-1]
    easiness = np.exp(beta.mean())
    return Glad(soft, alpha, beta, np.exp(log_expit(alpha * easiness)), history)
