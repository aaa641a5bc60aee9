"""Web page of the metric, for a Hugging Face Space. Needs gradio."""

from pathlib import Path

from hf_labels.metrics.corrected_benchmark.corrected_benchmark import CorrectedBenchmark
from hf_labels.metrics.space import build_page

if __name__ == "__main__":
    build_page(CorrectedBenchmark(), Path(__file__).with_name("README.md")).launch()
