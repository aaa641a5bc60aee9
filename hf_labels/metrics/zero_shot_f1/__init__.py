"""The `evaluate` module `zero_shot_f1`. Its class is in `hf_labels.metrics`."""
