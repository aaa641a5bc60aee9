"""A small web page for any of the metric modules; what a Space runs. gradio is imported when the page is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def compute_from_text(module: Any, predictions: str, references: str, options: str = "") -> dict[str, Any]:
    """Computes `module` from JSON text.

    Args:
        module (`evaluate.Metric`): The metric.
        predictions (`str`): JSON list.
        references (`str`): JSON list.
        options (`str`, *optional*): JSON object of keyword arguments of `compute`.

    Raises:
        ValueError: If a text is not JSON of the right kind, or the metric refuses the input.
    """
    values: list[Any] = []
    for name, text, kind in (
        ("predictions", predictions, list),
        ("references", references, list),
        ("options", options, dict),
    ):
        try:
            value = json.loads(text) if text.strip() else {}
        except json.JSONDecodeError as error:
            raise ValueError(f"`{name}` is not JSON: {error}.") from error
        if not isinstance(value, kind):
            raise ValueError(f"`{name}` must be a JSON {'list' if kind is list else 'object'}.")
        values.append(value)
    return module.compute(predictions=values[0], references=values[1], **values[2])


def build_page(module: Any, readme: Path) -> Any:
    """The gradio page of a metric: three text boxes of JSON, and the README under them.

    Args:
        module (`evaluate.Metric`): The metric.
        readme (`Path`): README.md of its folder; the front matter is left out.

    Returns:
        `gradio.Interface`: Call `launch()` on it.

    Raises:
        ImportError: If gradio is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise ImportError("The web page needs gradio. Install it with `pip install gradio`.") from error

    def compute(predictions: str, references: str, options: str) -> dict[str, Any]:
        try:
            return compute_from_text(module, predictions, references, options)
        except (IndexError, TypeError, ValueError) as error:
            raise gradio.Error(str(error), print_exception=False) from error

    return gradio.Interface(
        fn=compute,
        inputs=[gradio.Textbox(label=name, lines=4) for name in ("predictions", "references", "options")],
        outputs=gradio.JSON(label=module.name),
        title=module.name,
        description=module.info.description,
        article=readme.read_text(encoding="utf-8").split("---\n", 2)[-1],
        flagging_mode="never",
    )
