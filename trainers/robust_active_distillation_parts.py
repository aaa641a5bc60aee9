"""Parts of `ActiveDistillation`: asking a teacher, scoring a pool, and choosing rows."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from hf_labels.labels.query_gains import entropy_gain, k_center_greedy, margin_gain, top_gains
from hf_labels.labels.robust_active_distillation import RADResult, RADSampler, errors_of_rate
from hf_labels.models.heads import find_head
from hf_labels.trainers.teachers import FrozenTeacher

logger = logging.getLogger(__name__)

STRATEGIES = ("rad", "margin", "entropy", "coreset", "uniform")
GAINS: dict[str, Callable[[Any], np.ndarray]] = {"margin": lambda p: margin_gain(p)[1], "entropy": entropy_gain}


@dataclass(frozen=True)
class Choice:
    """Chosen positions in the candidates, and what is known about them."""

    rows: np.ndarray
    gains: np.ndarray
    inclusion: np.ndarray | None
    solution: RADResult | None
    num_errors: int | None


def choose(
    strategy: str,
    probs: np.ndarray,
    budget: int,
    rng: np.random.Generator,
    *,
    gain: Callable[[Any], np.ndarray],
    error_rate: float | None = None,
    wrong_reward: float = -1.0,
    features: tuple[np.ndarray, np.ndarray] | None = None,
) -> Choice:
    """Rows of a round, by one of [`STRATEGIES`].

    Args:
        strategy (`str`): Which.
        probs (array of shape `(n, C)`): Student probabilities of the candidates.
        budget (`int`): Rows; at most n.
        rng (`np.random.Generator`): Random numbers.
        gain (callable): Probabilities -> gains `(n,)`.
        error_rate (`float`, *optional*): Of the teacher; for `rad`.
        wrong_reward (`float`, *optional*): For `rad`.
        features (`tuple`, *optional*): For `coreset`: vectors of candidates and of rows that have labels.
    """
    gains = np.asarray(gain(probs), dtype=np.float64)
    size = len(probs)
    if strategy == "rad":
        assert error_rate is not None  # `ActiveDistillation` checks it
        sampler = RADSampler(rng, wrong_reward)
        errors = errors_of_rate(error_rate, size)
        rows = sampler.select(gains, budget, errors)
        assert sampler.last is not None
        return Choice(rows, gains, sampler.last.inclusion, sampler.last, errors)
    if strategy == "uniform":
        rows = np.sort(rng.choice(size, size=min(budget, size), replace=False))
        return Choice(rows, gains, np.full(size, min(budget / size, 1.0)), None, None)
    if strategy == "coreset":
        assert features is not None
        return Choice(k_center_greedy(features[0], budget, features[1]), gains, None, None, None)
    scores = GAINS[strategy](probs)
    return Choice(top_gains(scores, budget), scores, None, None, None)


def ask_teacher(teacher: Any, rows: Mapping[str, Sequence[Any]], collator: Any, num_labels: int) -> list[Any]:
    """Answers of a teacher: a list of probabilities per row, `None` for an answer that cannot be used.

    Args:
        teacher (`nn.Module` or callable): A module gets the collated rows and gives logits. A callable gets the rows
            (columns without labels) and gives probabilities `(B, C)`; `None` for a row that it refuses.
        rows (mapping of lists): Columns of the batch.
        collator (callable): Rows -> batch, for a module.
        num_labels (`int`): C.

    Raises:
        ValueError: If the teacher gives another number of answers than rows.
    """
    count = len(next(iter(rows.values())))
    if isinstance(teacher, nn.Module):
        batch = collator([{name: values[i] for name, values in rows.items()} for i in range(count)])
        frozen = teacher if isinstance(teacher, FrozenTeacher) else FrozenTeacher(teacher)
        device = next((p.device for p in frozen.model.parameters()), torch.device("cpu"))
        batch = {name: v.to(device) if torch.is_tensor(v) else v for name, v in batch.items()}
        answers: Any = frozen.logits(batch).float().softmax(-1).cpu().numpy()
    else:
        answers = teacher(rows)
    answers = list(answers)
    if len(answers) != count:
        raise ValueError(f"The teacher was asked about {count} rows and gave {len(answers)} answers.")
    usable = [_usable(answer, num_labels) for answer in answers]
    dropped = sum(new is None for new in usable)
    if dropped:
        logger.warning(
            "%d of %d answers of the teacher are left out (refused, not %d finite probabilities that sum to 1). They "
            "count as spent.",
            *(dropped, count, num_labels),
        )
    return usable


def _usable(answer: Any, num_labels: int) -> list[float] | None:
    if answer is None:
        return None
    values = answer.detach().float().cpu().numpy() if torch.is_tensor(answer) else np.asarray(answer, dtype=object)
    try:
        values = values.astype(np.float64)
    except (TypeError, ValueError):
        return None
    fits = values.shape == (num_labels,) and bool(np.isfinite(values).all()) and bool((values >= 0).all())
    return (values / values.sum()).tolist() if fits and abs(values.sum() - 1) <= 1e-3 else None


def predict_probs(trainer: Any, rows: Any, with_features: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
    """Student probabilities `(n, C)` of rows without labels, and what goes into its head, `(n, D)`.

    Raises:
        ValueError: If the student's logits are not `(n, C)`; with features, under several processes, or as
            [`find_head`].
    """
    seen: list[np.ndarray] = []
    handle = None
    if with_features:
        if trainer.accelerator.num_processes > 1:
            raise ValueError("`strategy='coreset'` reads features of the student and runs in one process only.")
        head = find_head(trainer.accelerator.unwrap_model(trainer.model)).module
        handle = head.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().float().cpu().numpy()))
    try:
        logits = trainer.predict(rows).predictions
    finally:
        if handle is not None:
            handle.remove()
    logits = torch.as_tensor(logits[0] if isinstance(logits, tuple) else logits).double()
    if logits.dim() != 2:
        raise ValueError(f"The student must give one row of logits per row of data, got {tuple(logits.shape)}.")
    features = np.concatenate(seen).reshape(len(logits), -1) if with_features else None
    return logits.softmax(-1).numpy(), features
