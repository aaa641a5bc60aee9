"""Tagged words to tokens, and the collator that keeps tags, pseudo tags and entity ids beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import ClassLabel, List
from torch import Tensor

from hf_labels.data.collators import LabelCollator
from hf_labels.labels.columns import class_names, require_columns
from hf_labels.labels.kinds import IGNORE_INDEX, MISSING

PADDING = {"pseudo_tags": 0, "entity_ids": MISSING}


class EntityMetricCollator(LabelCollator):
    """A [`LabelCollator`] with labels per token, which also pads `pseudo_tags` (0) and `entity_ids` (-1)."""

    def __init__(self, tokenizer: Any = None, **options: Any) -> None:
        super().__init__(tokenizer, token_labels=True, **options)

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        own = {name: [row[name] for row in features] for name in PADDING if features[0].get(name) is not None}
        batch = super().__call__([{k: v for k, v in row.items() if k not in PADDING} for row in features])
        for name, rows in own.items():
            batch[name] = self._padded(rows, batch["labels"], PADDING[name])
        return batch

    def _padded(self, rows: list[Any], labels: Tensor, value: int) -> Tensor:
        out = torch.full_like(labels, value)
        for place, row in zip(out, rows, strict=True):
            place[self._place(len(row), labels.shape[1])] = torch.as_tensor(row)
        return out


def tokenize_tagged_words(
    dataset: Any,
    tokenizer: Any,
    *,
    word_column: str = "tokens",
    tag_column: str = "ner_tags",
    extra: Sequence[str] = (),
    **options: Any,
) -> Any:
    """Split words into tokens; tags stand at the first token of each word.

    Args:
        dataset (`datasets.Dataset`): Words (list of `str`) and tag ids (O = 0, B- odd, I- even) per row.
        tokenizer (`PreTrainedTokenizerBase`): A fast tokenizer.
        word_column, tag_column (`str`, *optional*): Columns.
        extra (sequence of `str`, *optional*): Further columns with one number per word, such as `pseudo_tags` and
            `entity_ids`.
        options: Passed to the tokenizer, such as `max_length`.

    Returns:
        `datasets.Dataset`: `input_ids`, `attention_mask`, ..., `labels` (-100 but at first tokens) and the extra
        columns; other columns are dropped.

    Raises:
        TypeError: For a tokenizer without `word_ids` (a slow one).
        ValueError: If a row has another number of tags than words; names it.
        KeyError: If a column is missing.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise TypeError(
            f"{type(tokenizer).__name__} is a slow tokenizer: it does not say which word a token is of. Load it with "
            "`AutoTokenizer.from_pretrained(..., use_fast=True)`."
        )
    columns = [word_column, tag_column, *extra]
    require_columns(dataset, columns)

    def encode(batch: dict[str, list[Any]], rows: list[int]) -> dict[str, list[Any]]:
        for row, *values in zip(rows, *(batch[name] for name in columns), strict=True):
            for name, value in zip(columns[1:], values[1:], strict=True):
                if len(value) != len(values[0]):
                    raise ValueError(f"Row {row} has {len(values[0])} words and {len(value)} entries in `{name}`.")
        found = tokenizer(batch[word_column], is_split_into_words=True, truncation=True, **options)
        out = dict(found)
        for name in columns[1:]:
            filler = IGNORE_INDEX if name == tag_column else PADDING.get(name, 0)
            out["labels" if name == tag_column else name] = [
                _at_first_tokens(found.word_ids(i), values, filler) for i, values in enumerate(batch[name])
            ]
        return out

    return dataset.map(encode, batched=True, with_indices=True, remove_columns=dataset.column_names, desc="Tokenizing")


def _at_first_tokens(words: Sequence[int | None], values: Sequence[int], filler: int) -> list[int]:
    out, last = [], None
    for word in words:
        out.append(filler if word is None or word == last else int(values[word]))
        last = word
    return out


def order_tags(
    dataset: Any, tag_column: str = "ner_tags", names: Sequence[str] | None = None
) -> tuple[Any, list[str]]:
    """Renumber tags to the order of this method: O, B-X, I-X, B-Y, I-Y, types in the order of their first B- tag.

    Args:
        dataset (`datasets.Dataset`): With a list of tag ids per row.
        tag_column (`str`, *optional*): Which.
        names (sequence of `str`, *optional*): Names of the ids; those of the `ClassLabel` by default.

    Returns:
        `tuple`: The data set, and the new names.

    Raises:
        ValueError: Without names, for a name that is not O, B-X or I-X, or an id without a name; names the row.
    """
    require_columns(dataset, [tag_column])
    names = list(class_names(dataset, tag_column) or ()) if names is None else list(names)
    if "O" not in names:
        raise ValueError(
            f"The tags of column `{tag_column}` need names, with O among them, got {names}. Pass `names`."
        )
    wrong = [name for name in names if name != "O" and name[:2] not in ("B-", "I-")]
    if wrong:
        raise ValueError(f"Tags must be called O, B-X or I-X, got {wrong[0]!r} for column `{tag_column}`.")
    kinds = dict.fromkeys(name[2:] for name in sorted(names, key=lambda n: n[:1] == "I") if name != "O")
    ordered = ["O", *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI")]
    place = [ordered.index(name) for name in names]

    def renumber(batch: list[list[int]], rows: list[int]) -> dict[str, list[list[int]]]:
        for row, tags in zip(rows, batch, strict=True):
            bad = [tag for tag in tags if not 0 <= tag < len(place)]
            if bad:
                raise ValueError(f"Column `{tag_column}` has tag {bad[0]} at row {row}; there are {len(place)} names.")
        return {tag_column: [[place[tag] for tag in tags] for tags in batch]}

    features = dataset.features.copy()
    features[tag_column] = List(ClassLabel(names=ordered))
    out = dataset.map(
        renumber,
        batched=True,
        with_indices=True,
        input_columns=[tag_column],
        features=features,
        desc="Renumbering tags",
    )
    return out, ordered
