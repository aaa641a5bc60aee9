"""Taxonomies: labels with names and descriptions that a language model made, how they came about, and their rules."""

import difflib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

FALLBACK = "Other"
VAGUE = frozenset("other others general misc miscellaneous undefined uncategorized unknown n/a".split())
TAXONOMY_FILE = "taxonomy.json"


class TaxonomyError(ValueError):
    """No answer of the model was a usable table.

    Parameters:
        message (`str`): What happened.
        history (`list[dict]`): All steps, with what was wrong in each.
    """

    def __init__(self, message: str, history: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.history = history


@dataclass(frozen=True)
class TaxonomyLabel:
    """One label. `id` counts from 1."""

    id: int
    name: str
    description: str


def check_table(
    table: Sequence[Mapping[str, Any]], max_labels: int, name_words: int = 10, description_words: int = 30
) -> tuple[list[TaxonomyLabel], list[str], list[str]]:
    """Read a table of a model, and say what is wrong with it.

    Args:
        table (sequence of mappings): `name` and `description`; ids are given anew.
        max_labels (`int`): Kmax.
        name_words, description_words (`int`, *optional*): Limits; what is longer is warned about, not cut.

    Returns:
        `tuple`: Labels, problems (the table cannot be used) and warnings.
    """
    labels, problems, warnings = [], [], []
    seen: dict[str, str] = {}
    for number, row in enumerate(table, start=1):
        name, text = (" ".join(str(row.get(key) or "").split()) for key in ("name", "description"))
        labels.append(TaxonomyLabel(number, name, text))
        if not name:
            problems.append(f"label {number} has no name")
        elif name.casefold() in VAGUE:
            problems.append(f"the name {name!r} is vague")
        if not text:
            problems.append(f"label {name or number!r} has no description")
        if name and name.casefold() in seen:
            problems.append(f"the name {name!r} occurs twice")
        seen[name.casefold()] = name
        if len(name.split()) > name_words:
            warnings.append(f"the name {name!r} has more than {name_words} words")
        if len(text.split()) > description_words:
            warnings.append(f"the description of {name!r} has more than {description_words} words")
    if not 2 <= len(labels) <= max_labels:
        problems.append(f"there are {len(labels)} labels, 2 to {max_labels} are allowed")
    return labels, problems, warnings


@dataclass(frozen=True)
class Taxonomy:
    """The labels of a corpus for a use case.

    Parameters:
        labels (`tuple[TaxonomyLabel, ...]`): K labels.
        use_case (`str`): What they are for.
        history (`tuple[dict, ...]`, *optional*): Steps of the induction: `step`, `kind` (generate, update, review),
            `rating`, `explanation`, `edits`, `table`, `accepted`, `problems`.
        config (`dict`, *optional*): Settings and counts of the run.
        complete (`bool`, *optional*, defaults to `True`): False if the budget ended before the last step.
    """

    labels: tuple[TaxonomyLabel, ...]
    use_case: str
    history: tuple[dict[str, Any], ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    complete: bool = True

    def __post_init__(self) -> None:
        _, problems, _ = check_table([asdict(label) for label in self.labels], max(len(self.labels), 2))
        if problems:
            raise ValueError(f"This is no taxonomy: {'; '.join(problems)}.")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """The K names."""
        return tuple(label.name for label in self.labels)

    @classmethod
    def from_names(cls, names: Mapping[str, str] | Sequence[str], use_case: str) -> "Taxonomy":
        """A taxonomy that people made: names, or names with descriptions."""
        pairs = names.items() if isinstance(names, Mapping) else [(name, name) for name in names]
        return cls(tuple(TaxonomyLabel(i, n, text) for i, (n, text) in enumerate(pairs, start=1)), use_case)

    def as_class_label(self, fallback: bool = True) -> Any:
        """The `datasets.ClassLabel` of the names, with `"Other"` last unless `fallback` is off."""
        from datasets import ClassLabel

        return ClassLabel(names=[*self.names, FALLBACK] if fallback else list(self.names))

    def match(self, name: Any, similarity: float = 0.9) -> int | None:
        """Id from 0 of the label that a text names: K for the fallback, `None` for an unknown name.

        Case and white space do not count; then the most similar name is taken, if its similarity is high enough.
        """
        text = _plain(str(name))
        known = [_plain(label) for label in self.names]
        if text in known:
            return known.index(text)
        if text in (_plain(FALLBACK), "undefined", "none", ""):
            return len(self)
        scores = [difflib.SequenceMatcher(None, text, label).ratio() for label in known]
        best = int(np.argmax(scores))
        return best if scores[best] >= similarity else None

    def to_markdown(self) -> str:
        """A table of the labels, for people and for prompts."""
        rows = [f"| {label.id} | {_cell(label.name)} | {_cell(label.description)} |" for label in self.labels]
        return "\n".join(["| id | name | description |", "| --- | --- | --- |", *rows])

    def to_json(self) -> dict[str, Any]:
        """JSON values; `from_json` reads them."""
        return {
            "use_case": self.use_case,
            "labels": [asdict(label) for label in self.labels],
            "history": list(self.history),
            "config": self.config,
            "complete": self.complete,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Taxonomy":
        """Read back what `to_json` gave."""
        labels = tuple(TaxonomyLabel(**label) for label in value["labels"])
        history, config = tuple(value.get("history", ())), dict(value.get("config", {}))
        return cls(labels, value["use_case"], history, config, value.get("complete", True))

    def save(self, folder: str | Path) -> Path:
        """Write `taxonomy.json` into a folder."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        path = place / TAXONOMY_FILE
        path.write_text(json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, name: str | Path) -> "Taxonomy":
        """From a folder, or a data set on the Hub.

        Raises:
            FileNotFoundError: If a folder holds no `taxonomy.json`.
        """
        place = Path(name)
        if not place.is_dir():
            from huggingface_hub import hf_hub_download

            place = Path(hf_hub_download(str(name), TAXONOMY_FILE, repo_type="dataset")).parent
        if not (place / TAXONOMY_FILE).is_file():
            raise FileNotFoundError(f"{name} holds no {TAXONOMY_FILE}.")
        return cls.from_json(json.loads((place / TAXONOMY_FILE).read_text(encoding="utf-8")))

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: Any = None) -> Any:
        """Push the taxonomy as a data set: labels (Parquet), `taxonomy.json` with the history, a picture and a card.

        Returns:
            `CommitInfo`
        """
        import tempfile

        from datasets import Dataset
        from huggingface_hub import HfApi

        from hf_labels.hub_cards import LabelColumn, prose, render_dataset_card, save_card, taxonomy_plot

        api = HfApi(token=token)
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            rows = Dataset.from_list([asdict(label) for label in self.labels])
            rows.to_parquet(str(Path(folder) / "labels.parquet"))
            pairs = [(label.name, label.description) for label in self.labels]
            plot = taxonomy_plot(self.use_case, pairs, Path(folder) / "taxonomy.png")
            steps = [step for step in self.history if step.get("accepted")]
            card = render_dataset_card(
                repo_id,
                tool="hf_labels.lm.tnt_llm.TaxonomyInducer",
                columns=[LabelColumn("name", "text", "of a label"), LabelColumn("description", "text", "of a label")],
                label_assumptions=f"One label per text, for the use case: {self.use_case}",
                limits="A language model wrote the labels from a sample of texts. Nobody has checked them.",
                slug="tnt_llm",
                num_rows=len(self),
                report={"steps": len(self.history), "accepted": len(steps), "complete": self.complete},
            )
            card.text += f"\n## Labels\n\n![{prose(plot.alt)}](taxonomy.png)\n"
            save_card(card, folder, [plot])
            return api.upload_folder(
                repo_id=repo_id, repo_type="dataset", folder_path=folder, commit_message="Upload taxonomy"
            )


def _plain(text: str) -> str:
    return re.sub(r"[\s_]+", "", text).casefold()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def minibatches(count: int, size: int, seed: int = 0) -> list[np.ndarray]:
    """Rows in random batches of one size; the last one is filled with distinct rows of earlier batches.

    Args:
        count (`int`): Rows.
        size (`int`): b. With `count <= size` there is one batch of all rows.
        seed (`int`, *optional*): Of the order and of the filling.

    Returns:
        `list[np.ndarray]`: Row numbers; no batch holds a row twice.

    Raises:
        ValueError: If there are fewer than 2 rows, or `size` is under 1.
    """
    if count < 2 or size < 1:
        raise ValueError(f"Need at least 2 rows and a batch size of at least 1, got {count} and {size}.")
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    if count <= size:
        return [order]
    parts = [order[start : start + size] for start in range(0, count, size)]
    short = size - len(parts[-1])
    if short:
        earlier = order[: count - len(parts[-1])]
        parts[-1] = np.concatenate([parts[-1], rng.choice(earlier, size=short, replace=False)])
    return parts
