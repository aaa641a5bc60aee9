"""Method state on disk, and finding the checkpoint to continue from."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

METHOD_STATE_NAME = "method_state.safetensors"
_TRAINER_STATE_NAME = "trainer_state.json"  # the last file that Trainer writes into a checkpoint


def save_method_state(module: nn.Module, folder: str | Path) -> Path:
    """Write all buffers and parameters of a module to `method_state.safetensors`.

    Raises:
        TypeError: If an entry of its `state_dict` is not a tensor.
    """
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, value in module.state_dict().items():
        if not torch.is_tensor(value):
            raise TypeError(
                f"Method state must be tensors; `{name}` is {type(value).__name__}. Use `register_buffer`."
            )
        tensor = value.detach().cpu().contiguous()
        if tensor.numel() and tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()  # safetensors refuses tied entries
        storages.add(tensor.untyped_storage().data_ptr())
        tensors[name] = tensor
    path = Path(folder) / METHOD_STATE_NAME
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def load_method_state(module: nn.Module, folder: str | Path) -> None:
    """Read what [`save_method_state`] wrote into a module of the same structure.

    Raises:
        FileNotFoundError: If the checkpoint has no method state.
        ValueError: If names, shapes or types differ, or the file is damaged.
    """
    path = Path(folder) / METHOD_STATE_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"Checkpoint {folder} has no {METHOD_STATE_NAME}, which this method needs to continue. It was written by "
            "another trainer or with `save_only_model=True`. Start again without `resume_from_checkpoint`."
        )
    own = module.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            _compare_names(names, set(own), folder)
            loaded = {name: file.get_tensor(name) for name in own}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}). Continue from an earlier checkpoint.") from error
    for name, value in own.items():
        found = loaded[name]
        if found.shape != value.shape or found.dtype != value.dtype:
            raise ValueError(
                f"Method state of {folder} does not fit: `{name}` is {_form(found)} there and {_form(value)} here. "
                "Continue with the data set and the arguments of the first run, or start again without "
                "`resume_from_checkpoint`."
            )
    module.load_state_dict(loaded, strict=False)  # names were compared above


def restore_method_state(module: nn.Module | None, folder: str | Path) -> None:
    """[`load_method_state`], or check that there is none when the trainer has none.

    Raises:
        ValueError: If the checkpoint has method state and the trainer has not, besides those of [`load_method_state`].
    """
    if module is not None:
        load_method_state(module, folder)
    elif (Path(folder) / METHOD_STATE_NAME).is_file():
        raise ValueError(
            f"Checkpoint {folder} was written by a method with state ({METHOD_STATE_NAME}), this trainer has none. "
            "Continue with the trainer of that run."
        )


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def _compare_names(found: set[str], own: set[str], folder: Any) -> None:
    if found == own:
        return
    missing, extra = sorted(own - found), sorted(found - own)
    what = f"it lacks `{missing[0]}`" if missing else f"it has `{extra[0]}`, which this method does not know"
    raise ValueError(
        f"Method state of {folder} does not fit: {what}. Continue with the trainer and the arguments of the first "
        "run, or start again without `resume_from_checkpoint`."
    )


def checkpoints(output_dir: str | Path) -> list[Path]:
    """Complete checkpoints in a folder, oldest first. One that was cut off while it was written does not count."""
    found = []
    for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        step = re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", path.name)
        if step and _is_complete(path):
            found.append((int(step[1]), path))
    return [path for _, path in sorted(found)]


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / _TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def find_checkpoint(output_dir: str | Path, resume_from_checkpoint: str | bool | None) -> str | None:
    """The checkpoint that `train(resume_from_checkpoint=...)` means.

    Raises:
        FileNotFoundError: If there is no complete checkpoint at that place.
    """
    if not resume_from_checkpoint:
        return None
    if resume_from_checkpoint is True:
        found = checkpoints(output_dir)
        if not found:
            raise FileNotFoundError(
                f"There is no complete checkpoint in {output_dir}. Start without `resume_from_checkpoint`, or pass "
                "the folder of the run that was interrupted as `output_dir`."
            )
        return str(found[-1])
    if not _is_complete(Path(resume_from_checkpoint)):
        raise FileNotFoundError(
            f"{resume_from_checkpoint} is not a complete checkpoint (no readable {_TRAINER_STATE_NAME}). "
            "Pass a folder `checkpoint-<step>` of an earlier run."
        )
    return str(resume_from_checkpoint)


class AfterStep(TrainerCallback):
    """Calls `after_step(model, step)` of every part of the method state, once per optimizer step."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        if trainer.method_state is None or trainer.accelerator.optimizer_step_was_skipped:
            return
        for module in trainer.method_state.modules():
            if hasattr(module, "after_step"):
                module.after_step(trainer.model, state.global_step)
