"""Web page of the metric, for a Hugging Face Space. Needs gradio."""

from pathlib import Path

from hf_labels.metrics.gzsl.gzsl import Gzsl
from hf_labels.metrics.space import build_page

if __name__ == "__main__":
    build_page(Gzsl(), Path(__file__).with_name("README.md")).launch()
