"""Weight mixing over safetensors: averages of checkpoints, read and written one tensor at a time.

The memory needed is that of the largest tensor (two copies in float64), whatever the size and number of the models.
"""

import json
import math
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


class WeightFolder:
    """The tensors of a saved model, in one safetensors file or in shards, read on demand.

    Parameters:
        folder (`str` or `Path`): With `model.safetensors`, or `model.safetensors.index.json` and its shards.
        prefix (`str`, *optional*): Only tensors whose name starts so, without it; `"discriminator."` gives a part.

    Raises:
        FileNotFoundError: If there are no safetensors.
        KeyError: If no tensor has the prefix.
        ValueError: If the index names a file outside the folder.
    """

    def __init__(self, folder: str | Path, prefix: str = ""):
        self.folder, self.prefix = Path(folder), prefix
        if (self.folder / INDEX).is_file():
            files = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        elif (self.folder / SINGLE).is_file():
            with safe_open(self.folder / SINGLE, "pt") as opened:
                files = dict.fromkeys(opened.keys(), SINGLE)
        else:
            raise FileNotFoundError(
                f"{folder} holds neither {SINGLE} nor {INDEX}. Save the model with `save_pretrained`."
            )
        strange = [name for name in files.values() if Path(name).name != name]
        if strange:
            raise ValueError(f"The index of {folder} names a file outside it: {strange[0]!r}.")
        self.files = {key[len(prefix) :]: name for key, name in files.items() if key.startswith(prefix)}
        if not self.files:
            raise KeyError(f"No tensor in {folder} has a name that starts with {prefix!r}.")
        self._stack, self._opened = ExitStack(), dict[str, Any]()

    def __enter__(self) -> "WeightFolder":
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.clear()
        self._stack.close()

    def _file(self, key: str) -> Any:
        name = self.files[key]
        if name not in self._opened:
            self._opened[name] = self._stack.enter_context(safe_open(self.folder / name, "pt"))
        return self._opened[name]

    def tensor(self, key: str) -> Tensor:
        """One tensor."""
        return self._file(key).get_tensor(self.prefix + key)

    def shape(self, key: str) -> tuple[int, ...]:
        """Its shape, from the header alone."""
        return tuple(self._file(key).get_slice(self.prefix + key).get_shape())

    def dtype(self, key: str) -> torch.dtype:
        """Its dtype, from the header alone. `ValueError` for one that cannot be mixed."""
        name = self._file(key).get_slice(self.prefix + key).get_dtype()
        if name not in _DTYPES:
            raise ValueError(f"Tensor `{key}` of {self.folder} has dtype {name}, which cannot be mixed.")
        return _DTYPES[name]


def check_same_tensors(members: Sequence[WeightFolder]) -> None:
    """Every member must hold the tensors of the first one.

    Raises:
        ValueError: Names or shapes differ; names the member, the tensor and what is wrong.
    """
    first = members[0]
    for member in members[1:]:
        missing, extra = (
            sorted(first.files.keys() - member.files.keys()),
            sorted(member.files.keys() - first.files.keys()),
        )
        if missing or extra:
            what = f"lacks `{missing[0]}`" if missing else f"has `{extra[0]}`, which the first lacks"
            raise ValueError(
                f"Weights can only be mixed between models with the same tensors: {member.folder} {what} "
                f"({len(missing)} missing, {len(extra)} more than {first.folder})."
            )
        for key in first.files:
            if first.shape(key) != member.shape(key):
                raise ValueError(
                    f"Tensor `{key}` has shape {first.shape(key)} in {first.folder} and {member.shape(key)} in "
                    f"{member.folder}: these are different models."
                )


def mix_tensors(tensors: Sequence[Tensor], weights: Sequence[float], name: str = "tensor") -> Tensor:
    """`sum_i w_i * tensor_i`, added in float64 and returned in the dtype of the first.

    Raises:
        ValueError: Integer or bool tensors that are not equal: counters and ids have no average.
    """
    first = tensors[0]
    if not first.is_floating_point():
        if any(not torch.equal(first, other) for other in tensors[1:]):
            raise ValueError(
                f"`{name}` holds {first.dtype} numbers that differ between the models: no average exists."
            )
        return first
    total = torch.zeros(first.shape, dtype=torch.float64)
    for tensor, weight in zip(tensors, weights, strict=True):
        total.add_(tensor.double(), alpha=weight)
    return total.to(first.dtype)


def mix_weights(
    folders: Sequence[str | Path],
    output_dir: str | Path,
    weights: Sequence[float] | None = None,
    *,
    prefixes: Sequence[str] | str = "",
    copy_files: bool = True,
) -> Path:
    """Write the weighted average of saved models.

    Args:
        folders (`Sequence[str]`): N >= 1 folders of `save_pretrained`.
        output_dir (`str`): Where the average goes; other than the folders. Files are laid out as in the first.
        weights (`Sequence[float]`, *optional*): N numbers that sum to 1; the mean by default.
        prefixes (`str` or one per folder, *optional*): Take only the tensors whose names start so, and drop it.
        copy_files (`bool`, *optional*, defaults to `True`): Copy the other files of the first folder that are not
            weights (config, tokenizer), except a README, which would speak of another model.

    Returns:
        `Path`: `output_dir`.

    Raises:
        ValueError: No folder, weights of another number or sum, tensors that differ in name or shape, or an
            `output_dir` among the folders.
        FileNotFoundError: A folder without safetensors.

    Cost: every tensor is read once; memory O(largest tensor).
    """
    count = len(folders)
    if not count:
        raise ValueError("There is no model to mix: `folders` is empty.")
    shares = [1 / count] * count if weights is None else [float(w) for w in weights]
    if len(shares) != count or not all(map(math.isfinite, shares)) or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"`weights` must be {count} numbers that sum to 1, got {shares}.")
    output = Path(output_dir)
    if any(output.resolve() == Path(folder).resolve() for folder in folders):
        raise ValueError(f"`output_dir` {output} is one of the models that are mixed. Choose another folder.")
    starts = [prefixes] * count if isinstance(prefixes, str) else list(prefixes)
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        members = [stack.enter_context(WeightFolder(f, p)) for f, p in zip(folders, starts, strict=True)]
        check_same_tensors(members)
        first = members[0]
        for name in dict.fromkeys(first.files.values()):
            keys = [key for key, file in first.files.items() if file == name]
            shapes = {key: (first.dtype(key), first.shape(key)) for key in keys}
            mixed = ((key, mix_tensors([m.tensor(key) for m in members], shares, key)) for key in keys)
            write_tensors(output / name, shapes, mixed)
        if (first.folder / INDEX).is_file():
            index = json.loads((first.folder / INDEX).read_text(encoding="utf-8"))
            index["weight_map"] = first.files
            (output / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
    if copy_files:
        for path in Path(folders[0]).iterdir():
            weights_file = path.suffix in (".safetensors", ".bin", ".pt", ".pth") or path.name == INDEX
            if path.is_file() and not weights_file and path.name != "README.md":
                shutil.copy2(path, output / path.name)
    return output


def write_tensors(
    path: str | Path,
    shapes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    tensors: Iterator[tuple[str, Tensor]],
) -> None:
    """Write a safetensors file tensor by tensor: the header from `shapes`, then the data in the same order.

    Args:
        path (`str`): Written whole or not at all.
        shapes (`dict`): Name -> dtype and shape, in the order of `tensors`.
        tensors: Pairs of name and tensor.

    Raises:
        ValueError: If a tensor is not what the header says.
    """
    path, header, offset = Path(path), {"__metadata__": {"format": "pt"}}, 0
    for key, (dtype, shape) in shapes.items():
        end = offset + math.prod(shape) * dtype.itemsize
        entry: dict[str, Any] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        header[key], offset = entry, end
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(struct.pack("<Q", len(head)))
        file.write(head)
        for (key, tensor), (name, (dtype, shape)) in zip(tensors, shapes.items(), strict=True):
            if key != name or tensor.dtype != dtype or tuple(tensor.shape) != shape:
                raise ValueError(
                    f"Tensor `{key}` ({tensor.dtype}, {tuple(tensor.shape)}) is not `{name}` of the header."
                )
            data = tensor.contiguous().cpu().reshape(-1)
            file.write(data.view(torch.uint8).numpy().data if data.numel() else b"")
    part.replace(path)


def greedy_choice(
    scores: Sequence[float], evaluate: Callable[[list[int]], float], at_least: float = 0.0
) -> tuple[list[int], float, list[dict[str, Any]]]:
    """Which models a greedy soup holds: best first, each is added if the average does not get worse.

    Args:
        scores (`Sequence[float]`): Validation score of each model alone, higher = better.
        evaluate: Numbers of models -> score of their average.
        at_least (`float`, *optional*, defaults to 0): Gain that a further model must bring.

    Returns:
        The numbers that were chosen, the score of their average, and one row for each model that was tried.

    Source: Wortsman et al. 2022, arXiv:2203.05482, recipe 1.
    """
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    chosen, best = [order[0]], float(scores[order[0]])
    tried = [{"model": order[0], "score": best, "kept": True}]
    for number in order[1:]:
        score = float(evaluate([*chosen, number]))
        kept = score >= best + at_least
        tried.append({"model": number, "score": score, "kept": kept})
        if kept:
            chosen, best = [*chosen, number], score
    return chosen, best, tried
