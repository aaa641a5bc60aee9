"""The `evaluate` module `entity_f1`. Its class is in `hf_labels.metrics`."""
