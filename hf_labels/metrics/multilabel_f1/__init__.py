"""The `evaluate` module `multilabel_f1`. Its class is in `hf_labels.metrics`."""
