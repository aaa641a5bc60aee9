"""The command `hf-labels`: train, methods, card, env, demo. Importing it is light; commands load on use."""

from hf_labels.cli.main import main

__all__ = ["main"]
