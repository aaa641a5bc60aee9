"""MCL: corruptions, the correction notebook and the losses of the five courses, as pure functions.

Source: Chen et al. 2023, arXiv:2305.03981. No code is public and the paper's text was not available to us: the
abstract names the courses, ELECTRA (google-research/electra) fixes what the two have in common, and the mechanics of
the correction notebook are our own definition.

Shapes: B rows, T tokens, V vocabulary. Masks are bool; "maskable" means neither pad nor special token.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_labels.losses.mcl_electra_noise import Generator, as_noise

FIRST_COURSES = ("rtd", "std", "itd")
CORRECTIONS = {"re_rtd": "rtd", "re_std": "std"}
COURSES = (*FIRST_COURSES, *CORRECTIONS)

PAD, RIGHT, FALSE_ALARM, MISSED, CAUGHT = range(5)


def check_courses(courses: object) -> tuple[str, ...]:
    """Names of courses in the fixed order of `COURSES`.

    Raises:
        ValueError: For an unknown name (it is named, with those that exist), a name given twice, or none.
    """
    if isinstance(courses, str) or not isinstance(courses, (list, tuple, set, frozenset)):
        raise ValueError(f"`courses` must be a list of names out of {', '.join(COURSES)}; got {courses!r}.")
    unknown = [name for name in courses if name not in COURSES]
    if unknown:
        raise ValueError(f"Unknown course {unknown[0]!r} in `courses`. Courses are: {', '.join(COURSES)}.")
    if not courses or len(set(courses)) != len(courses):
        raise ValueError(f"`courses` must name at least one course, each once; got {list(courses)}.")
    return tuple(name for name in COURSES if name in courses)


# Corruption


def corruption_counts(maskable: Tensor, rate: float, least: int = 1) -> Tensor:
    """How many tokens of each row are corrupted: round(rate * L), at least `least`, 0 where fewer are maskable.

    Args:
        maskable (`Tensor` of shape `(B, T)`, bool): Candidates; L of them in a row.
        rate (`float`): p, in `(0, 1)`.
        least (`int`, *optional*, defaults to 1): 2 for swaps.

    Returns:
        `Tensor` of shape `(B,)`, int64.

    Raises:
        ValueError: If `rate` is outside `(0, 1)`.
    """
    if not 0 < rate < 1:
        raise ValueError(f"The share of corrupted tokens must be in (0, 1), got {rate}.")
    length = maskable.sum(1)
    counts = torch.floor(rate * length.double() + 0.5).long().clamp_min(least)
    return torch.where(length >= least, counts, torch.zeros_like(counts))


def choose_positions(maskable: Tensor, counts: Tensor, generator: Generator = None) -> Tensor:
    """Choose `counts` (B,) of the maskable tokens of each row, uniformly without replacement.

    Returns:
        `Tensor` of shape `(B, T)`, bool: Rows with fewer candidates choose them all.
    """
    keys = as_noise(generator, maskable).uniform(maskable.shape[1]).masked_fill(~maskable, 2.0)
    rank = keys.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return maskable & (rank < counts[:, None])


def derangement(chosen: Tensor, generator: Generator = None) -> Tensor:
    """Permute the chosen positions of each row so that none stays where it is: one random cycle through all of them.

    Args:
        chosen (`Tensor` of shape `(B, T)`, bool): Positions to permute; rows with a single one cannot be deranged.

    Returns:
        `Tensor` of shape `(B, T)`, int64: Position whose token moves here; t itself where `chosen` is false.

    Raises:
        ValueError: If a row has exactly one chosen position.
    """
    number = chosen.sum(1)
    if chosen.device.type == "cpu" and bool((number == 1).any()):
        row = int((number == 1).nonzero()[0])
        raise ValueError(f"Row {row} has one chosen position: a derangement needs none, or at least two.")
    keys = as_noise(generator, chosen).uniform(chosen.shape[1]).masked_fill(~chosen, 2.0)
    order = keys.argsort(dim=1, stable=True)  # the chosen positions first, in random order
    ranks = torch.arange(chosen.shape[1], device=chosen.device).expand_as(order)
    following = torch.where(ranks + 1 < number[:, None], ranks + 1, torch.zeros_like(ranks))
    sources = torch.arange(chosen.shape[1], device=chosen.device).repeat(chosen.shape[0], 1)
    moved = torch.where(ranks < number[:, None], order.gather(1, following), order)
    return sources.scatter(1, order, moved)


def swap_tokens(input_ids: Tensor, sources: Tensor) -> Tensor:
    """`input_ids` (B, T) with, at each place, the token of position `sources` (B, T)."""
    return input_ids.gather(1, sources)


def put_tokens(input_ids: Tensor, positions: Tensor, tokens: Tensor | int) -> Tensor:
    """A copy of `input_ids` (B, T) with `tokens` at the true places of `positions` (B, T).

    `tokens` is one id, or a tensor of shape `(N,)` in row order: one for each of the N places.

    Raises:
        ValueError: If the number of tokens is not the number of places.
    """
    if isinstance(tokens, int):
        return input_ids.masked_fill(positions, tokens)
    places = positions.nonzero(as_tuple=True)
    if tokens.shape != places[0].shape:
        raise ValueError(f"{tuple(tokens.shape)} tokens for {len(places[0])} chosen places.")
    return input_ids.index_put(places, tokens.to(input_ids.dtype))


def replaced_labels(corrupted: Tensor, original: Tensor) -> Tensor:
    """1 where the token is not the original one, else 0: a token that was sampled right is "original" (B, T)."""
    return (corrupted != original).long()


@dataclass(frozen=True)
class Insertion:
    """Rows with empty slots, padded on the right.

    Parameters:
        input_ids (`Tensor` of shape `(B, T')`): The token `fill` in each slot.
        attention_mask (`Tensor` of shape `(B, T')`, bool): Tokens and slots.
        source (`Tensor` of shape `(B, T')`, int64): Column in the original row; -1 at slots and pads.
        inserted (`Tensor` of shape `(B, T')`, bool): The slots, which are the labels of the course.
    """

    input_ids: Tensor
    attention_mask: Tensor
    source: Tensor
    inserted: Tensor


def choose_gaps(maskable: Tensor, counts: Tensor, generator: Generator = None) -> Tensor:
    """Draw `counts` (B,) gaps per row, with repeats, from before its first maskable token to after its last one.

    Returns:
        `Tensor` of shape `(B, T + 1)`, int64: How many slots stand before column t.
    """
    width = maskable.shape[1]
    columns = torch.arange(width, device=maskable.device)
    first = torch.where(maskable, columns, width).amin(1, keepdim=True)
    last = torch.where(maskable, columns, -1).amax(1, keepdim=True)
    gaps = (last + 1 - first + 1).clamp_min(1)  # their number
    drawn = as_noise(generator, maskable).uniform(width)
    where = (first + (drawn * gaps).long().clamp_max(gaps - 1)).clamp(0, width)
    used = (columns < counts[:, None]).long()
    return torch.zeros(maskable.shape[0], width + 1, dtype=torch.int64, device=maskable.device).scatter_add(
        1, where, used
    )


def insert_slots(input_ids: Tensor, attention_mask: Tensor, slots: Tensor, fill: int, pad: int = 0) -> Insertion:
    """Insert `slots` (B, T + 1) empty places, so many before each column; pads go to the right end.

    Removing the inserted places gives the tokens of the row back, in order.
    """
    real = attention_mask.bool()
    rows, width = input_ids.shape
    before = slots[:, :-1].cumsum(1)
    place = real.long().cumsum(1) - 1 + before  # where each token goes
    lengths = real.sum(1) + slots.sum(1)
    longest = int(lengths.max()) if rows else 0
    columns = torch.arange(width, device=input_ids.device).expand(rows, width)
    source = torch.full((rows, longest + 1), -1, dtype=torch.int64, device=input_ids.device)
    source = source.scatter(1, torch.where(real, place, longest), torch.where(real, columns, -1))[:, :longest]
    attended = torch.arange(longest, device=input_ids.device) < lengths[:, None]
    inserted = attended & (source < 0)
    ids = input_ids.gather(1, source.clamp_min(0)).masked_fill(inserted, fill).masked_fill(~attended, pad)
    return Insertion(ids, attended, source, inserted)


def cut_rows(attention_mask: Tensor, maskable: Tensor, limit: Tensor) -> Tensor:
    """Attention mask without the last maskable tokens of rows that hold more than `limit` (B,) tokens.

    Raises:
        ValueError: If a row would lose all its maskable tokens; names it.
    """
    real = attention_mask.bool()
    excess = (real.sum(1) - limit).clamp_min(0)
    have = maskable.sum(1)
    bad = (excess > 0) & (excess >= have)
    if attention_mask.device.type == "cpu" and bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"Row {row} holds {int(real[row].sum())} tokens, of which {int(have[row])} may be cut, and there is room "
            f"for {int(limit[row])} before tokens are inserted. Truncate the texts, or raise max_position_embeddings."
        )
    from_end = maskable.long().flip(1).cumsum(1).flip(1)  # 1 = the last maskable token
    return real & ~(maskable & (from_end <= excess[:, None]))


def sample_tokens(logits: Tensor, uniform: Tensor) -> Tensor:
    """Sample from softmax(logits) at temperature 1 by inverting the cumulative distribution; no gradient.

    Args:
        logits (`Tensor` of shape `(N, V)`)
        uniform (`Tensor` of shape `(N,)`): Numbers in `[0, 1)`.

    Returns:
        `Tensor` of shape `(N,)`, int64.
    """
    with torch.no_grad():
        cumulative = torch.softmax(logits.detach().float(), -1).cumsum(-1)
        # Scaled to the actual sum: rounding must not sample beyond the vocabulary.
        wanted = (uniform.float() * cumulative[:, -1]).unsqueeze(1)
        return torch.searchsorted(cumulative, wanted, right=True).squeeze(1).clamp_max(logits.shape[1] - 1)


# The notebook and the losses


def correction_notebook(input_ids: Tensor, corrupted: Tensor, disc_logits: Tensor, attention_mask: Tensor) -> Tensor:
    """What became of each token in the first pass.

    Args:
        input_ids, corrupted (`Tensor` of shape `(B, T)`, integer): The original and what the discriminator read.
        disc_logits (`Tensor` of shape `(B, T)`): Above 0 = judged replaced.
        attention_mask (`Tensor` of shape `(B, T)`): 1 = token.

    Returns:
        `Tensor` of shape `(B, T)`, int64: 0 pad, 1 right (original, judged original), 2 false alarm (original, judged
        replaced), 3 missed (replaced, judged original), 4 caught (replaced, judged replaced).

    Raises:
        ValueError: If shapes differ.
    """
    shapes = {tuple(t.shape) for t in (input_ids, corrupted, disc_logits, attention_mask)}
    if len(shapes) != 1:
        raise ValueError(f"All four must have one shape (B, T), got {sorted(shapes)}.")
    wrong, judged = (input_ids != corrupted).long(), (disc_logits.detach() > 0).long()
    return (1 + 2 * wrong + judged).masked_fill(~attention_mask.bool(), PAD)


def detection_loss(disc_logits: Tensor, labels: Tensor, where: Tensor, reduction: str = "mean") -> Tensor:
    """Binary cross-entropy of "replaced" over the tokens `where` (B, T); 0 with a gradient path when there is none.

    Args:
        disc_logits (`Tensor` of shape `(B, T)`): Score of "replaced".
        labels (`Tensor` of shape `(B, T)`): 0 original, 1 replaced; not read outside `where`.
        where (`Tensor` of shape `(B, T)`): The attention mask, or the positions of a notebook.
        reduction (`str`, *optional*, defaults to `"mean"`): or `"sum"`.

    Raises:
        ValueError: Shapes differ, or a label is neither 0 nor 1 (row and column are named).

    Source: the loss of `ElectraForPreTraining`.
    """
    if disc_logits.shape != labels.shape or labels.shape != where.shape:
        raise ValueError(
            f"`disc_logits`, `labels` and `where` must have one shape, got {tuple(disc_logits.shape)}, "
            f"{tuple(labels.shape)} and {tuple(where.shape)}."
        )
    where = where.bool()
    if labels.device.type == "cpu":
        bad = where & (labels != 0) & (labels != 1)
        if bool(bad.any()):
            row, column = bad.nonzero()[0].tolist()
            raise ValueError(
                f"Labels must be 0 (original) or 1 (replaced), got {labels[row, column].item()} at row {row}, column "
                f"{column}. Leave a token out with `where`."
            )
    logits = disc_logits if disc_logits.dtype == torch.float64 else disc_logits.float()
    losses = F.binary_cross_entropy_with_logits(logits, labels.to(logits), reduction="none")
    total = losses.masked_fill(~where, 0.0).sum()
    return total if reduction == "sum" else total / where.sum().clamp_min(1)


def generator_loss(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of the original tokens; 0 with a gradient path when there is none.

    Args:
        logits (`Tensor` of shape `(N, V)`): At the candidate positions only.
        targets (`Tensor` of shape `(N,)`, integer): The original tokens.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    total = F.cross_entropy(logits, targets, reduction="sum")
    return total if reduction == "sum" else total / max(len(targets), 1)


def label_balance(labels: Tensor, where: Tensor) -> Tensor:
    """Share of label 1 among the tokens `where` (B, T): a scalar in `[0, 1]`, 0 when there is no token."""
    where = where.bool()
    return (labels.bool() & where).sum().float() / where.sum().clamp_min(1)


def total_loss(
    gen_losses: Mapping[str, Tensor],
    disc_losses: Mapping[str, Tensor],
    course_weights: Mapping[str, float] | None = None,
    disc_weight: float = 50.0,
) -> Tensor:
    """`sum_c w_c * (L_G^c + lambda * L_D^c)`; a course without a generator loss (insertion) has L_G = 0.

    Args:
        gen_losses, disc_losses (`dict[str, Tensor]`): Scalars by course.
        course_weights (`dict[str, float]`, *optional*): w_c; 1 where not given.
        disc_weight (`float`, *optional*, defaults to 50): lambda, as in ELECTRA.

    Raises:
        ValueError: If there is no loss at all.
    """
    names = dict.fromkeys([*gen_losses, *disc_losses])
    if not names:
        raise ValueError("There is no course to sum: both dicts are empty.")
    terms = []
    for name in names:
        weight = (course_weights or {}).get(name, 1.0)
        if name in gen_losses:
            terms.append(weight * gen_losses[name])
        if name in disc_losses:
            terms.append(weight * disc_weight * disc_losses[name])
    return torch.stack([torch.as_tensor(term) for term in terms]).sum()
