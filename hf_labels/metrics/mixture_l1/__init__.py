"""The `evaluate` module `mixture_l1`. Its class is in `hf_labels.metrics`."""
