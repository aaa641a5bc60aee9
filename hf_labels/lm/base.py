"""`BlackBoxLM`: what every method may ask of a language model, whatever runs it."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from .cache import DiskCache, cache_key
from .errors import BudgetExceeded, ImageError, UnsupportedCapability
from .retry import Retry
from .runner import Task, run
from .scored import Assemble, Scored
from .scoring import LabelScores, check_labels, score_tokens
from .structured import Structured, generate_json
from .types import Budget, Request, Response, Usage, as_request

CAPABILITIES = frozenset({"generate", "score", "json_mode", "embed", "vision", "logprobs_topk"})
_HINTS = {
    "generate": "`TransformersLM`, `InferenceClientLM` or `ScriptedLM`",
    "score": "`TransformersLM`, `InferenceClientLM`, `EmbeddingLM`, or `ScriptedLM` with `scores`",
    "embed": "`EmbeddingLM`",
    "vision": "`TransformersLM` with the processor of a vision model, or `InferenceClientLM`",
}
_BACKENDS = {
    "TransformersLM": "hf_labels.lm.transformers_lm",
    "InferenceClientLM": "hf_labels.lm.inference_client",
    "EmbeddingLM": "hf_labels.lm.embedding",
    "ScriptedLM": "hf_labels.lm.scripted",
}


class BlackBoxLM:
    """A language model reached by questions only: generation, scores of labels, JSON, a disk cache, retries, a budget.

    Parameters:
        model_id (`str`): Enters the cache key, with `revision`: two models must not share one.
        batch_size (`int`, *optional*, defaults to 8): Requests in one batch, or in flight at once. Never changes an
            answer.
        max_retries (`int`, *optional*, defaults to 4), backoff (`float`, *optional*, defaults to 1.0), backoff_max
            (`float`, *optional*, defaults to 30.0): After failure k = 0, 1, ... the wait is
            `min(backoff_max, backoff * 2**k) * U(0.5, 1)` seconds, or what the server asks for.
        timeout (`float`, *optional*, defaults to 60.0): Seconds for one call over the network.
        cache_dir (`str`, *optional*): Folder of `bblm.sqlite3`. Without it nothing is kept between calls.
        price_per_1k (`tuple[float, float]`, *optional*): US dollars for 1000 prompt and 1000 completion tokens.
        budget (`Budget`, *optional*): Checked before each batch.
        on_error (`str`, *optional*, defaults to `"raise"`): `"return"` sets `error` of a failed item instead.
        revision (`str`, *optional*): Of the model.
        progress (`bool`, *optional*): Show a bar; by default on a terminal, for calls of over two seconds.
        sleep (`Callable`, *optional*), rng (`random.Random`, *optional*): How to wait, and the jitter; for tests.

    A backend writes `_generate`, `_score` or `_embed`, and says in `capabilities` what it can do. Results keep the
    order of the requests; an empty list gives an empty result without a call.

    Raises:
        ValueError: For a value out of range.
    """

    capabilities: frozenset[str] = frozenset()
    _concurrent: ClassVar[bool] = False

    def __init__(
        self,
        *,
        model_id: str,
        batch_size: int = 8,
        max_retries: int = 4,
        backoff: float = 1.0,
        backoff_max: float = 30.0,
        timeout: float = 60.0,
        cache_dir: Any = None,
        price_per_1k: tuple[float, float] = (0.0, 0.0),
        budget: Budget | None = None,
        on_error: Literal["raise", "return"] = "raise",
        revision: str | None = None,
        progress: bool | None = None,
        sleep: Callable[[float], None] = time.sleep,
        rng: random.Random | None = None,
    ) -> None:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"`batch_size` must be an integer of at least 1, got {batch_size!r}.")
        if on_error not in ("raise", "return"):
            raise ValueError(f"`on_error` must be 'raise' or 'return', got {on_error!r}.")
        if not timeout > 0:
            raise ValueError(f"`timeout` must be positive, got {timeout}.")
        if len(price_per_1k) != 2 or not all(price >= 0 for price in price_per_1k):
            raise ValueError(f"`price_per_1k` must hold two prices that are not negative, got {price_per_1k}.")
        if isinstance(budget, Mapping):
            budget = Budget(**budget)
        self.model_id, self.revision = model_id, revision
        self.batch_size, self.timeout, self.on_error = batch_size, timeout, on_error
        self.price_per_1k = (float(price_per_1k[0]), float(price_per_1k[1]))
        self.budget, self.progress = budget, progress
        self.cache = None if cache_dir is None else DiskCache(cache_dir)
        self._retry = Retry(max_retries, backoff, backoff_max, sleep, rng or random.Random())
        self._usage = Usage()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    # ---- for a backend to write -------------------------------------------------------------------------------------

    def _generate(self, requests: list[Request]) -> list[Response]:
        """Answers of one batch, with tokens in `usage`; a bad item raises [`ItemError`] with its place."""
        raise UnsupportedCapability(self._cannot("generate"))

    def _score(self, prompts: list[Request], labels: list[str]) -> list[list[list[float]]]:
        """Token log-probabilities `[n][C][L_c]` of the labels after each prompt of one batch."""
        raise UnsupportedCapability(self._cannot("score"))

    def _score_items(self, prompts: list[Request], labels: list[str]) -> list[Scored]:
        """`_score` with usage; a backend that knows more (real usage, upper bounds) writes this one."""
        rows = self._score(prompts, labels)
        usages = [Usage(prompt_tokens=self._count_tokens(prompt), calls=1) for prompt in prompts]
        return [Scored(row, None, usage) for row, usage in zip(rows, usages, strict=True)]

    def _embed(self, texts: list[str]) -> np.ndarray:
        """Vectors `(n, D)` of one batch of texts."""
        raise UnsupportedCapability(self._cannot("embed"))

    def _check_labels(self, labels: tuple[str, ...]) -> None:
        """Refuse labels that this backend cannot score, before any call."""

    def _order(self, requests: list[Request]) -> list[int]:
        """In which order to ask. A backend that pads sorts by length."""
        return list(range(len(requests)))

    def _count_tokens(self, request: Request) -> int:
        return len(request.text.split())

    def _room(self, labels: Sequence[str]) -> int | None:
        """How many tokens a prompt may have before these labels; None if it is not known."""
        return None

    def _key_extras(self, request: Request, kind: str) -> dict[str, Any]:
        """What else decides the answer of this backend; JSON values for the cache key."""
        return {}

    def _settings(self) -> dict[str, Any]:
        """The backend's own JSON settings for `get_config`, without secrets."""
        return {}

    @classmethod
    def _from_settings(cls, settings: dict[str, Any]) -> BlackBoxLM:
        return cls(**settings)

    # ---- asking -----------------------------------------------------------------------------------------------------

    @property
    def usage(self) -> Usage:
        """What was spent since the start or the last `reset_usage`."""
        return self._usage

    def reset_usage(self) -> None:
        """Count from zero; the budget is whole again."""
        with self._lock:
            self._usage = Usage()

    def generate(self, requests: Sequence[str | Request]) -> list[Response]:
        """Answers in the order of the requests.

        Raises:
            UnsupportedCapability: If the backend cannot generate, or cannot see and a request holds an image.
            BudgetExceeded: With `partial`, a list with None where there is no answer.
            Exception: Of the first failed request (with `on_error="return"`, it is in `Response.error` instead).
        """
        asked = self._prepared(requests, "generate")
        keys = [self._key(request, "generate") for request in asked]
        return run(self, asked, keys, self._generate_task())

    def generate_text(self, prompts: Sequence[str | Request], **options: Any) -> list[str]:
        """The first text of each answer; `""` for a failed one. Options as in [`Request`], e.g. `max_new_tokens=8`."""
        try:
            return [answer.text for answer in self.generate([as_request(p, **options) for p in _listed(prompts)])]
        except BudgetExceeded as error:
            raise BudgetExceeded(str(error), [None if r is None else r.text for r in error.partial]) from error

    def generate_json(
        self, requests: Sequence[str | Request], schema: Any, *, max_repairs: int = 2
    ) -> list[Structured]:
        """Answers as JSON that fits a schema; see [`hf_labels.lm.structured.generate_json`]."""
        return generate_json(self, _listed(requests), schema, max_repairs=max_repairs)

    def score_labels(
        self,
        prompts: Sequence[str | Request],
        labels: Sequence[str],
        *,
        normalize: str = "sum",
        prior_prompt: str | Request | Sequence[str | Request] | None = None,
        calibrate: Any = None,
    ) -> LabelScores:
        """How well each label continues each prompt.

        Args:
            prompts (list of `str | Request`): n prompts.
            labels (list of `str`): C label words, used exactly as given (see [`verbalize`]).
            normalize (`str`, *optional*, defaults to `"sum"`): `"sum"`, `"mean"`, `"per_char"` or `"pmi"`; see
                [`score_tokens`].
            prior_prompt (*optional*): For `"pmi"`: the content-free prompt, or one for each prompt.
            calibrate (`(C,)` or `(n, C)`, *optional*): Probabilities under a content-free prompt; see
                [`LabelScores.calibrated`].

        Returns:
            [`LabelScores`]: float64 of shape `(n, C)`. Cost: one question for each prompt (and each content-free one).

        Raises:
            ValueError: For no labels, double labels, a label that tokenises to nothing, or a missing `prior_prompt`.
            UnsupportedCapability: If the backend cannot score, or cannot see and a prompt holds an image.
            BudgetExceeded: With `partial`, [`LabelScores`] with rows of NaN where there is no answer.
        """
        asked = self._prepared(prompts, "score")
        names = check_labels(labels)
        self._check_labels(names)
        priors = self._priors(prior_prompt, normalize, len(asked))
        everything = asked + (priors if asked else [])
        keys = [self._key(request, "score", names) for request in everything]
        assemble = Assemble(names, len(asked), normalize, calibrate)
        try:
            return assemble(run(self, everything, keys, self._score_task(names)))
        except BudgetExceeded as error:
            raise BudgetExceeded(str(error), assemble(error.partial)) from error

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors `(n, D)` of texts, in order. Counted as calls, not cached.

        Raises:
            UnsupportedCapability: If the backend has no embeddings.
            BudgetExceeded: With `partial`, the vectors so far `(m, D)`.
        """
        self._need("embed")
        texts = _listed(texts)
        if not texts:
            return np.zeros((0, self._embedding_size()))
        parts: list[np.ndarray] = []
        start = 0
        while start < len(texts):
            reached = self.budget.reached(self.usage) if self.budget else None
            if reached:
                raise BudgetExceeded(
                    f"{reached}: {start} of {len(texts)} texts are embedded.",
                    np.concatenate(parts) if parts else np.zeros((0, self._embedding_size())),
                )
            room = self.budget.room(self.usage) if self.budget else None
            batch = texts[start : start + min(self.batch_size, self.batch_size if room is None else room)]
            parts.append(np.asarray(self._retry.call(functools.partial(self._embed, batch))))
            tokens = sum(self._count_tokens(as_request(text)) for text in batch)
            self._spend(self._priced(Usage(prompt_tokens=tokens, calls=len(batch))))
            start += len(batch)
        return np.concatenate(parts)

    def _embedding_size(self) -> int:
        return 0

    # ---- configuration ----------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Everything needed to make this model again, as JSON values, but no secret."""
        return {
            "type": type(self).__name__,
            "model_id": self.model_id,
            "revision": self.revision,
            "batch_size": self.batch_size,
            "max_retries": self._retry.max_retries,
            "backoff": self._retry.backoff,
            "backoff_max": self._retry.backoff_max,
            "timeout": self.timeout,
            "cache_dir": None if self.cache is None else str(self.cache.folder),
            "price_per_1k": list(self.price_per_1k),
            "budget": None if self.budget is None else self.budget.to_dict(),
            "on_error": self.on_error,
            **self._settings(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **others: Any) -> BlackBoxLM:
        """Inverse of `get_config`, on this class or on `BlackBoxLM`.

        Args:
            config (`dict`): From `get_config`.
            others: What a config does not hold (a loaded `model` and `tokenizer`, an `encoder`, a `token`, `rules`),
                or other values.

        Raises:
            ValueError: For an unknown `type`, or one that is another class.
        """
        settings = {**config, **others}
        name = settings.pop("type", cls.__name__)
        target: Any = cls
        if cls is BlackBoxLM:
            if name not in _BACKENDS:
                raise ValueError(f"`type` must be one of {', '.join(_BACKENDS)}, got {name!r}.")
            target = getattr(importlib.import_module(_BACKENDS[name]), name)
        elif name != cls.__name__:
            raise ValueError(f"This config is of a {name}, not of a {cls.__name__}: use `BlackBoxLM.from_config`.")
        return target._from_settings(settings)

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _cannot(self, capability: str) -> str:
        return f"{type(self).__name__} cannot {capability}; use {_HINTS.get(capability, 'another backend')}."

    def _need(self, capability: str) -> None:
        if capability not in self.capabilities:
            raise UnsupportedCapability(self._cannot(capability))

    def _prepared(self, requests: Sequence[str | Request], capability: str) -> list[Request]:
        self._need(capability)
        asked = [as_request(request) for request in _listed(requests)]
        if any(request.images for request in asked):
            self._need("vision")
        return asked

    def _priors(self, prior: Any, normalize: str, count: int) -> list[Request]:
        score_tokens([], normalize=normalize, num_chars=[1], prior_token_logprobs=[[0.0]])
        if prior is None or normalize != "pmi":
            if (prior is None) == (normalize == "pmi"):
                raise ValueError("`prior_prompt` and `normalize='pmi'` go together: give both or neither.")
            return []
        priors = self._prepared([prior] if isinstance(prior, str | Request) else prior, "score")
        if len(priors) not in (1, count):
            raise ValueError(f"`prior_prompt` must be one prompt or one for each of {count}, got {len(priors)}.")
        return priors

    def _key(self, request: Request, kind: str, labels: tuple[str, ...] | None = None) -> str | None:
        if kind == "generate" and not request.cacheable:
            return None
        try:
            messages = [message.for_key() for message in request.messages]
        except ImageError:
            return None  # the backend names the request
        content = {
            "v": 1,
            "model_id": self.model_id,
            "revision": self.revision,
            "kind": kind,
            "messages": messages,
            **request.sampling(),
            "labels": None if labels is None else list(labels),
            "schema": request.schema,
        }
        extras = self._key_extras(request, kind)
        return cache_key({**content, "backend": extras} if extras else content)

    def _generate_task(self) -> Task:
        return Task(
            name="generate",
            ask=self._generate,
            usage=lambda answer: answer.usage,
            finish=lambda answer, usage, cached: answer.replace(usage=usage, cached=cached),
            failed=lambda reason: Response((), ("error",), error=reason),
            dump=lambda answer: {"texts": list(answer.texts), "finish_reasons": list(answer.finish_reasons)},
            load=lambda value: Response(value["texts"], value["finish_reasons"]),
        )

    def _score_task(self, labels: tuple[str, ...]) -> Task:
        return Task(
            name="score",
            ask=lambda batch: self._score_items(batch, list(labels)),
            usage=lambda answer: answer.usage,
            finish=lambda answer, usage, cached: dataclasses.replace(answer, usage=usage),
            failed=lambda reason: Scored([], error=reason),
            dump=lambda answer: {"logprobs": answer.logprobs, "truncated": answer.truncated},
            load=lambda value: Scored(value["logprobs"], value["truncated"]),
        )

    def _spend(self, usage: Usage) -> None:
        with self._lock:
            self._usage = self._usage + usage

    def _priced(self, usage: Usage) -> Usage:
        cost = (
            usage.prompt_tokens / 1000 * self.price_per_1k[0] + usage.completion_tokens / 1000 * self.price_per_1k[1]
        )
        return dataclasses.replace(usage, calls=max(1, usage.calls), cost_usd=cost)


def _listed(items: Any) -> list[Any]:
    if isinstance(items, str | Request):
        raise TypeError(f"Give a list of prompts, not a single {type(items).__name__}.")
    return list(items)
