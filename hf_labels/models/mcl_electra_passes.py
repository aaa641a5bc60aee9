"""How the courses of MCL run through the two networks: first passes in one call each, corrections in another."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_labels.losses.mcl_electra import (
    CAUGHT,
    CORRECTIONS,
    FALSE_ALARM,
    FIRST_COURSES,
    choose_gaps,
    choose_positions,
    correction_notebook,
    corruption_counts,
    cut_rows,
    derangement,
    detection_loss,
    generator_loss,
    insert_slots,
    label_balance,
    put_tokens,
    replaced_labels,
    sample_tokens,
    swap_tokens,
)
from hf_labels.losses.mcl_electra_noise import BatchNoise, RowNoise

Noise = RowNoise | BatchNoise


@dataclass
class Pass:
    """One course on one batch. Widths differ between courses: insertion makes rows longer.

    Parameters:
        name (`str`): Course.
        original (`Tensor` of shape `(B, T)`): The true tokens; -1 where there is none (inserted places).
        read (`Tensor` of shape `(B, T)`): What the generator reads.
        attention_mask (`Tensor` of shape `(B, T)`, bool)
        token_type_ids (`Tensor` of shape `(B, T)`, *optional*)
        predict (`Tensor` of shape `(B, T)`, bool): Where the generator samples, and learns when there is a truth.
        where (`Tensor` of shape `(B, T)`, bool): Where the discriminator learns.
        keep_swapped (`bool`): The discriminator reads `read` itself instead of the samples.
        corrupted, logits: Filled in on the way: what the discriminator reads, and its scores.
    """

    name: str
    original: Tensor
    read: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor | None
    predict: Tensor
    where: Tensor
    keep_swapped: bool = False
    corrupted: Tensor = field(init=False)
    logits: Tensor = field(init=False)

    @property
    def labels(self) -> Tensor:
        """1 = replaced or inserted, (B, T)."""
        return replaced_labels(self.corrupted, self.original)


@dataclass
class Terms:
    """Sums over the places of one batch, and their numbers, by course; a mean is `sum / count`."""

    gen_sums: dict[str, Tensor] = field(default_factory=dict)
    gen_counts: dict[str, Tensor] = field(default_factory=dict)
    disc_sums: dict[str, Tensor] = field(default_factory=dict)
    disc_counts: dict[str, Tensor] = field(default_factory=dict)
    balance: dict[str, Tensor] = field(default_factory=dict)
    accuracy: dict[str, Tensor] = field(default_factory=dict)


def batch_counts(maskable: Tensor, attention_mask: Tensor, rate: float, longest: int) -> dict[str, Tensor]:
    """What the first courses average over, known before anything is drawn.

    Returns:
        `dict[str, Tensor]`: Candidates (`"rtd_gen"`) and judged tokens (`"rtd_disc"`) of each course.
    """
    tokens = attention_mask.bool().sum(1)
    rtd, std = corruption_counts(maskable, rate), corruption_counts(maskable, rate, least=2)
    length, slots = _room(maskable, attention_mask, rate, longest)
    return {
        "rtd_gen": rtd.sum(),
        "rtd_disc": (tokens * (rtd > 0)).sum(),
        "std_gen": std.sum(),
        "std_disc": (tokens * (std > 0)).sum(),
        "itd_disc": ((length + slots) * (slots > 0)).sum(),
    }


def _room(maskable: Tensor, attention_mask: Tensor, rate: float, longest: int) -> tuple[Tensor, Tensor]:
    """Tokens of each row that insertion keeps, and how many it inserts: together at most `longest`."""
    tokens = attention_mask.bool().sum(1)
    limit = longest - corruption_counts(maskable, rate)
    cut = (tokens - limit).clamp_min(0)
    kept = torch.arange(maskable.shape[1], device=maskable.device) < (maskable.sum(1) - cut)[:, None]
    return tokens - cut, corruption_counts(kept, rate)


def first_pass(
    name: str,
    input_ids: Tensor,
    attention_mask: Tensor,
    maskable: Tensor,
    token_type_ids: Tensor | None,
    noise: Noise,
    config: Any,
) -> Pass:
    """Corrupt one batch for the course `name` ("rtd", "std" or "itd")."""
    rate, mask_id = config.mask_prob, config.mask_token_id
    mask = attention_mask.bool()
    if name == "itd":
        return _insertion(input_ids, mask, maskable, token_type_ids, noise, config)
    counts = corruption_counts(maskable, rate, least=2 if name == "std" else 1)
    chosen = choose_positions(maskable, counts, noise)
    where = mask & (counts > 0)[:, None]
    if name == "std":
        read = swap_tokens(input_ids, derangement(chosen, noise))
    else:
        hidden = chosen
        if config.show_mask_prob < 1:
            hidden = chosen & (noise.uniform(chosen.shape[1]) < config.show_mask_prob)
        read = put_tokens(input_ids, hidden, mask_id)
    swapped = name == "std" and config.std_input == "swapped"
    return Pass(name, input_ids, read, mask, token_type_ids, chosen, where, swapped)


def _insertion(input_ids, mask, maskable, token_type_ids, noise, config) -> Pass:
    longest = config.row_limit
    mask = cut_rows(mask, maskable, longest - corruption_counts(maskable, config.mask_prob))
    maskable = maskable & mask
    counts = corruption_counts(maskable, config.mask_prob)
    slots = choose_gaps(maskable, counts, noise)
    built = insert_slots(input_ids, mask, slots, config.mask_token_id, config.pad_token_id or 0)
    types = None
    if token_type_ids is not None:  # an inserted token belongs to the segment of the token before it
        left = torch.where(built.source >= 0, built.source, 0).cummax(1).values
        types = token_type_ids.gather(1, left)
    where = built.attention_mask & (counts > 0)[:, None]
    original = built.input_ids.masked_fill(built.inserted, -1)
    return Pass("itd", original, built.input_ids, built.attention_mask, types, built.inserted, where)


def correction_pass(name: str, first: Pass, scope: str) -> Pass:
    """The second look of the course `name` at what the first pass got wrong; `first.logits` decide."""
    pages = correction_notebook(first.original, first.corrupted, first.logits, first.where)
    caught = pages == CAUGHT
    where = pages >= FALSE_ALARM if scope == "notebook" else first.where
    return Pass(name, first.original, first.corrupted, first.attention_mask, first.token_type_ids, caught, where)


def masked_again(again: Pass, mask_id: int) -> Pass:
    """The generator's page: caught tokens are masked in the sequence as it stands; unnoticed mistakes stay."""
    again.read = put_tokens(again.read, again.predict, mask_id)
    return again


def _stack(passes: Sequence[Pass], name: str) -> tuple[Tensor, Tensor, Tensor | None]:
    width = max(p.read.shape[1] for p in passes)

    def joined(tensors):
        return torch.cat([F.pad(t, (0, width - t.shape[1])) for t in tensors])

    types = None
    if passes[0].token_type_ids is not None:
        types = joined(p.token_type_ids for p in passes)
    return joined(getattr(p, name) for p in passes), joined(p.attention_mask for p in passes).long(), types


def run_generator(model: Any, passes: Sequence[Pass], noise: Noise, learn: set[str], terms: Terms) -> None:
    """One call for all passes: losses of those in `learn`, samples of all. Logits only where tokens are predicted."""
    generator = model.generator
    with torch.enable_grad() if learn and torch.is_grad_enabled() else torch.no_grad():
        ids, mask, types = _stack(passes, "read")
        hidden = generator.electra(ids, attention_mask=mask, token_type_ids=types)[0]
        rows = hidden.split([p.read.shape[0] for p in passes])
        for p, features in zip(passes, rows, strict=True):
            uniform = noise.uniform(p.read.shape[1])[p.predict]
            with nullcontext() if p.name in learn else torch.no_grad():
                picked = features[:, : p.read.shape[1]][p.predict]
                logits = generator.generator_lm_head(generator.generator_predictions(picked))
            if p.name in learn:
                terms.gen_sums[p.name] = generator_loss(logits, p.original[p.predict], "sum")
                terms.gen_counts[p.name] = p.predict.sum()
            if p.keep_swapped:
                p.corrupted = p.read
            else:
                p.corrupted = put_tokens(p.read, p.predict, sample_tokens(logits, uniform))


def run_discriminator(model: Any, passes: Sequence[Pass], learn: set[str], terms: Terms) -> None:
    """One call for all passes: scores of all, losses and label balance of those in `learn`."""
    network = model.discriminator
    with torch.enable_grad() if learn and torch.is_grad_enabled() else torch.no_grad():
        ids, mask, types = _stack(passes, "corrupted")
        inputs = {"input_ids": ids}
        if model.config.detach_embeddings:
            inputs = {"inputs_embeds": network.electra.embeddings.word_embeddings(ids).detach()}
        logits = network(**inputs, attention_mask=mask, token_type_ids=types).logits
        for p, scores in zip(passes, logits.split([p.read.shape[0] for p in passes]), strict=True):
            p.logits = scores[:, : p.read.shape[1]]
            if p.name in learn:
                labels = p.labels
                terms.disc_sums[p.name] = detection_loss(p.logits, labels, p.where, "sum")
                terms.disc_counts[p.name] = p.where.sum()
                terms.balance[p.name] = label_balance(labels, p.where)
                right = ((p.logits.detach() > 0) == labels.bool()) & p.where
                terms.accuracy[p.name] = right.sum().float() / p.where.sum().clamp_min(1)


def run_courses(model: Any, courses: Sequence[str], batch: dict[str, Any], noise: Noise) -> tuple[Terms, list[Pass]]:
    """Everything of one batch: at most two calls of each network.

    Args:
        courses: Those that are learned from; a correction runs its first pass, without learning if that is not asked.
        batch (`dict`): `input_ids`, `attention_mask`, `maskable`, `token_type_ids`.
        noise: Where random numbers come from.
    """
    config, terms = model.config, Terms()
    again = [name for name in CORRECTIONS if name in courses]
    needed = [name for name in FIRST_COURSES if name in courses or name in (CORRECTIONS[c] for c in again)]
    learn = {name for name in needed if name in courses}
    passes = [first_pass(name, noise=noise, config=config, **batch) for name in needed]
    run_generator(model, passes, noise, learn - {"itd"}, terms)
    run_discriminator(model, passes, learn, terms)
    if again:
        by_name = {p.name: p for p in passes}
        second = [correction_pass(name, by_name[CORRECTIONS[name]], config.correction_scope) for name in again]
        second = [masked_again(p, config.mask_token_id) for p in second]
        run_generator(model, second, noise, set(again), terms)
        run_discriminator(model, second, set(again), terms)
        passes += second
    return terms, passes
