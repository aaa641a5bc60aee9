"""`EmbeddingLM`: a small, real scorer of labels made of a sentence encoder; fast without an accelerator."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from .base import BlackBoxLM
from .errors import ItemError
from .prompts import shorten, token_cutter, too_long
from .types import Request

_KEPT = 4096  # label and demonstration vectors kept in memory


class EmbeddingLM(BlackBoxLM):
    """Scores labels by the cosine of a sentence encoder, and learns from demonstrations in the request.

    `score(label) = cos(e(prompt), e(label)) / temperature`, plus, if `request.metadata["demos"]` holds
    `[(text, label), ...]`, `demo_weight * sum over demos with that label of softmax over demos of
    cos(e(text), e(demo text)) / temperature`. Here `text` is `request.metadata["text"]`, or the whole prompt. The
    scores are not log-probabilities; their soft-max is what `LabelScores.probs` gives. Only "score" and "embed".

    Demonstrations and text are part of the question, so they are part of the cache key although they are metadata.

    Parameters:
        encoder (`SentenceTransformer` or `str`): An encoder, or a Hub id or folder to load one from.
        temperature (`float`, *optional*, defaults to 0.05): Positive.
        demo_weight (`float`, *optional*, defaults to 0.5): Not negative.
        truncate (`bool`, *optional*, defaults to `False`): Drop the oldest user content of a prompt that is longer
            than the encoder takes; otherwise it is refused. (`embed` is the encoder's own `encode`, which drops the
        end.) kwargs: As in [`BlackBoxLM`].

    Raises:
        ValueError: For a parameter out of range, or an encoder without a name together with `cache_dir`.
    """

    capabilities = frozenset({"score", "embed"})

    def __init__(
        self,
        encoder: Any,
        temperature: float = 0.05,
        demo_weight: float = 0.5,
        *,
        truncate: bool = False,
        model_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"`temperature` must be positive, got {temperature}.")
        if not demo_weight >= 0:
            raise ValueError(f"`demo_weight` must not be negative, got {demo_weight}.")
        if isinstance(encoder, str):
            from sentence_transformers import SentenceTransformer

            model_id = model_id or encoder
            encoder = SentenceTransformer(encoder, revision=kwargs.get("revision"))
        name = model_id or _name_of(encoder)
        if not name and kwargs.get("cache_dir") is not None:
            raise ValueError("This encoder has no name: give `model_id`, or others would share its cached answers.")
        super().__init__(model_id=name or type(encoder).__name__, **kwargs)
        self.encoder, self.truncate = encoder, truncate
        self.temperature, self.demo_weight = float(temperature), float(demo_weight)
        self._vectors: OrderedDict[str, np.ndarray] = OrderedDict()

    def _settings(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "demo_weight": self.demo_weight, "truncate": self.truncate}

    @classmethod
    def _from_settings(cls, settings: dict[str, Any]) -> EmbeddingLM:
        encoder = settings.pop("encoder", None)
        return cls(settings["model_id"] if encoder is None else encoder, **settings)

    def _key_extras(self, request: Request, kind: str) -> dict[str, Any]:
        own: dict[str, Any] = {
            "temperature": self.temperature,
            "demo_weight": self.demo_weight,
            "truncate": self.truncate,
        }
        if request.metadata.get("demos"):
            own["demos"] = [[str(part) for part in demo] for demo in request.metadata["demos"]]
            own["text"] = request.metadata.get("text")
        return own

    def _score(self, prompts: list[Request], labels: list[str]) -> list[list[list[float]]]:
        texts = [self._fitting(request, item).text for item, request in enumerate(prompts)]
        demos = [_demos(request, item, labels) for item, request in enumerate(prompts)]
        queries = self._encode(texts)
        names = np.stack([self._kept(label) for label in labels])
        result = []
        for item, query in enumerate(queries):
            scores = names @ query / self.temperature
            if not np.isfinite(scores).all():
                raise ItemError(item, "the encoder gives NaN or infinite vectors for this prompt.")
            if demos[item]:
                scores = scores + self.demo_weight * self._from_demos(prompts[item], query, demos[item], labels)
            result.append([[float(score)] for score in scores])
        return result

    def _from_demos(
        self, request: Request, query: np.ndarray, demos: list[tuple[str, str]], labels: list[str]
    ) -> np.ndarray:
        text = request.metadata.get("text")
        if text is not None:
            query = self._kept(str(text))
        closeness = np.stack([self._kept(demo) for demo, _ in demos]) @ query / self.temperature
        share = np.exp(closeness - closeness.max())
        share /= share.sum()
        return np.array([share[[name == label for _, name in demos]].sum() for label in labels])

    def _room(self, labels: Sequence[str]) -> int | None:
        return getattr(self.encoder, "max_seq_length", None)

    def _fitting(self, request: Request, item: int) -> Request:
        limit = getattr(self.encoder, "max_seq_length", None)
        tokenizer = getattr(self.encoder, "tokenizer", None)
        if not limit or tokenizer is None:
            return request

        def count(one: Request) -> int:
            return len(tokenizer(one.text, truncation=False, verbose=False).input_ids)

        length = count(request)
        if length <= limit:
            return request
        if not self.truncate:
            raise too_long(item, length, limit)
        return shorten(request, item, limit, count, token_cutter(tokenizer))

    def _encode(self, texts: list[str]) -> np.ndarray:
        vectors = self.encoder.encode(
            texts, batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float64)

    def _kept(self, text: str) -> np.ndarray:
        if text not in self._vectors:
            self._vectors[text] = self._encode([text])[0]
            if len(self._vectors) > _KEPT:
                self._vectors.popitem(last=False)
        self._vectors.move_to_end(text)
        return self._vectors[text]

    def _embed(self, texts: list[str]) -> np.ndarray:
        return np.asarray(self.encoder.encode(texts, batch_size=self.batch_size, show_progress_bar=False))

    def _embedding_size(self) -> int:
        size = getattr(self.encoder, "get_embedding_dimension", None) or self.encoder.get_sentence_embedding_dimension
        return int(size() or 0)

    def _order(self, requests: list[Request]) -> list[int]:
        lengths = [len(request.text) for request in requests]
        return sorted(range(len(requests)), key=lambda i: (-lengths[i], i))

    def _count_tokens(self, request: Request) -> int:
        tokenizer = getattr(self.encoder, "tokenizer", None)
        if tokenizer is None:
            return super()._count_tokens(request)
        return len(tokenizer(request.text, truncation=False, verbose=False).input_ids)


def _demos(request: Request, item: int, labels: list[str]) -> list[tuple[str, str]]:
    found = []
    for demo in request.metadata.get("demos") or []:
        if len(demo) != 2:
            raise ItemError(item, f"`metadata['demos']` must hold pairs (text, label), got {demo!r}.")
        text, label = str(demo[0]), str(demo[1])
        if label not in labels:
            raise ItemError(item, f"a demonstration has the label {label!r}, which is not among {', '.join(labels)}.")
        found.append((text, label))
    return found


def _name_of(encoder: Any) -> str:
    """The name that the encoder was loaded by, if it says so."""
    try:
        return str(encoder[0].auto_model.config._name_or_path or "")
    except (AttributeError, TypeError, KeyError, IndexError):
        return ""
