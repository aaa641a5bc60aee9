"""Private names of other packages, each with the version in which it was read and what would remove it."""

from typing import Any


def forget_model(accelerator: Any, model: Any) -> None:
    """Take a prepared model off accelerate's list.

    `Trainer.evaluation_loop` prepares its model only while that list is empty, so a teacher must not stay on it.
    accelerate 1.15 has no public way; `Accelerator.free_memory` drops every model.
    """
    accelerator._models = [known for known in accelerator._models if known is not model]
