"""The `evaluate` module `zero_shot_accuracy`. Its class is in `hf_labels.metrics`."""
