"""Model cards: the text of a method, the facts of one training run, and metadata that the Hub accepts."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hf_labels._version import __version__
from hf_labels.hub_cards.escape import Markdown, prose
from hf_labels.hub_cards.hub_names import check_languages, check_license, check_task, is_hub_id, is_local
from hf_labels.hub_cards.parts import (
    MARKER,
    as_list,
    environment,
    hub_link,
    label_rows,
    plot_links,
    setting_rows,
    tidy,
)
from hf_labels.hub_cards.results import ResultRow, eval_results, table_rows
from hf_labels.hub_cards.texts import ANY_TRAINER, MethodText, method_text

if TYPE_CHECKING:
    from huggingface_hub import ModelCard, ModelCardData

MAX_LABELS = 50


def sources_text(method: MethodText) -> Markdown:
    """The paper, and what the method's text says about it."""
    parts = [method.sections["Sources"]]
    if method.paper:
        title = prose(method.paper_title)
        parts.insert(0, f"{f'[{title}]({method.url})' if method.url else title} ({method.paper}).")
    return Markdown("\n\n".join(parts))


def consumed_kinds(slug: str) -> str:
    """Sentence with the label kinds that the catalog names, empty for what is not in the catalog."""
    from hf_labels.catalog import METHODS

    kinds = next((method.consumes for method in METHODS if method.slug == slug), ())
    if not kinds:
        return ""
    return f"\n\nLabel kinds that it reads: {', '.join(f'`{kind}`' for kind in kinds)}."


def card_metadata(
    method: MethodText,
    *,
    model_id: str,
    base_model: str | None,
    datasets: Sequence[str],
    language: Any,
    license: str | None,
    results: Sequence[ResultRow],
    task: str,
    tags: Sequence[str],
) -> "ModelCardData":
    """Metadata that the Hub accepts: names that cannot be ids stay in the text and in the `model-index`."""
    from hf_labels.hub_cards.cards import LabelModelCardData

    measured = eval_results(results, task)
    is_id = base_model is not None and is_hub_id(base_model) and not is_local(base_model)
    return LabelModelCardData(
        library_name=method.library_name,
        pipeline_tag=task,
        license=check_license(license),
        language=check_languages(language),
        base_model=str(base_model) if is_id else None,
        datasets=[name for name in dict.fromkeys(datasets) if is_hub_id(name)] or None,
        metrics=list(dict.fromkeys(row.metric_type for row in measured)) or None,
        tags=["hf_labels", *([method.slug] if method.slug else []), *(str(tag) for tag in tags)],
        model_name=(model_id.rstrip("/").rsplit("/", 1)[-1] or model_id) if measured else None,
        eval_results=measured or None,
    )


def render_card(
    slug: str,
    *,
    model_id: str,
    base_model: str | None = None,
    datasets: str | Sequence[str] = (),
    language: str | Sequence[str] | None = None,
    license: str | None = "apache-2.0",
    training: Mapping[str, Any] | None = None,
    results: Sequence[ResultRow] = (),
    label_assumptions: str | Sequence[str] | None = None,
    labels: Any = None,
    plots: Iterable[Any] = (),
    extra: Mapping[str, Any] | None = None,
    pipeline_tag: str | None = None,
    tags: Sequence[str] = (),
) -> "ModelCard":
    """The model card of one trained model.

    Every text but the method's own is taken as data: it is shown as it is and cannot add structure to the page.

    Args:
        slug (`str`): Method, for example `"crosstune"`; `""` for a `LabelTrainer` of your own.
        model_id (`str`): Hub id, or the folder, that `from_pretrained` gets in the example.
        base_model (`str`, *optional*): Model that training began from. In the metadata only when it can be a Hub id.
        datasets (`str` or sequence of `str`, *optional*): Data sets of the training run. In the metadata: the Hub ids.
        language (`str` or sequence of `str`, *optional*): Language codes.
        license (`str`, *optional*, defaults to `"apache-2.0"`): Licence id of the Hub; `None` says "unknown".
        training (`Mapping`, *optional*): Arguments that differ from their defaults; secrets and local paths are left
            out.
        results (sequence of `ResultRow`, *optional*): What was measured.
        label_assumptions (`str` or sequence of `str`, *optional*): What is true of the labels of this run.
        labels (*optional*): Names, a mapping of names to meanings, or a `LabelSpace`. The first 50 are shown.
        plots (*optional*): Pictures beside the card: `CardPlot`, (file, alternative text) or file.
        extra (`Mapping`, *optional*): More facts of the run, one row each.
        pipeline_tag (`str`, *optional*): Task of the Hub; defaults to the method's.
        tags (sequence of `str`, *optional*): Tags besides `hf_labels` and the slug.

    Returns:
        `ModelCard`: Its `str` is the content of `README.md`; [`save_card`] writes it.

    Raises:
        ValueError: If there is no text for `slug`, `model_id` is empty, or the Hub does not know the licence, the
            language or the task.
        TypeError: If `results` holds something else than `ResultRow`.
    """
    from hf_labels.hub_cards.cards import LabelModelCard

    model_id, results = _checked(model_id, results)
    method = method_text(slug) if slug else ANY_TRAINER
    task = check_task(pipeline_tag or method.pipeline_tag)
    datasets = [str(name) for name in as_list(datasets)]
    data = card_metadata(
        method,
        model_id=model_id,
        base_model=base_model,
        datasets=datasets,
        language=language,
        license=license,
        results=results,
        task=task,
        tags=tags,
    )
    names = label_rows(labels)
    body = (
        environment()
        .get_template("base.md.j2")
        .render(
            **_method_parts(method, model_id, task),
            facts=_facts(method, base_model, datasets),
            labels=names[:MAX_LABELS],
            labels_left_out=max(0, len(names) - MAX_LABELS),
            own_assumptions=[line for line in as_list(label_assumptions) if str(line).strip()],
            training=None if training is None else setting_rows(training),
            extra=setting_rows(extra or {}),
            results=table_rows(results),
            has_baseline=any(row.baseline is not None for row in results),
            plots=plot_links(plots),
        )
    )
    return LabelModelCard(f"---\n{data.to_yaml()}\n---\n\n{tidy(body)}")


def _checked(model_id: Any, results: Sequence[ResultRow]) -> tuple[str, list[ResultRow]]:
    model_id = str(model_id)
    if not model_id.strip():
        raise ValueError("`model_id` must not be empty: the card shows how to load the model.")
    for row in results:
        if not isinstance(row, ResultRow):
            raise TypeError(f"`results` must hold ResultRow, got {type(row).__name__}.")
    return model_id, list(results)


def _facts(method: MethodText, base_model: str | None, datasets: Sequence[str]) -> list[Markdown]:
    facts = [Markdown(f"Method: {prose(method.title)}")] if method.slug else []
    if base_model:
        facts.append(Markdown(f"Base model: {hub_link(str(base_model))}"))
    if datasets:
        facts.append(Markdown(f"Data: {', '.join(hub_link(name, 'datasets/') for name in datasets)}"))
    return facts


def _method_parts(method: MethodText, model_id: str, task: str) -> dict[str, Markdown]:
    """What the template takes from the text of the method. It is ours, so it goes in as Markdown."""
    name = os.path.basename(model_id.rstrip("/")) if os.path.isabs(model_id) else model_id
    return {
        "title": prose(name, 120),
        "marker": Markdown(MARKER),
        "what": Markdown(method.sections["What it is"]),
        "assumptions": Markdown(method.sections["Label assumptions"] + consumed_kinds(method.slug)),
        "loading": Markdown(method.loading(model_id, task)),
        "limits": Markdown(method.sections["When it fails"]),
        "sources": sources_text(method),
        "citation": Markdown(method.citation),
        "version": Markdown(__version__),
    }
