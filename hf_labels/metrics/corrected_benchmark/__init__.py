"""The `evaluate` module `corrected_benchmark`. Its class is in `hf_labels.metrics`."""
