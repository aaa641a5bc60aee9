"""The `evaluate` module `gzsl`. Its class is in `hf_labels.metrics`."""
