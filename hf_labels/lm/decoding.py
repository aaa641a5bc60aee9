"""Answers of a local model: one `generate` call for requests with the same parameters."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from .local_scoring import refuse_bad_logits
from .types import FinishReason, Request


class _RefuseBadLogits(LogitsProcessor):
    """Stops at NaN, which `generate` would otherwise turn into some token without a word."""

    def __init__(self, items: list[int]) -> None:
        self.items = items

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        bad = (torch.isnan(scores) | torch.isposinf(scores)).any(dim=-1)
        if bool(bad.any()):
            row = int(bad.nonzero()[0, 0])
            refuse_bad_logits(scores[row], self.items[row])
        return scores


class _Draw(LogitsProcessor):
    """Adds Gumbel noise from a generator of its own to each row: the largest score is then a draw from the soft-max.

    So a draw depends on its seed and prompt alone, and not on what else is in the batch.
    """

    def __init__(self, seeds: list[int], device: torch.device) -> None:
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = []
        for row, generator in zip(scores, self.generators, strict=True):
            noise = torch.empty(row.shape, dtype=torch.float32, device=row.device).exponential_(generator=generator)
            rows.append(row.float() - noise.log())
        return torch.stack(rows)


@dataclass(frozen=True)
class Row:
    """One answer that is wanted.

    Parameters:
        item (`int`): Place of its request, for errors.
        ids (`list[int]`): Token ids of the prompt.
        seed (`int`): Of its draws; used when the temperature is above 0.
    """

    item: int
    ids: list[int]
    seed: int = 0


def seed_of(request: Request, ids: list[int], copy: int) -> int:
    """A seed for one copy of the answer: equal for equal seeds and prompts; from torch's generator without a seed."""
    if request.seed is None:
        return int(torch.randint(2**62, ()).item())
    text = f"{request.seed}:{copy}:{ids}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


def generate_rows(
    model: Any, tokenizer: Any, inputs: dict[str, Any], rows: list[Row], request: Request, new_tokens: int
) -> list[tuple[str, FinishReason, int]]:
    """One answer for each row; all rows share their sampling parameters.

    Args:
        model: A generating model.
        tokenizer: Its tokenizer.
        inputs (`dict`): `input_ids` (B, T), left-padded, `attention_mask`, and what else the model takes.
        rows (`list[Row]`): B rows.
        request (`Request`): Any of the rows': its temperature, top_p and stop count.
        new_tokens (`int`): At most `request.max_new_tokens`, so that the context is kept.

    Returns:
        For each row: the text, its finish reason, and the number of new tokens.

    Raises:
        ItemError: If the logits are NaN; names the place.
    """
    processors = LogitsProcessorList([_RefuseBadLogits([row.item for row in rows])])
    if request.temperature > 0:
        processors.append(TemperatureLogitsWarper(float(request.temperature)))
        if request.top_p < 1:
            processors.append(TopPLogitsWarper(float(request.top_p)))
        processors.append(_Draw([row.seed for row in rows], model.device))
    config = copy.deepcopy(model.generation_config)
    config.update(
        do_sample=False,  # drawing is in the processors
        num_beams=1,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        num_return_sequences=1,
        max_new_tokens=new_tokens,
        max_length=None,
        min_length=None,
        pad_token_id=pad_id(model, tokenizer),
        stop_strings=list(request.stop) or None,
        return_dict_in_generate=False,
    )
    output = model.generate(
        **{name: value.to(model.device) if isinstance(value, Tensor) else value for name, value in inputs.items()},
        generation_config=config,
        logits_processor=processors,
        tokenizer=tokenizer if request.stop else None,
    )
    ends = eos_ids(model, tokenizer)
    return [_read(tokenizer, ids, ends, request.stop) for ids in output[:, inputs["input_ids"].shape[1] :].tolist()]


def _read(tokenizer: Any, ids: list[int], ends: set[int], stop: tuple[str, ...]) -> tuple[str, FinishReason, int]:
    reason: FinishReason = "length"
    used = len(ids)
    for place, token in enumerate(ids):
        if token in ends:
            ids, reason, used = ids[:place], "stop", place + 1
            break
    text = tokenizer.decode(ids, skip_special_tokens=True)
    cuts = [text.find(word) for word in stop if word in text]
    if cuts:
        # A row that stopped early was filled up with padding; count what the text holds.
        text, reason = text[: min(cuts)], "stop"
        padding = tokenizer.pad_token_id
        while padding is not None and used > 1 and ids[used - 1 : used] == [padding]:
            used -= 1
    return text, reason, used


def eos_ids(model: Any, tokenizer: Any) -> set[int]:
    """The ids that end an answer."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    found = set(ends) if isinstance(ends, list | tuple) else {ends}
    return {int(token) for token in found | {tokenizer.eos_token_id} if token is not None}


def pad_id(model: Any, tokenizer: Any) -> int:
    """An id to pad with; its value never changes an answer."""
    ends = sorted(eos_ids(model, tokenizer))
    for token in (tokenizer.pad_token_id, *ends, 0):
        if token is not None:
            return int(token)
    return 0


def left_pad(prompts: list[list[int]], padding: int) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` of shape (B, T), padded on the left."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), padding, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for k, prompt in enumerate(prompts):
        ids[k, width - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        mask[k, width - len(prompt) :] = 1
    return {"input_ids": ids, "attention_mask": mask}
