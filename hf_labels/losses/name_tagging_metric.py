"""Multi-similarity loss between entities, and how entities are read out of a batch of tagged words.

Source: Liu et al., NAACL 2024, arXiv:2401.10472, and the authors' code; the loss is that of Wang et al.,
arXiv:1904.06627, with the anchor among its own positives.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hf_labels.labels.checks import IGNORE_INDEX
from hf_labels.losses.contrastive import cosine_matrix, log_one_plus_sum_exp, off_diagonal, same_label


class MultiSimilarity(NamedTuple):
    """What [`multi_similarity_loss`] returns."""

    loss: Tensor
    """(): mean over all anchors; 0 (with a gradient of 0) where no pair is kept."""
    positives: Tensor
    """(n,), int64: positive pairs that are kept of each anchor."""
    negatives: Tensor
    """(n,), int64: negative pairs that are kept."""


def multi_similarity_loss(
    features: Tensor,
    labels: Tensor,
    similarity: Tensor | None = None,
    *,
    alpha: float = 2.0,
    beta: float = 5.0,
    alpha_weight: float = 8.0,
    beta_weight: float = 6.0,
    threshold: float = 0.5,
    margin: float = 0.1,
    exclude_self: bool = False,
) -> MultiSimilarity:
    """Pull rows of one label together and push others apart, hard pairs only.

    With cosines `s_ij`: a negative pair counts if `s_ij + margin` exceeds the smallest cosine of the anchor's
    positives, a positive pair if `s_ij - margin` is below the largest of its negatives (all, without negatives).
    `l_i = log(1 + sum_pos exp(-alpha (s - threshold))) / alpha + log(1 + sum_neg exp(beta (s - threshold))) / beta`.

    Args:
        features (`Tensor` of shape `(n, d)`): Entities; normalised here.
        labels (`Tensor` of shape `(n,)`): Metric labels.
        similarity (`Tensor` of shape `(n, n)`, *optional*): S, what is known of the pairs, in [-1, 1]. Adds
            `alpha_weight * S` to the exponents of positives and takes `beta_weight * S` from those of negatives: alike
            entities of one type are pulled harder, alike ones of different types pushed less.
        alpha, beta, threshold, margin (`float`, *optional*): As above.
        exclude_self (`bool`, *optional*, defaults to `False`): The anchor is not its own positive (the classical
            loss). The authors' code keeps it.

    Returns:
        [`MultiSimilarity`]: Loss (), kept pairs (n,) each.

    Raises:
        ValueError: If shapes disagree, or `similarity` holds NaN.
    """
    size = len(features)
    if features.dim() != 2 or labels.shape != (size,):
        raise ValueError(f"Need features (n, d) and labels (n,), got {tuple(features.shape)}, {tuple(labels.shape)}.")
    if similarity is not None and (similarity.shape != (size, size) or bool(similarity.isnan().any())):
        raise ValueError(f"`similarity` must be ({size}, {size}) without NaN, got {tuple(similarity.shape)}.")
    none = torch.zeros(size, dtype=torch.int64, device=features.device)
    if size < 2:
        return MultiSimilarity(features.sum() * 0.0, none, none)
    cosines = cosine_matrix(features)
    same = same_label(labels)
    negative = ~same
    positive = same & off_diagonal(size, features.device) if exclude_self else same
    with torch.no_grad():
        nearest = cosines.masked_fill(~negative, float("-inf")).amax(1, keepdim=True)
        farthest = cosines.masked_fill(~positive, float("inf")).amin(1, keepdim=True)
        keep_negative = negative & (cosines + margin > farthest)
        keep_positive = positive & ((cosines - margin < nearest) | ~negative.any(1, keepdim=True))
    pull, push = -alpha * (cosines - threshold), beta * (cosines - threshold)
    if similarity is not None:
        known = similarity.to(cosines)
        pull, push = pull + alpha_weight * known, push - beta_weight * known
    rows = log_one_plus_sum_exp(pull, keep_positive) / alpha + log_one_plus_sum_exp(push, keep_negative) / beta
    return MultiSimilarity(rows.mean(), keep_positive.sum(1), keep_negative.sum(1))


class MultiSimilarityLoss(nn.Module):
    """[`multi_similarity_loss`] as a module: `MultiSimilarityLoss(alpha=2.0)(features, labels)` -> loss ()."""

    def __init__(self, **options: float) -> None:
        super().__init__()
        self.options = options

    def forward(self, features: Tensor, labels: Tensor, similarity: Tensor | None = None) -> Tensor:
        return multi_similarity_loss(features, labels, similarity, **self.options).loss  # type: ignore[arg-type]


class Entities(NamedTuple):
    """Entities of a batch, in the order of rows and words."""

    features: Tensor
    """(n, d): mean over the words of each."""
    labels: Tensor
    """(n,), int64: source tag id of the first word (its B- tag); 0 for a pseudo entity."""
    is_pseudo: Tensor
    """(n,), bool: known only by its pseudo tag."""
    ids: Tensor
    """(n,), int64: entity id of the first word; -1 without ids."""


def pool_entities(
    features: Tensor, labels: Tensor, pseudo_tags: Tensor | None = None, entity_ids: Tensor | None = None
) -> Entities:
    """Read entities out of tagged words.

    One starts at a word with an odd tag (B-) and extends over the following words with even tags (I-), gold or pseudo
    as its first word. An I- tag without its B- belongs to no entity.

    Args:
        features (`Tensor` of shape `(B, T, d)`): Of the tokens.
        labels (`Tensor` of shape `(B, T)`): Gold tags, O = 0, B- odd, I- even, at the first token of each word; -100
            elsewhere.
        pseudo_tags (`Tensor` of shape `(B, T)`, *optional*): 1 (begins) and 2 (goes on) where another tagger saw an
            entity and the gold tag is O; read at the first tokens of words.
        entity_ids (`Tensor` of shape `(B, T)`, *optional*): Rows of the similarity matrix, read at the same tokens.
            Words with -1 are passed over as if they were not there.

    Returns:
        [`Entities`]
    """
    is_word = labels != IGNORE_INDEX
    if entity_ids is not None:
        is_word = is_word & (entity_ids >= 0)
    row = is_word.nonzero()[:, 0]
    gold = labels[is_word]
    pseudo = torch.zeros_like(gold) if pseudo_tags is None else pseudo_tags[is_word].masked_fill(gold != 0, 0)
    tags, is_pseudo = gold + pseudo, pseudo > 0
    starts = tags % 2 == 1
    first = torch.ones_like(starts)
    first[1:] = (row[1:] != row[:-1]) | (is_pseudo[1:] != is_pseudo[:-1])
    stops = ~starts & ((tags == 0) | first)
    places = torch.arange(len(tags), device=tags.device)
    last = torch.where(starts | stops, places, -1).cummax(0).values if len(tags) else places
    inside = (last >= 0) & starts[last.clamp_min(0)] if len(tags) else starts
    group = starts.cumsum(0) - 1
    count = int(starts.sum())
    words = features[is_word]
    total = words.new_zeros(count, features.shape[-1]).index_add(0, group[inside], words[inside])
    sizes = torch.bincount(group[inside], minlength=count).clamp_min(1)
    known = entity_ids[is_word][starts] if entity_ids is not None else torch.full_like(gold[starts], -1)
    return Entities(total / sizes[:, None], gold[starts], is_pseudo[starts], known)
