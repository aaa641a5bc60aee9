"""The `evaluate` module `kg_ranking`. Its class is in `hf_labels.metrics`."""
