"""The `evaluate` module `parc`. Its class is in `hf_labels.metrics`."""
