"""`ModelCard` and `DatasetCard` whose front matter is read back as exactly what was written, by any YAML reader."""

import re
from typing import Any

import yaml
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

# Line separators, which the default style folds away, and words that YAML 1.2 readers take for numbers.
_SEPARATORS = re.compile("[\x85\u2028\u2029\ufeff]")
_NUMBERS = re.compile(r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+|0[oO][0-7]+")


class _Dumper(yaml.SafeDumper):
    """Double quotes, with escapes, for every text that another style would change."""


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    quoted = _SEPARATORS.search(text) or _NUMBERS.fullmatch(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"' if quoted else None)


_Dumper.add_representer(str, _represent)
_Dumper.add_multi_representer(str, _represent)  # subclasses, such as numpy's
_Dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]


def _to_yaml(data: dict[str, Any], line_break: str | None) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, line_break=line_break).strip()


class LabelModelCardData(ModelCardData):
    """Metadata of a model card."""

    def to_yaml(self, line_break: str | None = None, original_order: list[str] | None = None) -> str:
        """YAML of the metadata; see [`huggingface_hub.CardData.to_yaml`]."""
        super().to_yaml(line_break, original_order)  # puts the keys in order
        return _to_yaml(self.to_dict(), line_break)


class LabelDatasetCardData(DatasetCardData):
    """Metadata of a data set card."""

    def to_yaml(self, line_break: str | None = None, original_order: list[str] | None = None) -> str:
        """YAML of the metadata; see [`huggingface_hub.CardData.to_yaml`]."""
        super().to_yaml(line_break, original_order)
        return _to_yaml(self.to_dict(), line_break)


class LabelModelCard(ModelCard):
    """A `ModelCard` with exact metadata."""

    card_data_class = LabelModelCardData


class LabelDatasetCard(DatasetCard):
    """A `DatasetCard` with exact metadata."""

    card_data_class = LabelDatasetCardData
