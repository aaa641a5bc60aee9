"""What is wrong with a card, without asking the Hub."""

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from hf_labels.hub_cards.blocks import code_blocks, sections, split_front_matter, without_code
from hf_labels.hub_cards.hub_names import LICENSES, PIPELINE_TAGS, check_languages, is_hub_id

MODEL_SECTIONS = ("What it is", "Label assumptions", "How to use", "Training", "Results", "Limits", "Sources")
DATASET_SECTIONS = (
    "What it is",
    "Columns",
    "Label assumptions",
    "How to use",
    "How the labels were made",
    "Limits",
    "Sources",
)
_REQUIRED = {"model": ("library_name", "license", "pipeline_tag", "tags"), "dataset": ("license", "tags")}
_PLACEHOLDER = re.compile(
    r"(?<!\\)\[(?i:More Information Needed)\]|\b(?:TODO|TBD|FIXME)\b|(?i:\blorem ipsum\b)|\bNone dataset\b"
    r"|(?<!\\)\{\{|(?<!\\)\{%"
)
_IMAGE = re.compile(r"(?<!\\)!\[(?P<alt>(?:\\.|[^\]\\])*)\]\(\s*<?(?P<link>[^)>\s]*)")


def image_links(text: str) -> list[str]:
    """Addresses of the pictures that a Markdown text shows, as they are written."""
    return [match["link"] for match in _IMAGE.finditer(without_code(text))]


def validate_card(
    text: Any, folder: str | os.PathLike[str] | None = None, *, kind: str = "model", slug: str | None = None
) -> list[str]:
    """Problems of a card, each as one sentence; an empty list when there is none.

    Checked: the front matter parses and has the required fields with values that the Hub accepts, the sections are
    there and not empty, nothing is left to fill in, Python blocks compile, pictures have a text and are there.

    Args:
        text (`str` or `ModelCard`): The card.
        folder (*optional*): Where the card lies; pictures are then looked up.
        kind (`str`, *optional*, defaults to `"model"`): `"model"` or `"dataset"`.
        slug (`str`, *optional*): Tag that must be among the tags.

    Raises:
        ValueError: If `kind` is neither.
    """
    if kind not in _REQUIRED:
        raise ValueError(f"`kind` must be 'model' or 'dataset', got {kind!r}.")
    text = str(text)
    try:
        data, body = split_front_matter(text)
    except ValueError as error:
        return [str(error)]
    problems = _metadata_problems(data, kind, slug)
    try:
        found = sections(body)
    except ValueError as error:
        return [*problems, str(error)]
    for name in MODEL_SECTIONS if kind == "model" else DATASET_SECTIONS:
        if name not in found:
            problems.append(f"The section `## {name}` is missing.")
        elif not found[name]:
            problems.append(f"The section `## {name}` is empty.")
    problems += [f"Left to fill in: {match[0]!r}." for match in _PLACEHOLDER.finditer(without_code(body))]
    problems += _code_problems(body)
    return problems + _image_problems(body, folder)


def _metadata_problems(data: dict[str, Any], kind: str, slug: str | None) -> list[str]:
    problems = [f"The front matter lacks `{name}`." for name in _REQUIRED[kind] if not data.get(name)]
    task = data.get("pipeline_tag")
    tasks = [task] if task is not None else []
    for item in tasks + list(data.get("task_categories") or ()):
        if item not in PIPELINE_TAGS:
            problems.append(f"{item!r} is not a task of the Hub.")
    if data.get("license") and data["license"] not in LICENSES:
        problems.append(f"`license` {data['license']!r} is not a licence id of the Hub.")
    tags = data.get("tags") or []
    wanted = ["hf_labels", *([slug] if slug else [])]
    if not isinstance(tags, list):
        problems.append("`tags` must be a list.")
    else:
        problems += [f"`tags` lacks {name!r}." for name in wanted if tags and name not in tags]
    try:
        check_languages(data.get("language"))
    except ValueError as error:
        problems.append(str(error))
    for name in ("base_model", "datasets", "source_datasets"):
        value = data.get(name)
        for item in value if isinstance(value, list) else [value] if value is not None else []:
            if not is_hub_id(item):
                problems.append(f"`{name}` {item!r} is not a Hub id; the Hub would refuse the card.")
    index = data.get("model-index")
    if index is not None:
        from huggingface_hub.repocard_data import model_index_to_eval_results

        try:
            model_index_to_eval_results(index)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problems.append(f"`model-index` cannot be read: {type(error).__name__} {error}.")
    return problems


def _code_problems(body: str) -> list[str]:
    problems = []
    for place, block in enumerate(code_blocks(body, "python"), start=1):
        try:
            compile(block, f"<python block {place}>", "exec")
        except (SyntaxError, ValueError) as error:
            problems.append(f"Python block {place} does not compile: {error}.")
    return problems


def _image_problems(body: str, folder: str | os.PathLike[str] | None) -> list[str]:
    problems = []
    for match in _IMAGE.finditer(without_code(body)):
        link = match["link"]
        if not match["alt"].strip():
            problems.append(f"The picture `{link}` has no alternative text.")
        if re.match(r"[a-z][a-z0-9+.-]*:|//", link, re.IGNORECASE):
            continue
        name = unquote(link, errors="surrogateescape")
        if name.startswith("/") or ".." in Path(name).parts:
            problems.append(f"The picture `{link}` must be named relative to the card.")
        elif folder is not None and not (Path(folder) / name).is_file():
            problems.append(f"The picture `{link}` is not beside the card.")
    return problems
