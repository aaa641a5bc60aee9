"""The `evaluate` module `matched_accuracy`. Its class is in `hf_labels.metrics`."""
