"""Cards of label data sets: what a tool or a language model wrote, how, and what can be wrong with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_labels._version import __version__
from hf_labels.hub_cards.escape import Markdown, code, prose, python_literal
from hf_labels.hub_cards.hub_names import check_languages, check_license, check_task, is_hub_id
from hf_labels.hub_cards.parts import MARKER, as_list, environment, hub_link, setting_rows, tidy
from hf_labels.hub_cards.render import sources_text
from hf_labels.hub_cards.texts import method_text

if TYPE_CHECKING:
    from huggingface_hub import DatasetCard

# How each label kind looks in a column, and how a missing label is written.
KIND_TEXT: dict[str, str] = {
    "hard": "one class id per row; -1 where the label is missing",
    "value": "one number or vector per row",
    "multi": "0 or 1 for each class; `label_mask` is 1 where a label was observed",
    "soft": "one probability per class, each row sums to 1",
    "crowd": "one class id per annotator; -1 where the annotator did not answer",
    "bag": "id of the bag that the row belongs to; the shares of the classes are known per bag only",
    "text": "text",
    "sequence": "one class or token id per position; -100 where a position does not count",
}


@dataclass(frozen=True)
class LabelColumn:
    """One column of a label data set.

    Parameters:
        name (`str`): Name of the column.
        kind (`str`): Label kind (`"hard"`, `"soft"`, ...), or `""` for a column that holds no labels.
        description (`str`, *optional*): What it holds.
        names (sequence of `str`, *optional*): Names of the classes, in the order of their ids.

    Raises:
        ValueError: If there is no such kind.
    """

    name: str
    kind: str = ""
    description: str = ""
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.kind and self.kind not in KIND_TEXT:
            raise ValueError(
                f"`kind` of column {self.name!r} must be one of {', '.join(KIND_TEXT)}; got {self.kind!r}."
            )


def _content(column: LabelColumn) -> Markdown:
    parts = [prose(column.description)] if column.description else []
    if column.kind:
        parts.append(Markdown(KIND_TEXT[column.kind]))
    if column.names:
        shown = [str(code(name, 60)) for name in column.names[:20]]
        left = len(column.names) - len(shown)
        parts.append(Markdown("classes: " + ", ".join(shown) + (f" and {left} more" if left > 0 else "")))
    return Markdown("; ".join(parts) or "-")


def _facts(tool: str, labelled_by: str | None, sources: Sequence[str], num_rows: Any) -> list[Markdown]:
    facts = [Markdown(f"Written by: {code(tool)}")]
    if labelled_by:
        facts.append(Markdown(f"Labels by the model: {hub_link(labelled_by)}"))
    if sources:
        facts.append(Markdown(f"Made from: {', '.join(hub_link(name, 'datasets/') for name in sources)}"))
    if isinstance(num_rows, Mapping):
        rows = ", ".join(f"{code(split)} {int(count)}" for split, count in num_rows.items())
        facts.append(Markdown(f"Rows: {rows}"))
    elif num_rows is not None:
        facts.append(Markdown(f"Rows: {int(num_rows)}"))
    return facts


def render_dataset_card(
    dataset_id: str,
    *,
    tool: str,
    columns: Sequence[LabelColumn],
    label_assumptions: str | Sequence[str],
    limits: str | Sequence[str],
    slug: str = "",
    labelled_by: str | None = None,
    source_datasets: str | Sequence[str] = (),
    num_rows: Mapping[str, int] | int | None = None,
    settings: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
    task_categories: str | Sequence[str] = (),
    language: str | Sequence[str] | None = None,
    license: str | None = None,
    tags: Sequence[str] = (),
) -> "DatasetCard":
    """The card of a data set whose labels were made by a tool of this package.

    Every text is taken as data: it is shown as it is and cannot add structure to the page.

    Args:
        dataset_id (`str`): Hub id, or the folder, that `load_dataset` gets in the example.
        tool (`str`): Public name of what made the labels, for example `"hf_labels.lm.label_dataset"`.
        columns (sequence of `LabelColumn`): The columns, those with labels and those that matter for them.
        label_assumptions (`str` or sequence of `str`): What must hold for the labels to be right. At least one.
        limits (`str` or sequence of `str`): What can be wrong with them. At least one.
        slug (`str`, *optional*): Method behind the tool; its paper is then named and cited.
        labelled_by (`str`, *optional*): Model that wrote the labels.
        source_datasets (`str` or sequence of `str`, *optional*): Data that the texts come from.
        num_rows (`Mapping` or `int`, *optional*): Rows, or rows per split.
        settings (`Mapping`, *optional*): Settings of the tool that differ from its defaults.
        report (`Mapping`, *optional*): Counts, for example how many rows were labelled, repaired and left out.
        task_categories (`str` or sequence of `str`, *optional*): Tasks of the Hub.
        language, license, tags: As in [`render_card`]; `license=None` says "unknown".

    Returns:
        `DatasetCard`: Its `str` is the content of `README.md`; [`save_card`] writes it.

    Raises:
        ValueError: If `dataset_id`, `columns`, `label_assumptions` or `limits` is empty, or the Hub does not know a
            task, the licence or a language.
    """
    from hf_labels.hub_cards.cards import LabelDatasetCard, LabelDatasetCardData

    needed: dict[str, Any] = {"dataset_id": str(dataset_id).strip(), "columns": columns}
    for name, lines in (("label_assumptions", label_assumptions), ("limits", limits)):
        needed[name] = [line for line in as_list(lines) if str(line).strip()]
    for name, value in needed.items():
        if not value:
            raise ValueError(f"`{name}` must not be empty.")
    sources = [str(name) for name in as_list(source_datasets)]
    data = LabelDatasetCardData(
        license=check_license(license),
        language=check_languages(language),
        annotations_creators=["machine-generated"],
        source_datasets=[name for name in sources if is_hub_id(name)] or None,
        task_categories=[check_task(str(task)) for task in as_list(task_categories)] or None,
        tags=list(dict.fromkeys(["hf_labels", *([slug] if slug else []), *(str(tag) for tag in tags)])),
    )
    method = method_text(slug) if slug else None
    body = (
        environment()
        .get_template("dataset.md.j2")
        .render(
            title=prose(dataset_id, 120),
            marker=Markdown(MARKER),
            what=Markdown("A data set whose labels, or part of them, were made by a program and not by people."),
            facts=_facts(tool, labelled_by, sources, num_rows),
            columns=[(code(item.name), item.kind or Markdown("-"), _content(item)) for item in columns],
            assumptions=needed["label_assumptions"],
            dataset_id=python_literal(str(dataset_id)),
            settings=setting_rows(settings or {}),
            report=setting_rows(report or {}),
            limits=needed["limits"],
            sources=sources_text(method) if method else Markdown(f"Made with {code(tool)}."),
            citation=Markdown(method.citation) if method else None,
            version=Markdown(__version__),
        )
    )
    return LabelDatasetCard(f"---\n{data.to_yaml()}\n---\n\n{tidy(body)}")
