"""The `evaluate` module `anls_star`. Its class is in `hf_labels.metrics`."""
