"""Frozen text encoders: a local Hugging Face model, or any function from texts to vectors."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_labels.data.features import check_finite, weights_hash
from hf_labels.hub import commit_of
from hf_labels.losses.crosstune import masked_max, masked_mean

POOLINGS = ("mask", "mean", "max", "cls", "last")
PACKAGE = "package://"


def resolve_backbone(name: str) -> str:
    """Turn `package://module/folder` into the folder inside that installed package; other names pass unchanged.

    A saved model that names its backbone this way loads on every machine that has the package, and no machine's own
    paths end up in a pushed config.

    Raises:
        OSError: If the package is not installed or holds no such folder; the message names it.
    """
    if not name.startswith(PACKAGE):
        return name
    module, _, folder = name.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise OSError(f"the Python package `{module}` is not installed (`pip install {module.replace('_', '-')}`)")
    path = Path(spec.submodule_search_locations[0]) / folder
    if not path.is_dir():
        raise OSError(f"the installed Python package `{module}` has no folder {folder!r}")
    return str(path)


class TextEncoder:
    """A frozen Hugging Face encoder with one way of pooling; always in eval mode, never with a gradient.

    Parameters:
        model (`PreTrainedModel`): Its last hidden states are read; weights are not changed, gradients are switched
            off.
        tokenizer: The tokenizer of the model.
        pooling (`str`, *optional*): One of `"mask"` (hidden state at the template's mask), `"mean"`, `"max"` (over
            real tokens; max without special tokens), `"cls"` (first token), `"last"` (last real token). Default:
            `"mask"` if `template` holds a mask token, else `"last"` for a causal model, else `"mean"`.
        template (`str`, *optional*): Text around each text, for example `"{text} It was {mask}."`. `{mask}` stands
            for the tokenizer's mask token.
        max_length (`int`, *optional*, defaults to 128): Tokens at most, template and special tokens included. Longer
            texts lose their end; the template is never cut.
        model_id, revision (`str`, *optional*): Names for the cache key and for saved models.

    Raises:
        ValueError: Unknown pooling; template without `{text}`; pooling `"mask"` without a mask in the template or
            without a mask token in the tokenizer; `max_length` too short for the template.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        pooling: str | None = None,
        template: str | None = None,
        max_length: int = 128,
        model_id: str | None = None,
        revision: str | None = None,
    ):
        encoder_decoder = bool(getattr(model.config, "is_encoder_decoder", False))
        self.model = model.get_encoder() if encoder_decoder else getattr(model, "base_model", model)
        self.model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.model_id, self.revision = model_id, revision
        self.hidden_size = int(model.config.get_text_config().hidden_size)
        self.pooling = pooling or self._default_pooling(model, template)
        self.template = self._checked_template(template)
        self.max_length = min(max_length, _longest_input(model, tokenizer))
        self._set_pieces()
        self._hash: str | None = None

    @classmethod
    def from_pretrained(cls, name: str, *, revision: str | None = None, dtype: Any = None, **options) -> "TextEncoder":
        """Load model and tokenizer by Hub id, local folder or `package://module/folder`.

        Raises:
            OSError: If they cannot be found; the message names the id.
        """
        from transformers import AutoModel, AutoTokenizer

        try:
            place = resolve_backbone(name)
            found = commit_of(place, revision) or revision
            tokenizer = AutoTokenizer.from_pretrained(place, revision=found or "main")
            model = AutoModel.from_pretrained(place, revision=found or "main", dtype=dtype or torch.float32)
        except (OSError, ValueError) as error:
            raise OSError(f"The encoder `{name}` (revision {revision or 'main'}) cannot be loaded: {error}") from error
        return cls(model, tokenizer, model_id=name, revision=found, **options)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: Any) -> "TextEncoder":
        """Move the model, in place."""
        if self.device != torch.device(device):
            self.model.to(device)
        return self

    def key(self) -> dict[str, Any]:
        """What decides the vectors, for [`~hf_labels.data.features.FeatureCache`]: the weights by content, so that the
        same model under two names shares its rows and a changed model under one name does not."""
        if self._hash is None:
            self._hash = weights_hash(self.model)
        return {
            "model": self._hash,
            "dtype": str(next(self.model.parameters()).dtype),
            "tokenizer": [type(self.tokenizer).__name__, len(self.tokenizer)],
            "pooling": self.pooling,
            "template": self.template,
            "max_length": self.max_length,
        }

    def encode(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Vectors of texts.

        Args:
            texts (`Sequence[str]`): N texts; each is put in the template and cut as needed.
            batch_size (`int`, *optional*, defaults to 32): Texts per forward.

        Returns:
            `np.ndarray` of shape `(N, D)`, float32.
        """
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        out = np.zeros((len(texts), self.hidden_size), dtype=np.float32)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = self._tokenize([texts[i] for i in rows])
            out[rows] = self.pooled(batch["input_ids"], batch["attention_mask"]).float().cpu().numpy()
        return out

    @torch.no_grad()
    def pooled(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Vectors of raw texts that are already tokenised, without template, with special tokens.

        Template and cut are applied here too, so that a stock pipeline gives what [`encode`] gives.

        Args:
            input_ids (`Tensor` of shape `(B, T)`): Token ids, padded on either side.
            attention_mask (`Tensor` of shape `(B, T)`, *optional*): 1 = real token. Default: all real.

        Returns:
            `Tensor` of shape `(B, D)`, on the device of the encoder.
        """
        ids, mask = self._dress(input_ids, attention_mask)
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        if self.pooling == "mean":
            return masked_mean(hidden, mask)
        if self.pooling == "max":
            return masked_max(hidden, self._words(ids, mask))
        if self.pooling == "cls":
            place = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
        elif self.pooling == "last":
            place = mask.sum(1) - 1
        else:  # the template's own mask: the last one when it follows the text, the first one when it leads
            at = (ids == self.tokenizer.mask_token_id).int()
            leads = self.tokenizer.mask_token_id in self._before
            place = at.argmax(1) if leads else ids.shape[1] - 1 - at.flip(1).argmax(1)
        return hidden[torch.arange(len(ids), device=ids.device), place]

    @torch.no_grad()
    def encode_descriptions(
        self, texts: Sequence[str], pooling: str = "max", include_special_tokens: bool = False
    ) -> np.ndarray:
        """Label vectors: pooled over the tokens of each description, without the template.

        Args:
            texts (`Sequence[str]`): C descriptions.
            pooling (`str`, *optional*, defaults to `"max"`): `"max"` (the paper) or `"mean"`.
            include_special_tokens (`bool`, *optional*, defaults to `False`): Let `[CLS]` and the like count.

        Returns:
            `np.ndarray` of shape `(C, D)`, float32.

        Raises:
            ValueError: If a description has no token to pool; the message names it.
        """
        reduce = {"max": masked_max, "mean": masked_mean}[pooling]
        rows = []
        for text in texts:  # one by one: no padding, so no description depends on its neighbours
            batch = self._tokenize([text])
            ids, mask = batch["input_ids"].to(self.device), batch["attention_mask"].to(self.device)
            ids, mask = ids[:, : self.max_length], mask[:, : self.max_length]
            real = mask if include_special_tokens else self._words(ids, mask)
            if not bool(real.any()):
                raise ValueError(
                    f"The description {text!r} holds no token of the backbone's vocabulary. Write it in words."
                )
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            rows.append(reduce(hidden, real)[0].float().cpu().numpy())
        return np.stack(rows) if rows else np.zeros((0, self.hidden_size), dtype=np.float32)

    def _tokenize(self, texts: list[str]) -> dict[str, Tensor]:
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        return self.tokenizer(texts, truncation=True, max_length=self.max_length, padding=True, return_tensors="pt")

    def _dress(self, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Put the template's tokens around each row, cut the text (only the text) to fit, pad on the right."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        start, end = self._start, self._end
        room = self.max_length - len(start) - len(self._before) - len(self._after) - len(end)
        rows = []
        for row, keep in zip(input_ids.tolist(), attention_mask.bool().tolist(), strict=True):
            text = [token for token, real in zip(row, keep, strict=True) if real]
            text = text[len(start) :] if start and text[: len(start)] == start else text
            text = text[: -len(end)] if end and text[-len(end) :] == end else text
            rows.append([*start, *self._before, *text[:room], *self._after, *end])
        width = max(map(len, rows), default=0)
        if not width or any(not row for row in rows):
            raise ValueError("A text gave no token at all. Drop empty texts.")
        pad = self.tokenizer.pad_token_id or 0
        ids = [row + [pad] * (width - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        return torch.tensor(ids, device=self.device), torch.tensor(mask, device=self.device)

    def _words(self, ids: Tensor, mask: Tensor) -> Tensor:
        special = torch.tensor([*self._start, *self._end], dtype=ids.dtype, device=ids.device)
        return mask.bool() & ~torch.isin(ids, special)

    def _set_pieces(self) -> None:
        """Token ids around a text: the special tokens, and the template's words before and after it."""

        def ids(text: str, special: bool = False) -> list[int]:
            return list(self.tokenizer(text, add_special_tokens=special)["input_ids"]) if text or special else []

        plain, full = ids("a"), ids("a", special=True)
        at = next(i for i in range(len(full)) if full[i : i + len(plain)] == plain)
        self._start, self._end = full[:at], full[at + len(plain) :]
        before, _, after = (self.template or "{text}").partition("{text}")
        self._before, self._after = ids(before), ids(after)
        extra = len(self._start) + len(self._before) + len(self._after) + len(self._end)
        if self.max_length <= extra:
            raise ValueError(
                f"`max_length` {self.max_length} leaves no room for text: the template takes {extra} tokens."
            )

    def _default_pooling(self, model: Any, template: str | None) -> str:
        mask = self.tokenizer.mask_token
        if mask and template and ("{mask}" in template or mask in template):
            return "mask"
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        causal = model.config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not mask
        return "last" if causal else "mean"

    def _checked_template(self, template: str | None) -> str | None:
        if self.pooling not in POOLINGS:
            raise ValueError(f"`text_pooling` must be one of {', '.join(POOLINGS)}, got {self.pooling!r}.")
        if template is None and self.pooling == "mask":
            template = "{text} It was {mask}."
        if template is None:
            return None
        if template.count("{text}") != 1:
            raise ValueError(f"`template` must hold `{{text}}` once, got {template!r}.")
        mask = self.tokenizer.mask_token
        if "{mask}" in template and not mask:
            raise ValueError(f"`template` holds `{{mask}}`, but the tokenizer has no mask token: {template!r}.")
        template = template.replace("{mask}", mask or "")
        if self.pooling == "mask" and (not mask or mask not in template):
            raise ValueError(
                f"`text_pooling='mask'` needs a tokenizer with a mask token and a template that holds it, got "
                f"{template!r}. Write for example '{{text}} It was {{mask}}.', or take another pooling."
            )
        return template


class EmbeddingBackbone:
    """A black box that gives one vector per text: a function, or anything with `embed` or `encode`.

    For example a [`~hf_labels.lm.BlackBoxLM`] that can embed, a `SentenceTransformer`, or a call to a hosted service.
    There are no token vectors, so a label vector is the black box's own vector of the description.

    Parameters:
        source: `texts -> array (N, D)`, or an object with such a method called `embed` or `encode`.
        model_id (`str`, *optional*): Name of the service and its version. Vectors are cached only under a name.

    Raises:
        TypeError: If `source` can do neither.
    """

    tokenizer = None
    pooling = "embedding"
    template = None
    max_length = 0
    revision = None

    def __init__(self, source: Any, model_id: str | None = None):
        call = getattr(source, "embed", None) or getattr(source, "encode", None) or source
        if not callable(call):
            raise TypeError(
                f"A backbone must be an id, a model, a function or have `embed`, got {type(source).__name__}."
            )
        self._call: Callable[[list[str]], Any] = call
        self.model_id = model_id or getattr(source, "model_id", None)
        self._size: int | None = None

    @property
    def hidden_size(self) -> int:
        if self._size is None:
            self._size = self.encode(["a"]).shape[1]
        return self._size

    def to(self, device: Any) -> "EmbeddingBackbone":
        return self

    def key(self) -> dict[str, Any] | None:
        return {"service": self.model_id} if self.model_id else None

    def encode(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Vectors `(N, D)`, float32. Raises `ValueError` when the black box returns another shape or NaN."""
        if not len(texts):
            return np.zeros((0, self.hidden_size), dtype=np.float32)
        rows = np.asarray(self._call(list(texts)), dtype=np.float32)
        if rows.ndim != 2 or len(rows) != len(texts):
            raise ValueError(
                f"The black box was given {len(texts)} texts and returned shape {rows.shape}, not (N, D)."
            )
        check_finite(rows, "features of the black box")
        return rows

    def encode_descriptions(
        self, texts: Sequence[str], pooling: str = "max", include_special_tokens: bool = False
    ) -> np.ndarray:
        """Vectors `(C, D)` of the descriptions; both options concern token vectors, which a black box has not."""
        return self.encode(texts)


Backbone = TextEncoder | EmbeddingBackbone


def make_encoder(backbone: Any, tokenizer: Any, *, model_id: str | None = None, **options: Any) -> Backbone:
    """An encoder from an id, a folder, a loaded model (with `tokenizer`) or a black box; an encoder passes unchanged.

    Raises:
        ValueError: A loaded model without its tokenizer.
        OSError: An id or folder that cannot be loaded.
    """
    from transformers import PreTrainedModel

    if isinstance(backbone, TextEncoder | EmbeddingBackbone):
        return backbone
    if isinstance(backbone, str) or hasattr(backbone, "__fspath__"):
        return TextEncoder.from_pretrained(str(backbone), **options)
    if isinstance(backbone, PreTrainedModel):
        if tokenizer is None:
            raise ValueError("A loaded backbone needs its `tokenizer=` too.")
        name = model_id or getattr(backbone.config, "_name_or_path", None) or None
        return TextEncoder(backbone, tokenizer, model_id=name, **options)
    return EmbeddingBackbone(backbone, model_id)


def _longest_input(model: Any, tokenizer: Any) -> int:
    """Positions that the model has: RoBERTa-like models spend `padding_idx + 1` of theirs."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 10**9
    if "roberta" in model.config.model_type or model.config.model_type in ("camembert", "mpnet"):
        positions -= (model.config.pad_token_id or 0) + 1
    return min(positions, tokenizer.model_max_length)
