"""The `evaluate` module `label_set_retrieval`. Its class is in `hf_labels.metrics`."""
