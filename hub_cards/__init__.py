"""Cards: what the README of a trained model, a labelled data set or a method says, written safely from data.

Names are loaded on first use: importing this package loads neither jinja2 nor huggingface_hub nor matplotlib.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_labels.hub_cards.annotators import annotator_plot
    from hf_labels.hub_cards.dataset_card import LabelColumn, render_dataset_card
    from hf_labels.hub_cards.escape import Markdown, code, prose, python_literal
    from hf_labels.hub_cards.gallery import label_issue_page, label_issue_picture
    from hf_labels.hub_cards.html_page import Part, embed_image, write_page
    from hf_labels.hub_cards.method_page import render_method_page
    from hf_labels.hub_cards.mixture import mixture_plot
    from hf_labels.hub_cards.plots import CardPlot, confusion_matrix_plot, paired_results_plot, reliability_diagram
    from hf_labels.hub_cards.render import render_card
    from hf_labels.hub_cards.results import ResultRow
    from hf_labels.hub_cards.save import save_card
    from hf_labels.hub_cards.taxonomy_tree import taxonomy_plot
    from hf_labels.hub_cards.texts import MethodText, method_slugs, method_text
    from hf_labels.hub_cards.validate import validate_card
    from hf_labels.hub_cards.validity import validity_plot

_NAMES = {
    "CardPlot": "plots",
    "LabelColumn": "dataset_card",
    "Markdown": "escape",
    "MethodText": "texts",
    "Part": "html_page",
    "ResultRow": "results",
    "annotator_plot": "annotators",
    "code": "escape",
    "confusion_matrix_plot": "plots",
    "embed_image": "html_page",
    "label_issue_page": "gallery",
    "label_issue_picture": "gallery",
    "method_slugs": "texts",
    "method_text": "texts",
    "mixture_plot": "mixture",
    "paired_results_plot": "plots",
    "prose": "escape",
    "python_literal": "escape",
    "reliability_diagram": "plots",
    "render_card": "render",
    "render_dataset_card": "dataset_card",
    "render_method_page": "method_page",
    "save_card": "save",
    "taxonomy_plot": "taxonomy_tree",
    "validate_card": "validate",
    "validity_plot": "validity",
    "write_page": "html_page",
}

__all__ = [
    "CardPlot",
    "LabelColumn",
    "Markdown",
    "MethodText",
    "Part",
    "ResultRow",
    "annotator_plot",
    "code",
    "confusion_matrix_plot",
    "embed_image",
    "label_issue_page",
    "label_issue_picture",
    "method_slugs",
    "method_text",
    "mixture_plot",
    "paired_results_plot",
    "prose",
    "python_literal",
    "reliability_diagram",
    "render_card",
    "render_dataset_card",
    "render_method_page",
    "save_card",
    "taxonomy_plot",
    "validate_card",
    "validity_plot",
    "write_page",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'hf_labels.hub_cards' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"hf_labels.hub_cards.{_NAMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
