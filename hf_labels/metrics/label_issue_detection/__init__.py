"""The `evaluate` module `label_issue_detection`. Its class is in `hf_labels.metrics`."""
