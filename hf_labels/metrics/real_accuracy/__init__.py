"""The `evaluate` module `real_accuracy`. Its class is in `hf_labels.metrics`."""
