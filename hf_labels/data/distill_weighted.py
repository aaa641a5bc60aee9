"""`SourceBank`: a shelf of frozen source models, compared on a target task and turned into teachers for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_labels.data.features import FeatureCache, check_finite, weights_hash
from hf_labels.data.soft_label_info import StoreInfo
from hf_labels.data.soft_label_store import SoftLabelStore
from hf_labels.hub import commit_of
from hf_labels.labels.columns import require_columns
from hf_labels.labels.kinds import check_column
from hf_labels.labels.linear_head import LinearHead, fit_linear_head
from hf_labels.labels.task_similarity import check_features, task_similarity
from hf_labels.losses.distill_weighted import check_weights, mix_sources, probe_rows
from hf_labels.models.heads import find_head, head_inputs

COLUMNS = ("image", "text", "pixel_values")
_BLOCK = 4096  # rows whose images are in memory at once
_TASKS = {
    "ForImageClassification": "AutoModelForImageClassification",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
}


@dataclass
class Source:
    """A frozen model on the shelf.

    Parameters:
        name (`str`): Hub id, or any name.
        encode (callable): Items (images, texts or arrays) -> `{"features": (n, d)}`, with `"probs"` (n, C) when the
            model has classes of its own.
        key (`dict`, *optional*): Names the weights, for the cache on disk. `None`: rows are not cached.
        revision (`str`, *optional*): Commit on the Hub.
    """

    name: str
    encode: Callable[[list[Any]], Mapping[str, np.ndarray]]
    key: dict[str, Any] | None = None
    revision: str | None = None

    @classmethod
    def from_pretrained(cls, name: str, revision: str | None = None, **options: Any) -> "Source":
        """Load a model and its processor from the Hub or a folder.

        A model that was saved with a classification head gives what goes into the head, and its classes; others give
        their pooled output, or the mean of the last hidden states where the pooling layer was not saved. It must read
        images alone or text alone.

        Raises:
            OSError: If it cannot be found.
        """
        import transformers

        found = commit_of(name, revision) or revision
        place: dict[str, Any] = {"revision": found or "main"}
        config = transformers.AutoConfig.from_pretrained(name, **place)
        architecture = next(iter(config.architectures or ()), "")
        loader = next((auto for part, auto in _TASKS.items() if architecture.endswith(part)), "AutoModel")
        model, info = getattr(transformers, loader).from_pretrained(
            name, **place, dtype=torch.float32, output_loading_info=True
        )
        processor = load_processor(name, **place)
        pooled = not any("pooler" in key for key in info["missing_keys"])  # else it would be random
        return cls.from_model(model, processor, name=name, revision=found, pooled=pooled, **options)

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        processor: Any = None,
        *,
        name: str,
        revision: str | None = None,
        pooled: bool = True,
        batch_size: int = 32,
    ) -> "Source":
        """A loaded model. Switched to eval mode and frozen.

        Args:
            model (`nn.Module`): A model of transformers.
            processor (*optional*): Tokenizer or image processor; without it the items are stacked as `pixel_values`.
            name (`str`), revision (`str`, *optional*): What to call it.
            pooled (`bool`, *optional*, defaults to `True`): Use `pooler_output` where there is one.
            batch_size (`int`, *optional*, defaults to 32): Items per forward.
        """
        model.eval().requires_grad_(False)
        settings = processor.to_dict() if hasattr(processor, "to_dict") else getattr(processor, "init_kwargs", {})
        key = {"model": weights_hash(model), "class": type(model).__name__, "pooled": pooled}
        key["processor"] = [type(processor).__name__, {k: repr(v) for k, v in sorted(settings.items())}]

        def encode(items: list[Any]) -> dict[str, np.ndarray]:
            parts = [
                _forward(model, processor, items[i : i + batch_size], pooled) for i in range(0, len(items), batch_size)
            ]
            return {kind: np.concatenate([part[kind] for part in parts]) for kind in parts[0]}

        return cls(name, encode, key, revision)


def load_processor(name: str, **place: Any) -> Any:
    """The image processor or tokenizer of a model; `None` when it has neither."""
    from transformers import AutoImageProcessor, AutoTokenizer

    try:
        return AutoImageProcessor.from_pretrained(name, backend="pil", **place)
    except (OSError, ValueError):
        pass
    try:
        return AutoTokenizer.from_pretrained(name, **place)
    except (OSError, ValueError):
        return None


@torch.no_grad()
def _forward(model: Any, processor: Any, items: list[Any], pooled: bool) -> dict[str, np.ndarray]:
    from transformers import PreTrainedTokenizerBase

    device = next(model.parameters()).device
    if processor is None and not isinstance(items[0], np.ndarray):
        raise ValueError(
            f"{type(model).__name__} came without an image processor or tokenizer, so it cannot read "
            f"{type(items[0]).__name__}. Save one beside it, or give arrays in a column `pixel_values`."
        )
    if processor is None:
        batch: Any = {"pixel_values": torch.stack([torch.as_tensor(np.asarray(item)).float() for item in items])}
    elif isinstance(processor, PreTrainedTokenizerBase):
        batch = processor(items, padding=True, truncation=True, return_tensors="pt")
    else:
        images = [item.convert("RGB") if hasattr(item, "convert") and item.mode != "RGB" else item for item in items]
        batch = processor(images=images, return_tensors="pt")
    inputs = {name: value.to(device) for name, value in batch.items()}
    if hasattr(model, "num_labels") and any(part in type(model).__name__ for part in _TASKS):
        with head_inputs(model) as seen:
            logits = model(**inputs).logits
        features = seen.features
        assert features is not None
        if find_head(model).is_convolution:
            features = features.flatten(2).mean(2)
        elif features.dim() > 2:
            features = _token_mean(features.flatten(1, -2), inputs)
        found = {"features": features, "probs": logits.float().softmax(-1)}
    else:
        out = model(**inputs)
        pooler = getattr(out, "pooler_output", None) if pooled else None
        features = pooler.flatten(1) if pooler is not None else _token_mean(out.last_hidden_state, inputs)
        found = {"features": features}
    return {kind: value.float().cpu().numpy() for kind, value in found.items()}


def _token_mean(hidden: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    """Mean over positions `(B, T, D)` (real tokens only) or over a map `(B, D, H, W)`; vectors stay."""
    if hidden.dim() == 4:
        return hidden.flatten(2).mean(2)
    if hidden.dim() < 3:
        return hidden
    mask = inputs.get("attention_mask")
    weight = torch.ones(hidden.shape[:2], device=hidden.device) if mask is None else mask.to(hidden.dtype)
    return (hidden * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp_min(1)


class SourceBank:
    """Source models, their features on target data (computed once, cached on disk), and their heads.

        bank = SourceBank(["microsoft/resnet-50", "facebook/dinov2-small"])
        similarities = bank.similarities(labeled)
        soft = bank.pseudo_labels(labeled, unlabeled, source_weights(similarities, power=4))

    Args:
        sources (sequence of `str` or [`Source`]): Hub ids, folders or sources.
        column (`str`, *optional*): What the sources read; by default the first of `image`, `text`, `pixel_values`.
        cache_dir (`str`, *optional*): As in [`FeatureCache`].

    Raises:
        ValueError: If there is no source, or two have one name.
    """

    def __init__(
        self, sources: Sequence["str | Source"], column: str | None = None, cache_dir: str | Path | None = None
    ) -> None:
        self.sources: dict[str, Source] = {}
        for given in sources:
            source = Source.from_pretrained(given) if isinstance(given, str) else given
            if source.name in self.sources:
                raise ValueError(f"Two sources are called `{source.name}`. Give each a name of its own.")
            self.sources[source.name] = source
        if not self.sources:
            raise ValueError("The bank is empty: give at least one source model.")
        self.column, self.cache_dir = column, cache_dir
        self.heads: dict[str, LinearHead] = {}

    def answers(self, dataset: Any, name: str) -> dict[str, np.ndarray]:
        """`features` (n, d), and `probs` (n, C) if the source has classes, for all rows of a data set.

        Rows are read as they are stored: a lazy transform (`with_transform`) is the student's.

        Raises:
            KeyError: If the column is missing.
            ValueError: If there are no rows, or features are NaN or infinite; names source and row.
        """
        column = self.column or next((c for c in COLUMNS if c in dataset.column_names), COLUMNS[0])
        require_columns(dataset, [column])
        if not len(dataset):
            raise ValueError("The data set is empty: there is nothing for the sources to read.")
        source, parts = self.sources[name], []
        cache, rows = FeatureCache(source.key, self.cache_dir), dataset.with_format(None)
        for start in range(0, len(rows), _BLOCK):
            items = rows[start : start + _BLOCK][column]
            if column == "pixel_values":
                items = [np.asarray(item, dtype=np.float32) for item in items]
            try:
                parts.append(cache.get(items, source.encode, desc=name))
            except ValueError as error:
                raise ValueError(f"Source `{name}`: {error}") from error
        found = {kind: np.concatenate([part[kind] for part in parts]) for kind in parts[0]}
        check_finite(found["features"], f"features of source {name}")
        return found

    def similarities(
        self,
        labeled: Any,
        metric: str = "parc",
        n_dims: int | None = 32,
        probe_size: int = 500,
        num_classes: int | None = None,
        seed: int = 0,
    ) -> dict[str, float]:
        """Similarity of every source, on the labelled rows or `probe_size` of them.

        A number on 100 rows is noisy: with PARC, sources a few points apart are not told from each other. Arguments
        and errors as in [`~hf_labels.labels.task_similarity.task_similarity`].
        """
        check_column(labeled, "hard", num_labels=num_classes, min_classes=2)
        labels = np.asarray(_column(labeled, "labels"))
        rows = probe_rows(labels, probe_size, seed)
        probe = labeled.select(rows)
        out = {}
        for name in self.sources:
            found = self.answers(probe, name)
            options: dict[str, Any] = {"source_probs": found.get("probs"), "num_classes": num_classes, "name": name}
            out[name] = task_similarity(found["features"], labels[rows], metric, n_dims, **options)
        return out

    def fit_heads(
        self, labeled: Any, num_classes: int | None = None, names: Sequence[str] | None = None, l2: float = 1.0
    ) -> dict[str, LinearHead]:
        """Fit a linear head on the features of each source, from the labelled rows alone.

        Args:
            labeled (`datasets.Dataset`): With `labels`; -1 = missing.
            num_classes (`int`, *optional*): N; by default that of the `ClassLabel`, else the largest label + 1.
            names (sequence of `str`, *optional*): Only these sources.
            l2 (`float`, *optional*, defaults to `1.0`): As in [`fit_linear_head`].
        """
        count = _num_classes(labeled, num_classes)
        check_column(labeled, "hard", num_labels=count, min_classes=2)
        labels = np.asarray(_column(labeled, "labels"))
        known = np.flatnonzero(labels >= 0)
        for name in self.sources if names is None else names:
            features = check_features(self.answers(labeled.select(known), name)["features"], name)
            self.heads[name] = fit_linear_head(features, labels[known], count, l2)
        return self.heads

    def probs(self, dataset: Any, name: str) -> np.ndarray:
        """Target probabilities `(n, N)` of a source whose head is fitted."""
        if name not in self.heads:
            raise ValueError(f"Source `{name}` has no head yet: call `fit_heads` first.")
        return self.heads[name].probs(self.answers(dataset, name)["features"])

    def pseudo_labels(
        self,
        labeled: Any,
        unlabeled: Any,
        weights: Mapping[str, float],
        *,
        num_classes: int | None = None,
        kind: str = "dense",
        k: int | None = None,
        l2: float = 1.0,
        similarities: Mapping[str, float] | None = None,
        power: float | None = None,
        folder: str | Path | None = None,
    ) -> SoftLabelStore:
        """The mixture of the sources for all rows, as a store keyed by `index`. Sources of weight 0 do not run.

        Args:
            labeled, unlabeled (`datasets.Dataset`): Inputs and a column `index` whose values are distinct over both.
                `unlabeled` may be `None`. Heads are fitted on `labeled`.
            weights (mapping of name to `float`): From [`source_weights`]; sum to 1.
            num_classes (`int`, *optional*), l2 (`float`, *optional*): As in [`fit_heads`].
            kind (`str`, *optional*, defaults to `"dense"`), k (`int`, *optional*): As in [`StoreInfo`]; or `topk`.
            similarities (mapping, *optional*), power (`float`, *optional*): Recorded with the student too.
            folder (`str` or `Path`, *optional*): Where the store is written.

        Raises:
            ValueError: If a weight is of an unknown source, the weights do not sum to 1, or ids repeat.
            KeyError: If the column `index` is missing.
        """
        unknown = sorted(set(weights) - set(self.sources))
        if unknown:
            raise ValueError(f"There is no source `{unknown[0]}`; the bank has: {', '.join(self.sources)}.")
        used = [name for name, weight in weights.items() if weight != 0]
        share = torch.tensor([weights[name] for name in used], dtype=torch.float64)
        check_weights(share)
        parts = [part for part in (labeled, unlabeled) if part is not None and len(part)]
        for part in parts:
            require_columns(part, ["index"])
        ids = np.concatenate([np.asarray(_column(part, "index"), dtype=np.int64) for part in parts])
        values, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            raise ValueError(
                f"`index` {values[counts > 1][0]} occurs twice in the labelled and unlabelled rows. Number the "
                "rows of both data sets without overlap (`add_index` before the split)."
            )
        count = _num_classes(labeled, num_classes)
        self.fit_heads(labeled, count, used, l2)
        stacked = [np.concatenate([self.probs(part, name) for part in parts]) for name in used]
        mixture = mix_sources(torch.from_numpy(np.stack(stacked)), share)
        names = getattr(labeled.features["labels"], "names", None)
        info = StoreInfo(kind, count, k=k, id2label=dict(enumerate(names)) if names else None)
        info.extra["distill_sources"] = {
            "power": None if power is None else str(power),
            "sources": [
                {
                    "id": name,
                    "revision": self.sources[name].revision,
                    "similarity": None if similarities is None else float(similarities[name]),
                    "weight": float(weight),
                }
                for name, weight in weights.items()
            ],
        }
        return SoftLabelStore.from_arrays(info, folder, example_ids=ids.tolist(), probs=mixture)


def _num_classes(labeled: Any, num_classes: int | None) -> int:
    if num_classes is not None:
        return num_classes
    require_columns(labeled, ["labels"])
    names = getattr(labeled.features["labels"], "names", None)
    return len(names) if names else int(np.max(_column(labeled, "labels"))) + 1


def _column(dataset: Any, name: str) -> Any:
    return dataset.with_format(None)[name][:]
