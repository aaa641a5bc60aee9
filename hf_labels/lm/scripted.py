"""`ScriptedLM`: a language model that answers by rules, for tests and controlled experiments."""

from __future__ import annotations

import hashlib
import inspect
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .base import BlackBoxLM
from .errors import ItemError, LMError, RateLimit
from .types import FinishReason, Request, Response, Usage


class NoRule(LMError):
    """No rule of a [`ScriptedLM`] fits a request, and there is no default."""


class ScriptedLM(BlackBoxLM):
    """Answers by the first rule that fits; the same question always gets the same answer, in any batch and order.

    Parameters:
        rules (`list` or `Callable[[Request], str]`): Pairs `(condition, answer)`, or a function that answers
            everything. A condition is a regular expression (searched in the text of all messages) or a function
            `Request -> bool`. An answer is a text (with the groups of the expression as `\\1` or `\\g<name>`), a dict
            or list (given as JSON), or a function of the request, or of the request and the match, that returns one of
            these.
        scores (*optional*): For `score_labels`: a dict label -> score; a function `(Request, labels) -> scores`, one
            for each label or a list of token scores for each; or pairs `(condition, dict or function)`.
        default (*optional*): The answer when no rule fits; without it [`ScriptedLM.NoRule`] is raised.
        labels (`list[str]`, *optional*): With `noise_rate`, an answer that is one of these becomes another of them.
        seed (`int`, *optional*, defaults to 0): Of the faults; enters the cache key.
        fail_first (`int`, *optional*, defaults to 0): So many calls fail first, with [`RateLimit`].
        malformed_rate (`float`, *optional*, defaults to 0.0): Share of answers that are cut in the middle.
        noise_rate (`float`, *optional*, defaults to 0.0): Share of answers and of score rows whose label is swapped.
        kwargs: As in [`BlackBoxLM`]. With a cache, give a `model_id` of its own to each set of rules that differs in
            code.

    `log` holds every request that was answered, in order; `attempts` counts calls of the backend, failed ones too.

    Raises:
        ValueError: For a rate outside [0, 1], or `noise_rate` without `labels` or `scores`.
        TypeError: For a rule of another form.
    """

    NoRule = NoRule

    def __init__(
        self,
        rules: Sequence[tuple[Any, Any]] | Callable[..., Any] = (),
        scores: Any = None,
        seed: int = 0,
        *,
        default: Any = None,
        labels: Sequence[str] | None = None,
        fail_first: int = 0,
        malformed_rate: float = 0.0,
        noise_rate: float = 0.0,
        model_id: str = "scripted",
        **kwargs: Any,
    ) -> None:
        for name, rate in (("malformed_rate", malformed_rate), ("noise_rate", noise_rate)):
            if not 0 <= rate <= 1:
                raise ValueError(f"`{name}` must be in [0, 1], got {rate}.")
        if not isinstance(fail_first, int) or fail_first < 0:
            raise ValueError(f"`fail_first` must be an integer that is not negative, got {fail_first!r}.")
        if noise_rate and scores is None and (labels is None or len(labels) < 2):
            raise ValueError("`noise_rate` needs at least two `labels`, or `scores`.")
        kwargs.setdefault("backoff", 0.0)
        super().__init__(model_id=model_id, **kwargs)
        self._given = {"rules": rules, "scores": scores, "default": default}
        self._rules = [(lambda request: True, rules)] if callable(rules) else [_rule(rule) for rule in rules]
        self._scores = [_rule(rule) for rule in scores] if isinstance(scores, list | tuple) else scores
        self.default, self.labels = default, None if labels is None else list(labels)
        self.seed, self.fail_first = seed, fail_first
        self.malformed_rate, self.noise_rate = float(malformed_rate), float(noise_rate)
        self.capabilities = frozenset(
            {"generate", "json_mode", "vision"} | ({"score"} if scores is not None else set())
        )
        self.log: list[Request] = []
        self.attempts = 0

    def _settings(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "labels": self.labels,
            "fail_first": self.fail_first,
            "malformed_rate": self.malformed_rate,
            "noise_rate": self.noise_rate,
            **{name: json.loads(json.dumps(value)) for name, value in self._given.items() if _is_json(value)},
        }

    def _key_extras(self, request: Request, kind: str) -> dict[str, Any]:
        parts = ("scores",) if kind == "score" else ("rules", "default")
        own = {name: _fingerprint(self._given[name]) for name in parts}
        faults = {"malformed_rate": self.malformed_rate, "noise_rate": self.noise_rate, "labels": self.labels}
        return {**own, **faults, "seed": self.seed}

    def _generate(self, requests: list[Request]) -> list[Response]:
        self._fail()
        answers = []
        for item, request in enumerate(requests):
            text = self._rule_answer(request, item)
            texts = tuple(self._with_faults(text, request, copy) for copy in range(request.n))
            usage = Usage(len(request.text.split()), sum(len(one.split()) for one in texts), calls=1)
            reasons: list[FinishReason] = ["stop"] * request.n
            answers.append(Response(texts, tuple(reasons), usage))
        self.log += requests
        return answers

    def _score(self, prompts: list[Request], labels: list[str]) -> list[list[list[float]]]:
        self._fail()
        rows = []
        for item, request in enumerate(prompts):
            row = self._score_row(request, labels, item)
            draw = self._draw(request, "noise", 0)
            if len(row) > 1 and draw.random() < self.noise_rate:
                best = max(range(len(row)), key=lambda c: sum(row[c]))
                other = draw.choice([c for c in range(len(row)) if c != best])
                row[best], row[other] = row[other], row[best]
            rows.append(row)
        self.log += prompts
        return rows

    def _fail(self) -> None:
        self.attempts += 1
        if self.attempts <= self.fail_first:
            raise RateLimit(f"scripted failure {self.attempts} of {self.fail_first}")

    def _rule_answer(self, request: Request, item: int) -> str:
        for condition, answer in self._rules:
            match = condition(request)
            if match:
                return _text(_called(answer, request, match), match)
        if self.default is None:
            raise NoRule(f"Request {item}: no rule fits {request.text[:200]!r}. Add one, or give `default`.")
        return _text(_called(self.default, request, True), True)

    def _score_row(self, request: Request, labels: list[str], item: int) -> list[list[float]]:
        source = self._scores
        if isinstance(source, list):
            fitting = [scorer for condition, scorer in source if condition(request)]
            if not fitting:
                raise NoRule(f"Request {item}: no scores fit {request.text[:200]!r}.")
            source = fitting[0]
        if isinstance(source, Mapping):
            missing = [label for label in labels if label not in source]
            if missing:
                raise ItemError(item, f"`scores` has no {', '.join(map(repr, missing))}.")
            row: Any = [source[label] for label in labels]
        else:
            row = source(request, labels)
        row = [[float(v) for v in one] if isinstance(one, list | tuple) else [float(one)] for one in row]
        if len(row) != len(labels):
            raise ItemError(item, f"`scores` gave {len(row)} scores for {len(labels)} labels.")
        return row

    def _draw(self, request: Request, what: str, copy: int) -> random.Random:
        """A generator of its own for each request, whatever batch it is in."""
        messages = [message.for_key() for message in request.messages]
        text = json.dumps([self.seed, request.seed, what, copy, messages], ensure_ascii=True)
        return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))

    def _with_faults(self, text: str, request: Request, copy: int) -> str:
        if self.labels and text.strip() in self.labels:
            draw = self._draw(request, "noise", copy)
            if draw.random() < self.noise_rate:
                text = draw.choice([label for label in self.labels if label != text.strip()])
        if self._draw(request, "malformed", copy).random() < self.malformed_rate:
            text = text[: len(text) // 2]
        return text


def _rule(rule: Any) -> tuple[Callable[[Request], Any], Any]:
    if not isinstance(rule, list | tuple) or len(rule) != 2:
        raise TypeError(f"A rule must be a pair (condition, answer), got {rule!r}.")
    condition, answer = rule
    if callable(condition):
        return condition, answer
    if not isinstance(condition, str | re.Pattern):
        raise TypeError(f"A condition must be a regular expression or a function, got {type(condition).__name__}.")
    pattern = re.compile(condition)
    return (lambda request: pattern.search(request.text)), answer


def _called(answer: Any, request: Request, match: Any) -> Any:
    if not callable(answer):
        return answer
    positional = [
        p
        for p in inspect.signature(answer).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    return ("text", answer(request, match) if len(positional) > 1 else answer(request))


def _text(answer: Any, match: Any) -> str:
    called = isinstance(answer, tuple) and len(answer) == 2 and answer[0] == "text"
    if called:
        answer = answer[1]
    if isinstance(answer, str):
        return match.expand(answer) if isinstance(match, re.Match) and not called else answer
    if isinstance(answer, dict | list):
        return json.dumps(answer, ensure_ascii=False)
    raise TypeError(f"A scripted answer must be a text, a dict or a list, got {type(answer).__name__}.")


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return value is not None


def _fingerprint(value: Any) -> Any:
    """JSON values that change with the rules; a function counts by its name and code."""
    if isinstance(value, list | tuple):
        return [_fingerprint(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _fingerprint(item) for name, item in value.items()}
    if isinstance(value, re.Pattern):
        return [value.pattern, value.flags]
    if callable(value):
        code = getattr(value, "__code__", None)
        constants = [] if code is None else [c for c in code.co_consts if not hasattr(c, "co_code")]
        body = (
            ""
            if code is None
            else hashlib.sha256(code.co_code + repr([code.co_names, constants]).encode()).hexdigest()
        )
        return [getattr(value, "__module__", ""), getattr(value, "__qualname__", type(value).__qualname__), body]
    return value if _is_json(value) or value is None else repr(type(value))
