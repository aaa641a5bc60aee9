"""Web page of the metric, for a Hugging Face Space. Needs gradio."""

from pathlib import Path

from hf_labels.metrics.multilabel_f1.multilabel_f1 import MultilabelF1
from hf_labels.metrics.space import build_page

if __name__ == "__main__":
    build_page(MultilabelF1(), Path(__file__).with_name("README.md")).launch()
