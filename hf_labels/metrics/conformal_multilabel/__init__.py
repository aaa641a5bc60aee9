"""The `evaluate` module `conformal_multilabel`. Its class is in `hf_labels.metrics`."""
