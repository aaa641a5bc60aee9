"""The `evaluate` module `jacobi_efficiency`. Its class is in `hf_labels.metrics`."""
