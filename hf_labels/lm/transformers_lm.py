"""`TransformersLM`: a local checkpoint behind the black-box interface."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from .base import BlackBoxLM
from .decoding import Row, generate_rows, left_pad, pad_id, seed_of
from .errors import ItemError
from .gguf import load_gguf
from .images import load_image
from .local_scoring import label_logprobs, label_logprobs_with_images
from .prompts import context_length, encode, render, shorten, token_cutter, too_long
from .types import FinishReason, Request, Response, Usage


class TransformersLM(BlackBoxLM):
    """A model of the kind `AutoModelForCausalLM`, or `AutoModelForImageTextToText` with its processor.

    Prompts go through the chat template if there is one. Generation is left-padded; scoring is right-padded; neither
    changes an answer. With `temperature > 0` each answer is drawn from a generator of its own, seeded by the request's
    seed and prompt, so that batches do not matter either; `n` greedy answers are one answer given `n` times.

    Parameters:
        model (`PreTrainedModel`): In its own place and precision; it is used in evaluation mode.
        tokenizer (`PreTrainedTokenizerBase` or `ProcessorMixin`): A processor brings the capability "vision".
        chat (`bool`, *optional*, defaults to `True`): Use the chat template. Without one, or with `False`, the
            contents of the messages are joined by newlines.
        truncate (`bool`, *optional*, defaults to `False`): Drop the oldest user content of a prompt that does not fit
            (with room for `max_new_tokens`); otherwise it is refused.
        processor (*optional*): Another way to give the processor.
        model_id (`str`, *optional*): By default the name that the model was loaded by. Needed with `cache_dir` for a
            model without a name.
        kwargs: As in [`BlackBoxLM`].

    Raises:
        ValueError: If the model has no name and there is a `cache_dir`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        processor: Any = None,
        chat: bool = True,
        truncate: bool = False,
        model_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        given = tokenizer if tokenizer is not None else processor
        if given is None:
            raise ValueError("`TransformersLM` needs a `tokenizer` or a `processor`.")
        if processor is None and getattr(given, "image_processor", None) is not None:
            processor = given
        name = model_id or getattr(model.config, "_name_or_path", "")
        if not name and kwargs.get("cache_dir") is not None:
            raise ValueError(
                "This model has no name: give `model_id`, or other models would share its cached answers."
            )
        kwargs.setdefault("revision", getattr(model.config, "_commit_hash", None))
        super().__init__(model_id=name or type(model).__name__, **kwargs)
        self.model, self.processor = model, processor
        self.tokenizer = getattr(given, "tokenizer", given)
        self.chat, self.truncate = chat, truncate
        self.capabilities = frozenset({"generate", "score"} | ({"vision"} if processor is not None else set()))
        self._context = context_length(model.config)
        self._label_ids: dict[str, list[int]] = {}

    @classmethod
    def from_pretrained(
        cls,
        model_id: str,
        *,
        revision: str | None = None,
        vision: bool = False,
        dtype: Any = "auto",
        device_map: Any = None,
        chat: bool = True,
        truncate: bool = False,
        **kwargs: Any,
    ) -> TransformersLM:
        """Load a checkpoint and its tokenizer (with `vision`, an `AutoModelForImageTextToText` and its processor).

        Args:
            model_id (`str`): Hub id or folder.
            revision, dtype, device_map (*optional*): As in `from_pretrained` of transformers.
            vision (`bool`, *optional*, defaults to `False`): The model takes images.
            chat, truncate, kwargs: As in the class.
        """
        from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

        auto: Any = AutoModelForImageTextToText if vision else AutoModelForCausalLM
        source: Any = AutoProcessor if vision else AutoTokenizer
        model = auto.from_pretrained(model_id, revision=revision, dtype=dtype, device_map=device_map)
        tokenizer = source.from_pretrained(model_id, revision=revision)
        revision = getattr(model.config, "_commit_hash", None) or revision
        settings: dict[str, Any] = {
            "model_id": str(model_id),
            "revision": revision,
            "chat": chat,
            "truncate": truncate,
        }
        return cls(model, tokenizer, **settings, **kwargs)

    @classmethod
    def from_gguf(
        cls, folder: str | os.PathLike[str], gguf_file: str, *, keep_converted: bool = True, **kwargs: Any
    ) -> TransformersLM:
        """Load a GGUF file as a float32 model.

        Args:
            folder (`str`): Where the file is (or a Hub id).
            gguf_file (`str`): Name of the file in it.
            keep_converted (`bool`, *optional*, defaults to `True`): Keep the converted model in the user's cache
                folder (4 bytes for each parameter), so that the next start takes a second or two.
            kwargs: As in the class.

        Raises:
            ImportError: If the package `gguf` is not installed.
            FileNotFoundError: If the file is not in the folder.
        """
        model, tokenizer, revision = load_gguf(folder, gguf_file, keep_converted=keep_converted)
        lm = cls(model, tokenizer, **{"model_id": gguf_file, "revision": revision, **kwargs})
        lm._gguf = {"gguf_folder": str(folder), "gguf_file": gguf_file}
        return lm

    _gguf: dict[str, str] | None = None

    def _settings(self) -> dict[str, Any]:
        own = {"chat": self.chat, "truncate": self.truncate, "vision": self.processor is not None}
        return {**own, **(self._gguf or {})}

    @classmethod
    def _from_settings(cls, settings: dict[str, Any]) -> TransformersLM:
        folder, file = settings.pop("gguf_folder", None), settings.pop("gguf_file", None)
        vision = settings.pop("vision", False)
        if "model" in settings:
            return cls(settings.pop("model"), settings.pop("tokenizer", None), **settings)
        if file is not None:
            settings.pop("revision")  # of the file's content
            return cls.from_gguf(folder, file, **settings)
        return cls.from_pretrained(settings.pop("model_id"), vision=vision, **settings)

    # ---- what the base class asks for -------------------------------------------------------------------------------

    def _generate(self, requests: list[Request]) -> list[Response]:
        requests = list(requests)
        groups: dict[Any, list[Row]] = {}
        prompts: list[list[int]] = []
        for item, request in enumerate(requests):
            request, ids = self._encoded(request, item, new_tokens=request.max_new_tokens)
            requests[item] = request
            prompts.append(ids)
            new_tokens = request.max_new_tokens
            if self._context is not None:
                new_tokens = min(new_tokens, self._context - len(ids))
            sampled = request.temperature > 0
            key = (
                new_tokens,
                request.stop,
                bool(request.images),
                request.temperature,
                request.top_p if sampled else 1,
            )
            rows = [Row(item, ids, seed_of(request, ids, copy)) for copy in range(request.n)] if sampled else []
            groups.setdefault(key, []).extend(rows or [Row(item, ids)])
        found: list[list[tuple[str, FinishReason, int]]] = [[] for _ in requests]
        for (new_tokens, *_), rows in groups.items():
            for start in range(0, len(rows), self.batch_size):
                chunk = rows[start : start + self.batch_size]
                first = requests[chunk[0].item]
                inputs = self._inputs([requests[row.item] for row in chunk], [row.ids for row in chunk])
                with self._evaluation():
                    answers = generate_rows(self.model, self.tokenizer, inputs, chunk, first, new_tokens)
                for row, answer in zip(chunk, answers, strict=True):
                    found[row.item].append(answer)
        return [self._response(*parts) for parts in zip(requests, prompts, found, strict=True)]

    @staticmethod
    def _response(request: Request, ids: list[int], answers: list[tuple[str, FinishReason, int]]) -> Response:
        usage = Usage(prompt_tokens=len(ids), completion_tokens=sum(count for *_, count in answers), calls=1)
        answers = answers * (request.n // len(answers))  # greedy decoding was run once
        return Response(tuple(text for text, *_ in answers), tuple(reason for _, reason, _ in answers), usage)

    def _score(self, prompts: list[Request], labels: list[str]) -> list[list[list[float]]]:
        label_ids = [self._ids_of(label) for label in labels]
        extra = max(map(len, label_ids)) - 1  # the last label token needs no position of its own
        result: list[Any] = [None] * len(prompts)
        plain: list[int] = []
        encoded: list[list[int]] = []
        for item, request in enumerate(prompts):
            request, ids = self._encoded(request, item, new_tokens=extra, strict=True)
            if request.images:
                with self._evaluation():
                    inputs = self._inputs([request], [ids])
                    result[item] = label_logprobs_with_images(self.model, inputs, label_ids, item)
            else:
                plain.append(item)
                encoded.append(ids)
        if plain:
            padding = pad_id(self.model, self.tokenizer)
            try:
                with self._evaluation():
                    rows = label_logprobs(self.model, encoded, label_ids, batch_size=self.batch_size, pad_id=padding)
            except ItemError as error:
                raise error.at(plain[error.item]) from error
            for item, row in zip(plain, rows, strict=True):
                result[item] = row
        return result

    def _check_labels(self, labels: tuple[str, ...]) -> None:
        for label in labels:
            if not self._ids_of(label):
                raise ValueError(f"The label {label!r} tokenises to nothing with this tokenizer. Use another word.")

    def _ids_of(self, label: str) -> list[int]:
        if label not in self._label_ids:
            self._label_ids[label] = encode(self.tokenizer, label, templated=True)
        return self._label_ids[label]

    def _order(self, requests: list[Request]) -> list[int]:
        lengths = [len(request.text) for request in requests]
        return sorted(range(len(requests)), key=lambda i: (-lengths[i], i))

    def _count_tokens(self, request: Request) -> int:
        text, templated = self._rendered(request)
        return len(encode(self.tokenizer, text, templated))

    def _room(self, labels: Sequence[str]) -> int | None:
        return None if self._context is None else self._context - max(1, max(len(self._ids_of(one)) for one in labels))

    def _key_extras(self, request: Request, kind: str) -> dict[str, Any]:
        own = {"chat": self.chat, "truncate": self.truncate}
        return own if own != {"chat": True, "truncate": False} else {}

    # ---- prompts ----------------------------------------------------------------------------------------------------

    def _rendered(self, request: Request) -> tuple[str, bool]:
        if self.processor is None:
            return render(self.tokenizer, request, self.chat)
        text, templated = render(self.processor, request, self.chat, images=True)
        if not templated and request.images:
            text = getattr(self.processor, "image_token", "<image>") * len(request.images) + "\n" + text
        return text, templated

    def _encoded(
        self, request: Request, item: int, new_tokens: int, strict: bool = False
    ) -> tuple[Request, list[int]]:
        """The request, shortened if asked for, and its token ids; refused if it does not fit.

        A prompt must leave room for one new token, with `strict` for all `new_tokens`.
        """
        try:
            ids = self._prompt_ids(request)
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "jinja2":
                raise
            raise ItemError(item, f"the chat template refuses these messages: {error}") from error
        if not ids:
            raise ItemError(item, "the prompt tokenises to nothing, so there is nothing to continue.")
        if self._context is None:
            return request, ids
        limit = self._context - (new_tokens if strict else 1)
        if self.truncate and len(ids) > self._context - new_tokens:
            if self._context <= new_tokens:
                raise ItemError(item, f"{new_tokens} new tokens leave no room in a context of {self._context}.")
            request = shorten(
                request,
                item,
                self._context - new_tokens,
                lambda shorter: len(self._prompt_ids(shorter)),
                token_cutter(self.tokenizer),
            )
            return request, self._prompt_ids(request)
        if len(ids) > limit:
            hint = f" ({self._context} less {self._context - limit} for the answer)"
            raise too_long(item, len(ids), limit, hint)
        return request, ids

    def _prompt_ids(self, request: Request) -> list[int]:
        if request.images:
            return self._processed([request])["input_ids"][0].tolist()
        text, templated = self._rendered(request)
        return encode(self.tokenizer, text, templated)

    def _inputs(self, requests: list[Request], prompts: list[list[int]]) -> dict[str, Any]:
        if requests[0].images:
            return self._processed(requests)
        return left_pad(prompts, pad_id(self.model, self.tokenizer))

    def _processed(self, requests: list[Request]) -> dict[str, Any]:
        rendered = [self._rendered(request) for request in requests]
        return dict(
            self.processor(
                text=[text for text, _ in rendered],
                images=[[load_image(image) for image in request.images] for request in requests],
                return_tensors="pt",
                padding=True,
                padding_side="left",
                add_special_tokens=not rendered[0][1],
            )
        )

    @contextlib.contextmanager
    def _evaluation(self) -> Iterator[None]:
        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            self.model.train(training)
