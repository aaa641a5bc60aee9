"""The `evaluate` module `multilabel_map`. Its class is in `hf_labels.metrics`."""
