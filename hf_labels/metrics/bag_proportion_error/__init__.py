"""The `evaluate` module `bag_proportion_error`. Its class is in `hf_labels.metrics`."""
