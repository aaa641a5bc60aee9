"""Web page of the metric, for a Hugging Face Space. Needs gradio."""

from pathlib import Path

from hf_labels.metrics.space import build_page
from hf_labels.metrics.zero_shot_accuracy.zero_shot_accuracy import ZeroShotAccuracy

if __name__ == "__main__":
    build_page(ZeroShotAccuracy(), Path(__file__).with_name("README.md")).launch()
