"""`InferenceClientLM`: HF Inference Providers, Inference Endpoints, or any OpenAI-compatible server."""

from __future__ import annotations

import json
import threading
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from .base import BlackBoxLM
from .errors import MalformedAnswer, UnsupportedCapability
from .first_token import first_token_scores
from .images import image_url
from .retry import status_of
from .scored import Scored
from .structured import with_instruction
from .types import FinishReason, Request, Response, Usage

_HF_HOSTS = ("huggingface.co", "huggingface.cloud", "hf.co", "hf.space")
_REASONS: dict[str, FinishReason] = {"length": "length", "content_filter": "error"}


class InferenceClientLM(BlackBoxLM):
    """A model behind `huggingface_hub.InferenceClient.chat_completion`; `batch_size` requests are in flight at once.

    Labels are scored by the log-probabilities of the first generated token: a label that is not among the
    `top_logprobs` best tokens gets the lowest of these as an upper bound, marked in [`LabelScores`]`.truncated`.
    Labels that begin with the same token cannot be told apart: score single letters (`verbalize(labels, "letter")`).

    Parameters:
        model (`str`): Model id. With `base_url` it is the name that the server knows.
        token (`str`, *optional*): By default what huggingface_hub finds; but that one is sent to Hugging Face hosts
            only, never to another `base_url`. Never saved.
        base_url (`str`, *optional*): Of an OpenAI-compatible server, e.g. `http://localhost:8000/v1`.
        provider (`str`, *optional*): An Inference Provider.
        top_logprobs (`int`, *optional*, defaults to 20): Tokens that the server lists; some allow 5 at most.
        tokenizer (*optional*): Counts tokens when the server gives no usage (else words are counted).
        kwargs: As in [`BlackBoxLM`]; `timeout` is for one call.

    Raises:
        ValueError: If both `base_url` and `provider` are given, or `top_logprobs` is below 1.
    """

    capabilities = frozenset({"generate", "score", "json_mode", "vision", "logprobs_topk"})
    _concurrent = True

    def __init__(
        self,
        model: str,
        token: str | None = None,
        base_url: str | None = None,
        provider: str | None = None,
        *,
        top_logprobs: int = 20,
        tokenizer: Any = None,
        model_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        if base_url is not None and provider is not None:
            raise ValueError("Give `base_url` or `provider`, not both.")
        if not isinstance(top_logprobs, int) or top_logprobs < 1:
            raise ValueError(f"`top_logprobs` must be an integer of at least 1, got {top_logprobs!r}.")
        super().__init__(model_id=model_id or model, **kwargs)
        self.model, self.base_url, self.provider = model, base_url, provider
        self.top_logprobs, self.tokenizer = top_logprobs, tokenizer
        self._token = token
        self._schema_refused = False
        self._client: Any = None
        self._client_lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Without the token and the connection."""
        left_out = {"_client": None, "_client_lock": None, "_token": None}
        return {**super().__getstate__(), **left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._client_lock = threading.Lock()

    def _settings(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "base_url": _without_secrets(self.base_url),
            "provider": self.provider,
            "top_logprobs": self.top_logprobs,
        }

    def _key_extras(self, request: Request, kind: str) -> dict[str, Any]:
        place: dict[str, Any] = {"base_url": _without_secrets(self.base_url), "provider": self.provider}
        place |= {"top_logprobs": self.top_logprobs} if kind == "score" else {}
        return {name: value for name, value in place.items() if value is not None}

    def _connected(self) -> Any:
        with self._client_lock:
            if self._client is None:
                from huggingface_hub import InferenceClient

                options: dict[str, Any] = {"timeout": self.timeout, "token": self._token}
                if self.base_url is None:
                    options |= {"model": self.model, "provider": self.provider}
                else:
                    options["base_url"] = self.base_url
                    if self._token is None and not _is_hugging_face(self.base_url):
                        options["headers"] = {"authorization": None}
                self._client = InferenceClient(**options)
            return self._client

    # ---- generation -------------------------------------------------------------------------------------------------

    def _generate(self, requests: list[Request]) -> list[Response]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Response:
        if request.schema is None:
            return self._complete(request, None)
        if not self._schema_refused:
            answer_format = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": request.schema, "strict": True},
            }
            try:
                return self._complete(request, answer_format)
            except Exception as error:
                if status_of(error) not in (400, 422):
                    raise
        answer = self._complete(with_instruction(request), None)
        self._schema_refused = True  # only now: a request that is bad by itself fails here too
        return answer

    def _complete(self, request: Request, answer_format: dict[str, Any] | None) -> Response:
        """All `n` texts; a server that gives fewer is asked again."""
        texts: list[str] = []
        reasons: list[FinishReason] = []
        usage = Usage()
        while len(texts) < request.n:
            options: dict[str, Any] = {
                "max_tokens": request.max_new_tokens,
                "temperature": float(request.temperature),
                "n": request.n - len(texts) if request.n - len(texts) > 1 else None,
                "seed": None if request.seed is None else request.seed + len(texts),
                "stop": list(request.stop) or None,
                "response_format": answer_format,
                "top_p": float(request.top_p) if request.top_p < 1 else None,
            }
            output = self._call(request, options)
            choices = output.get("choices")
            if not isinstance(choices, list) or not choices:
                raise MalformedAnswer(f"The server's answer has no `choices`: {_short(output)}")
            for choice in choices[: request.n - len(texts)]:
                text, reason = _choice(choice)
                texts.append(text)
                reasons.append(reason)
            usage = usage + self._usage_of(output, request, texts[-len(choices) :])
        return Response(tuple(texts), tuple(reasons), usage)

    def _call(self, request: Request, options: dict[str, Any]) -> dict[str, Any]:
        client = self._connected()
        options = {name: value for name, value in options.items() if value is not None}
        messages = [_turn(message) for message in request.messages]
        try:
            output = client.chat_completion(messages, model=self._model_argument(), **self._model_name(), **options)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise MalformedAnswer(f"The server's answer is not JSON: {error}") from error
        except ValueError as error:
            if "Invalid" in str(error) and type(error) is ValueError:
                raise MalformedAnswer(f"The server's answer has another shape: {error}") from error
            raise
        except (AttributeError, TypeError, KeyError) as error:
            raise MalformedAnswer(f"The server's answer has another shape: {error}") from error
        return _plain(output)

    def _model_argument(self) -> str | None:
        return None if self.base_url is not None else self.model

    def _model_name(self) -> dict[str, Any]:
        return {} if self.base_url is None else {"extra_body": {"model": self.model}}

    def _usage_of(self, output: dict[str, Any], request: Request, texts: list[str]) -> Usage:
        given = output.get("usage")
        given = given if isinstance(given, dict) else {}
        prompt, completion = given.get("prompt_tokens"), given.get("completion_tokens")
        if not isinstance(prompt, int) or prompt < 0:
            prompt = self._count_tokens(request)
        if not isinstance(completion, int) or completion < 0:
            completion = sum(self._count(text) for text in texts)
        return Usage(prompt_tokens=prompt, completion_tokens=completion, calls=1)

    def _count_tokens(self, request: Request) -> int:
        return self._count(request.text)

    def _count(self, text: str) -> int:
        if self.tokenizer is None:
            return len(text.split())
        return len(self.tokenizer(text, add_special_tokens=False).input_ids)

    # ---- scoring ----------------------------------------------------------------------------------------------------

    def _score_items(self, prompts: list[Request], labels: list[str]) -> list[Scored]:
        return [self._first_token(prompt, labels) for prompt in prompts]

    def _score(self, prompts: list[Request], labels: list[str]) -> list[list[list[float]]]:
        return [scored.logprobs for scored in self._score_items(prompts, labels)]

    def _first_token(self, request: Request, labels: list[str]) -> Scored:
        options = {"max_tokens": 1, "logprobs": True, "top_logprobs": self.top_logprobs}
        output = self._call(request, options)
        try:
            content = output["choices"][0]["logprobs"]["content"]
            first = content[0]
            listed = [(str(entry["token"]), float(entry["logprob"])) for entry in first.get("top_logprobs") or [first]]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UnsupportedCapability(
                f"The server of {self.model_id} gives no log-probabilities, so it cannot score labels. Use a server "
                "that does, `TransformersLM`, or `generate_text` with a parser."
            ) from error
        logprobs, truncated = first_token_scores(labels, listed)
        return Scored([[value] for value in logprobs], truncated, self._usage_of(output, request, [listed[0][0]]))

    def _check_labels(self, labels: tuple[str, ...]) -> None:
        stripped = [label.strip() for label in labels]
        doubles = sorted({text for text in stripped if stripped.count(text) > 1})
        if doubles:
            raise ValueError(f"`labels` differ only by white space at the ends: {', '.join(map(repr, doubles))}.")
        if self.tokenizer is None:
            return
        first: dict[int, str] = {}
        for label in labels:
            ids = self.tokenizer(label, add_special_tokens=False).input_ids
            if not ids:
                raise ValueError(f"The label {label!r} tokenises to nothing with this tokenizer. Use another word.")
            if ids[0] in first:
                raise ValueError(
                    f"The labels {first[ids[0]]!r} and {label!r} begin with the same token and cannot be told apart. "
                    "Score single letters: `verbalize(labels, 'letter')`."
                )
            first[ids[0]] = label


def _turn(message: Any) -> dict[str, Any]:
    if isinstance(message.content, str):
        return {"role": message.role, "content": message.content}
    parts = [
        dict(part) if part["type"] == "text" else {"type": "image_url", "image_url": {"url": image_url(part["image"])}}
        for part in message.content
    ]
    return {"role": message.role, "content": parts}


def _choice(choice: Any) -> tuple[str, FinishReason]:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise MalformedAnswer(f"A choice of the server's answer has no `message`: {_short(choice)}")
    text = message.get("content")
    if text is None:
        text = ""
    if not isinstance(text, str):
        raise MalformedAnswer(f"A message of the server's answer has no text: {_short(message)}")
    return text, _REASONS.get(str(choice.get("finish_reason")), "stop")


def _plain(value: Any) -> Any:
    """The client's dataclasses, with the parts that it does not know, as dicts."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(item) for name, item in vars(value).items()}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _short(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "..."


def _is_hugging_face(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "https" and any(host == known or host.endswith("." + known) for known in _HF_HOSTS)


def _without_secrets(url: str | None) -> str | None:
    """Without user, password, query and fragment."""
    if url is None:
        return None
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
