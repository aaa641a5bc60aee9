"""The written part of a card: `methods/<slug>.md`, one file per method, parsed and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from hf_labels.hub_cards.blocks import code_blocks, sections, split_front_matter
from hf_labels.hub_cards.escape import python_literal

SECTIONS: tuple[str, ...] = ("What it is", "Label assumptions", "When it fails", "Usage", "Loading", "Sources")
_FIELDS = ("slug", "title", "paper", "paper_title", "pipeline_tag", "library_name", "citation")

# What to write for the name `EXAMPLE` of a `Loading` section, so that the code runs as it stands.
_EXAMPLES = {
    "image-classification": 'Image.new("RGB", (224, 224))',
    "audio-classification": "numpy.zeros(16_000, dtype=numpy.float32)",
}
_EXAMPLE_IMPORTS = {"image-classification": "from PIL import Image\n", "audio-classification": "import numpy\n"}


@dataclass(frozen=True)
class MethodText:
    """What `methods/<slug>.md` says.

    Parameters:
        slug (`str`): Name of the method and of its files.
        title (`str`): Name of the method, as a heading.
        paper (`str`): `arXiv:<number>`, `doi:<id>` or a plain reference.
        paper_title (`str`): Title of the paper.
        citation (`str`): BibTeX entry.
        pipeline_tag (`str`): Task of the models that it trains, unless a card says otherwise.
        library_name (`str`): Library whose `from_pretrained` loads them.
        sections (`Mapping[str, str]`): Markdown of each section by title; holds at least `SECTIONS`.
    """

    slug: str
    title: str
    paper: str
    paper_title: str
    citation: str
    pipeline_tag: str
    library_name: str
    sections: Mapping[str, str]

    @property
    def url(self) -> str | None:
        """Address of the paper; `None` for a plain reference."""
        kind, _, number = self.paper.partition(":")
        places = {"arxiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
        return places[kind.lower()] + number if kind.lower() in places else None

    @property
    def usage_code(self) -> str:
        """Python of the section `Usage`, blocks joined: a whole program."""
        return "\n\n".join(code_blocks(self.sections["Usage"]))

    def loading(self, model_id: str, task: str | None = None) -> str:
        """Markdown of the section `Loading`, with the names `MODEL_ID`, `TASK` and `EXAMPLE` filled in as literals."""
        task = task or self.pipeline_tag
        text = self.sections["Loading"]
        if "EXAMPLE" in text and task in _EXAMPLE_IMPORTS:
            text = text.replace("```python\n", f"```python\n{_EXAMPLE_IMPORTS[task]}", 1)
        text = text.replace("EXAMPLE", _EXAMPLES.get(task, '"The text to label."')).replace(
            "TASK", python_literal(task)
        )
        return text.replace("MODEL_ID", python_literal(model_id))  # last: an id may hold the other names

    def loading_code(self, model_id: str, task: str | None = None) -> str:
        """Python of [`MethodText.loading`]."""
        return "\n\n".join(code_blocks(self.loading(model_id, task)))


def parse_method_text(text: str, name: str) -> MethodText:
    """Read one method text.

    Args:
        text (`str`): Content of the file.
        name (`str`): What to call it in errors.

    Raises:
        ValueError: If the front matter is broken, or a field or a section is missing or empty.
    """
    try:
        data, body = split_front_matter(text)
        found = sections(body)
    except ValueError as error:
        raise ValueError(f"`{name}`: {error}") from error
    missing = [field for field in _FIELDS if not str(data.get(field) or "").strip()]
    if missing:
        raise ValueError(f"`{name}` lacks the front matter field(s) {', '.join(missing)}.")
    absent = [section for section in SECTIONS if not found.get(section)]
    if absent:
        raise ValueError(
            f"`{name}` lacks the section(s) {', '.join(f'`## {section}`' for section in absent)}, or they are empty. "
            f"Each method text has: {', '.join(SECTIONS)}."
        )
    fields: dict[str, Any] = {field: str(data[field]).strip() for field in _FIELDS}
    found.pop("")
    return MethodText(**fields, sections=found)


def method_slugs() -> tuple[str, ...]:
    """Slugs that have a text, in alphabetical order."""
    names = (item.name for item in files("hf_labels.hub_cards").joinpath("methods").iterdir())
    return tuple(sorted(name.removesuffix(".md") for name in names if name.endswith(".md")))


@cache
def method_text(slug: str) -> MethodText:
    """The text of one method.

    Args:
        slug (`str`): For example `"crosstune"`; [`method_slugs`] lists them.

    Raises:
        ValueError: If there is no such text, or it lacks a field or a section (the message names it).
    """
    known = method_slugs()
    if slug not in known:
        raise ValueError(f"There is no card text for {slug!r}; there is one for: {', '.join(known)}.")
    text = files("hf_labels.hub_cards").joinpath("methods", f"{slug}.md").read_text(encoding="utf-8")
    found = parse_method_text(text, f"methods/{slug}.md")
    if found.slug != slug:
        raise ValueError(f"`methods/{slug}.md` says `slug: {found.slug}`; the two must be one name.")
    return found


# For a `LabelTrainer` that has no text of its own: true of every one of them, and no more than that.
ANY_TRAINER = MethodText(
    slug="",
    title="LabelTrainer",
    paper="",
    paper_title="",
    citation="",
    pipeline_tag="text-classification",
    library_name="transformers",
    sections={
        "What it is": "A model trained with a `LabelTrainer` of `hf_labels`, under settings of its author.",
        "Label assumptions": "The labels were taken as they are in the data. Their kind was checked before training; "
        "their truth was not.",
        "When it fails": "Wrong, skewed or missing labels in the training data carry over to the model. Measure it on "
        "labels that you trust before you rely on it.",
        "Usage": "The training script belongs to the author of the model.",
        "Loading": "```python\nfrom transformers import pipeline\n\nmodel = pipeline(TASK, model=MODEL_ID)\n"
        "print(model(EXAMPLE))\n```",
        "Sources": "No paper: the trainer is the author's own.",
    },
)
