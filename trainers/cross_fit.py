"""Out-of-sample probabilities by cross-validation, for label tools that must not see what a model has memorised."""

import copy
import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments

from hf_labels.data.encoders import make_encoder
from hf_labels.data.features import FeatureCache, check_finite
from hf_labels.labels.columns import class_names, read_column, require_columns
from hf_labels.labels.kinds import check_values
from hf_labels.labels.linear_head import fit_linear_head
from hf_labels.trainers.places import is_main, make_place, open_plan, wait

logger = logging.getLogger(__name__)

_PART = "probs.npy"


def cross_fit(
    model: Any,
    dataset: Any,
    args: TrainingArguments | None = None,
    *,
    label_column: str = "labels",
    text_column: str = "text",
    num_labels: int | None = None,
    folds: int = 5,
    seed: int = 0,
    output_dir: str | Path | None = None,
    tokenizer: Any = None,
    trainer_class: type[Trainer] = Trainer,
    l2: float | Literal["auto"] = "auto",
    progress: bool | None = None,
    **trainer_options: Any,
) -> np.ndarray:
    """Probabilities of each row by a model that was trained on the other folds.

    Args:
        model: With `args`: a callable `() -> PreTrainedModel`, trained anew for every fold. Without: what gives frozen
            features, on which a logistic regression is trained: an array `(N, d)`, an encoder (id, folder, loaded
            model with `tokenizer`, `SentenceTransformer`, function of texts). Features are computed once and cached.
        dataset (`datasets.Dataset`): Labels in `label_column`: class ids, or 0/1 rows of K labels. All rows labelled.
        args (`TrainingArguments`, *optional*): Of each fold's trainer.
        label_column, text_column (`str`, *optional*): Columns. Texts are read for an encoder only.
        num_labels (`int`, *optional*): K; by default the names of the column, or its largest id + 1.
        folds (`int`, *optional*, defaults to 5): Parts, at least 2; every class is spread over them.
        seed (`int`, *optional*, defaults to 0): Of the parts.
        output_dir (`str`, *optional*): Keeps each finished fold: called again with the same settings, the rest is
            done. Defaults to `args.output_dir`; without either nothing is kept.
        tokenizer: Of a loaded encoder.
        trainer_class (`type`, *optional*): Subclass of `Trainer`, for example with a robust loss.
        l2 (`float`, *optional*, defaults to `"auto"`): Strength of the regression; see [`fit_linear_head`]. Chosen in
            each fold from its training rows by default.
        progress (`bool`, *optional*): Show a bar; by default when a model is trained.
        trainer_options: More for the trainer: `data_collator`, `processing_class`, ...

    Returns:
        `np.ndarray` of shape `(N, K)`, float64: rows sum to 1; of multi-label data each column is a probability.

    Raises:
        KeyError: If a column is missing.
        ValueError: For missing labels, fewer rows than folds, a single class, or an `output_dir` of other settings.
        TypeError: If `model` does not fit `args`.

    A class with a single row is missing from the training part of its own fold. That row is then trained on and
    predicted by the same model, and a warning says so.
    """
    labels, names = _labels(dataset, label_column)
    plural = labels.ndim == 2
    count = labels.shape[1] if plural else num_labels or (len(names) if names else int(labels.max()) + 1)
    parts = _parts(labels, folds, seed)
    predict: Callable[[np.ndarray, np.ndarray, Path | None], np.ndarray]
    if args is None:
        features, key = _features(model, dataset, text_column, tokenizer)

        def predict(train: np.ndarray, held: np.ndarray, folder: Path | None) -> np.ndarray:
            return _linear(features, labels, train, held, count, l2)

    else:
        if not callable(model) or isinstance(model, torch.nn.Module):
            raise TypeError(
                "With `args`, `model` must be a function that makes a new model for every fold, got "
                f"{type(model).__name__}. One model would be trained on and on: pass `lambda: X.from_pretrained(...)`."
            )
        output_dir = output_dir or args.output_dir
        data = dataset if label_column == "labels" else dataset.rename_column(label_column, "labels")
        key = {"trainer": trainer_class.__name__, "model": getattr(model, "__qualname__", type(model).__name__)}

        def predict(train: np.ndarray, held: np.ndarray, folder: Path | None) -> np.ndarray:
            assert folder is not None
            own = _make_trainer(model(), args, folder, trainer_class, data.select(train), trainer_options)
            return _trained(own, data.select(held).remove_columns("labels"), plural, folder)

    digest = hashlib.blake2b(np.ascontiguousarray(labels).tobytes(), digest_size=12).hexdigest()
    settings = {
        "rows": len(labels),
        "labels": digest,
        "folds": folds,
        "seed": seed,
        "l2": l2,
        "num_labels": count,
        **key,
    }
    output = None if output_dir is None else open_plan(output_dir, "cross_fit", settings)
    out = np.full((len(labels), count), np.nan)
    for number, train, held in _bar(parts, labels, args is not None if progress is None else progress):
        place = None if output is None else make_place(output, number, f"fold-{number}")
        done = None if place is None else place.folder / _PART
        if done is not None and done.is_file():
            out[held] = np.load(done)
            continue
        found = predict(train, held, None if place is None else place.folder)
        if found.shape != (len(held), count):
            raise ValueError(
                f"The model gave {found.shape} for {len(held)} rows of {count} classes. Set `num_labels`."
            )
        out[held] = found
        if done is not None:
            _save(done, found)
    check_finite(out, "cross-fitted probabilities")
    return out


def _labels(dataset: Any, column: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    require_columns(dataset, [column], "label_column")
    found = read_column(dataset, column)
    if found.lengths is not None:
        values = found.matrix()
        check_values(values, "multi", column=column)
        return values.astype(np.int64), class_names(dataset, column)
    if found.null.any():
        raise ValueError(f"Column `{column}` has no label at row {int(found.null.argmax())}. Select labelled rows.")
    check_values(found.values, "hard", column=column, optional_missing=False)
    if (found.values == found.values[0]).all():
        raise ValueError(
            f"Column `{column}` holds class {found.values[0]} only; a model needs two classes to compare."
        )
    return found.values.astype(np.int64), class_names(dataset, column)


def _parts(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Number of the fold of each row, `(N,)`."""
    if not 2 <= folds <= len(labels):
        raise ValueError(f"`folds` must be from 2 to the number of rows ({len(labels)}), got {folds}.")
    order = np.random.default_rng(seed).permutation(len(labels))
    if labels.ndim == 1:
        order = order[np.argsort(labels[order], kind="stable")]
    out = np.empty(len(labels), dtype=np.int64)
    out[order] = np.arange(len(labels)) % folds
    return out


def _bar(parts: np.ndarray, labels: np.ndarray, show: bool) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Fold, rows to train on, rows to predict."""
    from tqdm.auto import tqdm

    for number in tqdm(range(int(parts.max()) + 1), desc="Folds", disable=not show):
        train, held = np.flatnonzero(parts != number), np.flatnonzero(parts == number)
        if labels.ndim == 1:
            lonely = held[~np.isin(labels[held], labels[train])]
            if len(lonely):
                logger.warning(
                    "Class %s has no other row outside of fold %d: the row is trained on too, and its probability "
                    "says nothing. Give the class more rows.",
                    ", ".join(map(str, np.unique(labels[lonely])[:10])),
                    number,
                )
            train = np.concatenate([train, lonely])
        yield number, train, held


def _features(model: Any, dataset: Any, column: str, tokenizer: Any) -> tuple[np.ndarray, dict[str, Any]]:
    if isinstance(model, np.ndarray | torch.Tensor):
        values = np.asarray(model.detach().cpu() if isinstance(model, torch.Tensor) else model, dtype=np.float64)
        if values.ndim != 2 or len(values) != len(dataset):
            raise ValueError(f"Features must be ({len(dataset)}, d), one row per row of the data, got {values.shape}.")
        digest = hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=12).hexdigest()
        return values, {"features": digest}
    require_columns(dataset, [column], "text_column")
    encoder = make_encoder(model, tokenizer)
    key = encoder.key()
    rows = FeatureCache(key).get(dataset[column][:], encoder.encode)["features"]
    return rows.astype(np.float64), {"encoder": key or type(model).__name__}


def _linear(
    features: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    held: np.ndarray,
    count: int,
    l2: float | Literal["auto"],
) -> np.ndarray:
    if labels.ndim == 1:
        return fit_linear_head(features[train], labels[train], count, l2).probs(features[held])
    columns = []
    for label in labels[train].T:
        if (label == label[0]).all():
            columns.append(np.full(len(held), float(label[0])))
        else:
            columns.append(fit_linear_head(features[train], label, 2, l2).probs(features[held])[:, 1])
    return np.stack(columns, 1)


def _make_trainer(
    model: Any, args: TrainingArguments, folder: Path, trainer_class: type[Trainer], rows: Any, options: dict[str, Any]
) -> Trainer:
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"`model()` must make a PreTrainedModel, got {type(model).__name__}.")
    own = copy.copy(args)
    own.output_dir, own.load_best_model_at_end = str(folder), False
    own.eval_strategy, own.push_to_hub = type(args.eval_strategy)("no"), False
    return trainer_class(model=model, args=own, train_dataset=rows, **options)


def _trained(trainer: Trainer, rows: Any, plural: bool, folder: Path) -> np.ndarray:
    from hf_labels.trainers.state import checkpoints

    saved = checkpoints(folder)
    trainer.train(resume_from_checkpoint=str(saved[-1]) if saved else None)
    logits = trainer.predict(rows).predictions
    values = torch.as_tensor(logits[0] if isinstance(logits, tuple) else logits).double()
    if values.dim() != 2:
        raise ValueError(f"The model must give one row of logits per row of data, got {tuple(values.shape)}.")
    probs: np.ndarray = (values.sigmoid() if plural else values.softmax(-1)).numpy()
    return probs


def _save(path: Path, values: np.ndarray) -> None:
    wait()
    if is_main():
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            np.save(file, values)
        part.replace(path)
    wait()
