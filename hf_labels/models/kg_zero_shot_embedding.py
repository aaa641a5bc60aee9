"""`KGEmbeddingModel`: TransE, DistMult and ComplEx, with entities that may be read from texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from hf_labels.losses.kg_zero_shot import margin_ranking_loss, self_adversarial_loss

SCORINGS = ("transe", "distmult", "complex")
LOSSES = ("margin", "self_adversarial")


@strict
class KGEmbeddingConfig(PreTrainedConfig):
    """Settings of [`KGEmbeddingModel`].

    Parameters:
        scoring (`str`, *optional*, defaults to `"transe"`): `"transe"`, `"distmult"` or `"complex"`.
        num_entities, num_relations (`int`): Of the graph.
        hidden_size (`int`, *optional*, defaults to 64): d; for ComplEx the first half is real, the second imaginary.
        norm (`int`, *optional*, defaults to 1): 1 or 2, distance of TransE.
        loss_type (`str`, *optional*, defaults to `"margin"`): `"margin"` or `"self_adversarial"`.
        margin, temperature (`float`, *optional*, defaults to 1.0): Of the losses.
        text_size (`int`, *optional*, defaults to 0): Width of texts' vectors; above 0 an entity is `W text`.
        entities, relations (`list[str]`, *optional*): Names.
    """

    model_type = "hfl-kg-embedding"

    scoring: str = "transe"
    num_entities: int = 2
    num_relations: int = 1
    hidden_size: int = 64
    norm: int = 1
    loss_type: str = "margin"
    margin: float = 1.0
    temperature: float = 1.0
    text_size: int = 0
    entities: list[str] | None = None
    relations: list[str] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        for name, value, options in (
            ("scoring", self.scoring, SCORINGS),
            ("loss_type", self.loss_type, LOSSES),
            ("norm", self.norm, (1, 2)),
        ):
            if value not in options:
                raise ValueError(f"`{name}` must be one of {', '.join(map(str, options))}, got {value!r}.")
        if self.scoring == "complex" and self.hidden_size % 2:
            raise ValueError(f"ComplEx needs an even `hidden_size`, got {self.hidden_size}.")
        super().__post_init__(**kwargs)


@dataclass
class KGEmbeddingOutput(ModelOutput):
    """`loss`, and `logits`, scores of the triples `(B,)`, or of the triples and their negatives `(B, 1 + K)`."""

    loss: Tensor | None = None
    logits: Tensor | None = None


class KGEmbeddingModel(PreTrainedModel):
    """Scores triples: `-||h + r - t||`, `<h, r, t>` or `Re <h, r, conj t>`; higher is more likely.

    Entities of TransE have length 1: they are brought back to it at every training step, as in the paper.

    Source: Bordes et al., NeurIPS 2013; Yang et al., ICLR 2015; Trouillon et al., ICML 2016.
    """

    config_class = KGEmbeddingConfig
    config: KGEmbeddingConfig
    main_input_name = "h"
    texts: Tensor

    def __init__(self, config: KGEmbeddingConfig):
        super().__init__(config)
        if config.text_size:
            self.text_map = nn.Linear(config.text_size, config.hidden_size, bias=False)
            self.register_buffer("texts", torch.zeros(config.num_entities, config.text_size))
        else:
            self.entity = nn.Embedding(config.num_entities, config.hidden_size)
        self.relation = nn.Embedding(config.num_relations, config.hidden_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            bound = 6 / self.config.hidden_size**0.5
            init.uniform_(module.weight, -bound, bound)
            if self.config.scoring != "transe":
                init.normal_(module.weight, std=self.config.hidden_size**-0.5)
            elif module is getattr(self, "relation", None):
                init.copy_(module.weight, F.normalize(module.weight))
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, KGEmbeddingModel) and self.config.text_size:
            init.zeros_(module.texts)

    @classmethod
    def from_graph(cls, kg: Any, texts: Any = None, **settings: Any) -> KGEmbeddingModel:
        """A new model for a [`~hf_labels.data.kg_zero_shot.KnowledgeGraph`].

        Args:
            kg: Its nodes are the entities.
            texts (`(n, d)`, *optional*): Vectors of the entities' texts: entities are then read from them, and new
                ones can be added with `add_entities`.
            settings: Further settings of [`KGEmbeddingConfig`].
        """
        size = 0 if texts is None else np.asarray(texts).shape[1]
        names: dict[str, Any] = {"entities": list(kg.nodes), "relations": list(kg.relations), "text_size": size}
        config = KGEmbeddingConfig(num_entities=len(kg), num_relations=len(kg.relations), **names, **settings)
        model = cls(config)
        if texts is not None:
            model.texts = torch.as_tensor(np.asarray(texts), dtype=torch.float32)
        return model

    def add_entities(self, names: Sequence[str], texts: Any) -> None:
        """Entities that were not there in training, from vectors `(m, d)` of their texts.

        Raises:
            ValueError: If entities are not read from texts, or the width differs.
        """
        if not self.config.text_size:
            raise ValueError("Entities of this model have learned vectors: train it with `texts` to add new ones.")
        new = torch.as_tensor(np.asarray(texts)).to(self.texts)
        if new.shape != (len(names), self.config.text_size):
            raise ValueError(
                f"`texts` must have the shape {(len(names), self.config.text_size)}, got {tuple(new.shape)}."
            )
        self.texts = torch.cat([self.texts, new])
        self.config.num_entities = len(self.texts)
        self.config.entities = [*(self.config.entities or []), *names]

    def entities(self) -> Tensor:
        """Vectors of all entities, `(n, d)`."""
        table = self.text_map(self.texts) if self.config.text_size else self.entity.weight
        return F.normalize(table) if self.config.scoring == "transe" and self.config.text_size else table

    @torch.no_grad()
    def normalize_entities(self) -> None:
        """Bring learned entities of TransE to length 1."""
        if self.config.scoring == "transe" and not self.config.text_size:
            self.entity.weight.copy_(F.normalize(self.entity.weight))

    def score(self, h: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """Scores of vectors that broadcast against each other, `(..., d)` to `(...)`."""
        if self.config.scoring == "transe":
            return -(h + r - t).norm(p=self.config.norm, dim=-1)
        if self.config.scoring == "distmult":
            return (h * r * t).sum(-1)
        product = _times(h, r)
        return (product * t).sum(-1)  # real part of h r conj(t)

    def candidates(self, known: Tensor, relation: Tensor, side: str) -> Tensor:
        """Scores of every entity at the open end of `(known, relation)` pairs.

        Args:
            known, relation (`Tensor` of shape `(B,)`): Numbers.
            side (`str`): `"tail"` or `"head"`, the end that is open.

        Returns:
            `Tensor` of shape `(B, n)`.
        """
        table = self.entities()
        own, r = table[known], self.relation(relation)
        if self.config.scoring == "transe":
            query = own + r if side == "tail" else own - r
            return -torch.cdist(query, table, p=float(self.config.norm), compute_mode="donot_use_mm_for_euclid_dist")
        if self.config.scoring == "complex":
            query = _times(own, r) if side == "tail" else _times(own, r, conjugate=True)
        else:
            query = own * r
        return query @ table.T

    def forward(
        self,
        h: Tensor,
        r: Tensor,
        t: Tensor,
        neg: Tensor | None = None,
        corrupt_head: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> KGEmbeddingOutput | tuple:
        """Scores, and the loss when there are negatives.

        Args:
            h, r, t (`Tensor` of shape `(B,)`): Heads, relations and tails.
            neg (`Tensor` of shape `(B, K)`, *optional*): Entities that take the place of the tail, or of the head.
            corrupt_head (`Tensor` of shape `(B, K)`, bool, *optional*): Where they take the place of the head.
        """
        if self.training:
            self.normalize_entities()
        table = self.entities()
        head, rel, tail = table[h], self.relation(r), table[t]
        scores = self.score(head, rel, tail)
        loss = None
        if neg is not None:
            other, where = table[neg], torch.zeros_like(neg) if corrupt_head is None else corrupt_head
            where = where.bool()[..., None]
            heads, tails = (torch.where(where, other, head[:, None]), torch.where(where, tail[:, None], other))
            wrong = self.score(heads, rel[:, None], tails)
            if self.config.loss_type == "margin":
                loss = margin_ranking_loss(scores, wrong, self.config.margin)
            else:
                loss = self_adversarial_loss(scores, wrong, self.config.margin, self.config.temperature)
            scores = torch.cat([scores[:, None], wrong], 1)
        if return_dict is False:
            return (scores,) if loss is None else (loss, scores)
        return KGEmbeddingOutput(loss=loss, logits=scores)

    @torch.no_grad()
    def ranks(self, test: Any, known: Any = (), batch_size: int = 256, progress: bool = False) -> np.ndarray:
        """Filtered realistic ranks of the true tail and head of each triple.

        Args:
            test (`(M, 3)` integers): Triples.
            known (`(T, 3)` integers, *optional*): True triples, which do not count as rivals (the filtered setting);
                give train, valid and test parts. None: raw ranks.
            batch_size (`int`, *optional*, defaults to 256)
            progress (`bool`, *optional*, defaults to `False`): Show a bar.

        Returns:
            `np.ndarray` of shape `(M, 2)`: Tail and head; `#better + (#equal with itself + 1) / 2`.

        Raises:
            ValueError: If there is no triple, or one names no entity.
        """
        from hf_labels.metrics.functional.kg_ranking import realistic_ranks

        triples = np.asarray(test, dtype=np.int64).reshape(-1, 3)
        if not len(triples):
            raise ValueError("There is no test triple.")
        bad = np.flatnonzero((triples[:, [0, 2]] >= self.config.num_entities).any(1))
        if len(bad):
            raise ValueError(f"Triple {bad[0]} names an entity beyond the {self.config.num_entities} of the model.")
        others = known_answers(known)
        self.eval()
        found = np.zeros((len(triples), 2))
        for start in tqdm(range(0, len(triples), batch_size), desc="Ranking", disable=not progress):
            part = torch.as_tensor(triples[start : start + batch_size], device=self.device)
            for column, (side, given, wanted) in enumerate((("tail", 0, 2), ("head", 2, 0))):
                scores = self.candidates(part[:, given], part[:, 1], side).double().cpu().numpy()
                rivals = [others.get((side, *key), ()) for key in part[:, [given, 1]].tolist()]
                found[start : start + len(part), column] = realistic_ranks(
                    scores, part[:, wanted].cpu().numpy(), rivals
                )
        return found

    def evaluate_ranks(self, test: Any, known: Any = (), **options: Any) -> dict[str, float]:
        """[`~hf_labels.metrics.functional.kg_ranking_scores`] of `ranks` over both sides."""
        from hf_labels.metrics.functional.kg_ranking import kg_ranking_scores

        return kg_ranking_scores(self.ranks(test, known, **options))


def known_answers(triples: Any) -> dict[tuple[str, int, int], list[int]]:
    """(side, given entity, relation) -> entities that are true there."""
    found: dict[tuple[str, int, int], list[int]] = {}
    for head, relation, tail in np.asarray(triples, dtype=np.int64).reshape(-1, 3).tolist():
        found.setdefault(("tail", head, relation), []).append(tail)
        found.setdefault(("head", tail, relation), []).append(head)
    return found


def _times(a: Tensor, b: Tensor, conjugate: bool = False) -> Tensor:
    """Product of complex vectors, a with b or with its conjugate; halves are real and imaginary parts."""
    (a_re, a_im), (b_re, b_im) = a.chunk(2, -1), b.chunk(2, -1)
    if conjugate:
        b_im = -b_im
    return torch.cat([a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re], -1)


AutoConfig.register(KGEmbeddingConfig.model_type, KGEmbeddingConfig, exist_ok=True)
