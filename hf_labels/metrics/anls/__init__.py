"""The `evaluate` module `anls`. Its class is in `hf_labels.metrics`."""
