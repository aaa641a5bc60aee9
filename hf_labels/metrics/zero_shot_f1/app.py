"""Web page of the metric, for a Hugging Face Space. Needs gradio."""

from pathlib import Path

from hf_labels.metrics.space import build_page
from hf_labels.metrics.zero_shot_f1.zero_shot_f1 import ZeroShotF1

if __name__ == "__main__":
    build_page(ZeroShotF1(), Path(__file__).with_name("README.md")).launch()
