"""Web page of the metric, for a Hugging Face Space. Needs gradio."""

from pathlib import Path

from hf_labels.metrics.bag_proportion_error.bag_proportion_error import BagProportionError
from hf_labels.metrics.space import build_page

if __name__ == "__main__":
    build_page(BagProportionError(), Path(__file__).with_name("README.md")).launch()
