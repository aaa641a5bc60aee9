"""Log-probabilities of label tokens under a local model."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from .errors import ItemError


def label_logprobs(
    model: Any, prompts: list[list[int]], labels: list[list[int]], *, batch_size: int, pad_id: int, fast: bool = True
) -> list[list[list[float]]]:
    """Log-probability of each token of each label after each prompt.

    Prompt and label ids are joined, right-padded, and one forward is run for each chunk; only the label positions are
    gathered, after a log-soft-max in float32. When every label is one token, one forward for each prompt is enough.

    Args:
        model: A causal language model.
        prompts (`[n][T_i]`): Token ids; none is empty.
        labels (`[C][L_c]`): Token ids; none is empty.
        batch_size (`int`): Sequences in one forward.
        pad_id (`int`): Any id; padding never changes a score.
        fast (`bool`, *optional*, defaults to `True`): Use the path for labels of one token.

    Returns:
        `[n][C][L_c]` floats. Cost: n forwards of one sequence on the fast path, n * C on the other.

    Raises:
        ItemError: If the logits of a prompt are not finite; names the prompt's place.
    """
    result: list[list[list[float]]] = [[[] for _ in labels] for _ in prompts]
    if fast and all(len(label) == 1 for label in labels):
        ids = torch.tensor([label[0] for label in labels], device=model.device)
        for chunk in _chunks(prompts, batch_size):
            logits = _logits(model, [prompts[i] for i in chunk], [1] * len(chunk), pad_id)
            for i, rows in zip(chunk, logits, strict=True):
                _refuse_nan(rows, i)
                result[i] = [[value] for value in torch.log_softmax(rows[0].float(), dim=-1)[ids].tolist()]
        return result
    pairs = [(i, c) for i in range(len(prompts)) for c in range(len(labels))]
    sequences = [prompts[i] + labels[c][:-1] for i, c in pairs]
    for chunk in _chunks(sequences, batch_size):
        lengths = [len(labels[pairs[k][1]]) for k in chunk]
        logits = _logits(model, [sequences[k] for k in chunk], lengths, pad_id)
        for k, rows in zip(chunk, logits, strict=True):
            i, c = pairs[k]
            _refuse_nan(rows, i)
            target = torch.tensor(labels[c], device=rows.device)
            found = torch.log_softmax(rows.float(), dim=-1).gather(1, target[:, None])
            result[i][c] = found[:, 0].tolist()
    return result


def refuse_bad_logits(logits: Tensor, item: int) -> None:
    """Raise [`ItemError`] if there is NaN or positive infinity in the logits."""
    _refuse_nan(logits, item)


def _refuse_nan(logits: Tensor, item: int) -> None:
    if bool((torch.isnan(logits) | torch.isposinf(logits)).any()):
        raise ItemError(
            item,
            "the model's logits are NaN or infinite. Check its weights, or load it with `dtype=torch.float32`.",
        )


def _chunks(sequences: list[list[int]], size: int) -> list[list[int]]:
    """Places of the sequences, longest first, `size` at a time."""
    order = sorted(range(len(sequences)), key=lambda k: (-len(sequences[k]), k))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _logits(model: Any, sequences: list[list[int]], last: list[int], pad_id: int) -> list[Tensor]:
    """Logits of the last `last[k]` positions of each sequence, each of shape (last[k], V)."""
    width = max(map(len, sequences))
    ids = torch.full((len(sequences), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for k, sequence in enumerate(sequences):
        ids[k, : len(sequence)] = torch.tensor(sequence)
        mask[k, : len(sequence)] = 1
    first = [len(sequence) - count for sequence, count in zip(sequences, last, strict=True)]
    options: dict[str, Any] = {}
    offset = 0
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        offset = min(first)  # the vocabulary is wide: no logits for positions that nobody needs
        options["logits_to_keep"] = width - offset
    output = model(
        input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False, **options
    ).logits
    return [output[k, f - offset : f - offset + count] for k, (f, count) in enumerate(zip(first, last, strict=True))]


def label_logprobs_with_images(model: Any, inputs: Any, labels: list[list[int]], item: int) -> list[list[float]]:
    """The same after one prompt with images.

    Args:
        model: A model of the kind `AutoModelForImageTextToText`.
        inputs: What its processor made of one prompt; tensors of the shape of `input_ids` are extended by zeros.
        labels (`[C][L_c]`): Token ids.
        item (`int`): For the error.

    Returns:
        `[C][L_c]` floats. Cost: one forward for labels of one token, else C.
    """
    size = inputs["input_ids"].shape
    found: list[list[float]] = []
    shared: Tensor | None = None
    for label in labels:
        if len(label) == 1 and shared is not None:
            rows = shared
        else:
            extended = {name: value.to(model.device) for name, value in inputs.items() if isinstance(value, Tensor)}
            extra = torch.tensor([label[:-1]], dtype=torch.long, device=model.device)
            for name, value in list(extended.items()):
                if value.shape == size:
                    tail = extra if name == "input_ids" else torch.zeros_like(extra, dtype=value.dtype)
                    tail = torch.ones_like(extra) if name == "attention_mask" else tail
                    extended[name] = torch.cat([value, tail], dim=1)
            output = model(**extended, use_cache=False).logits[0]
            rows = output[-len(label) :]
            refuse_bad_logits(rows, item)
            shared = rows if len(label) == 1 else shared
        target = torch.tensor(label, device=rows.device)
        found.append(torch.log_softmax(rows.float(), dim=-1).gather(1, target[:, None])[:, 0].tolist())
    return found
