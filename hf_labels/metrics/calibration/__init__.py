"""The `evaluate` module `calibration`. Its class is in `hf_labels.metrics`."""
