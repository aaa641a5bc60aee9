"""Jacobi trajectories of a teacher on many prompts, as a `datasets.Dataset` that is written shard by shard."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from pyarrow import parquet
from torch import Tensor

from hf_labels.data.features import weights_hash
from hf_labels.data.rng import derive_seed
from hf_labels.generation.jacobi import Init, jacobi_generate
from hf_labels.labels.kinds import IGNORE_INDEX, require_columns

logger = logging.getLogger(__name__)


def collect_jacobi_trajectories(
    model: Any,
    prompts: datasets.Dataset,
    *,
    block_size: int,
    max_new_tokens: int | None = None,
    batch_size: int = 32,
    init: Init = "prompt",
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int | None = None,
    prompt_column: str = "input_ids",
    labels_column: str = "labels",
    model_columns: Sequence[str] = (),
    augment: bool = False,
    drop_repeats: int | None = 10,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
) -> datasets.Dataset:
    """Decode every prompt with exact Jacobi iterations and keep all iterates.

    Blocks follow one another (a fixed point becomes part of the next prompt) until a row shows EOS or has
    `max_new_tokens`; each block of each prompt is one record.

    Args:
        model (`PreTrainedModel`): The teacher; put into eval mode for the time of the call.
        prompts (`Dataset`): Column `prompt_column` (P,) token ids without padding; optionally `labels_column` (n,),
            the ground-truth tokens of the answer.
        block_size (`int`): Tokens per block, n.
        max_new_tokens (`int`, *optional*, defaults to `block_size`): Most tokens per prompt.
        batch_size (`int`, *optional*, defaults to `32`): Prompts decoded together, and per shard.
        init (*optional*, defaults to `"prompt"`): First guess, as in [`jacobi_generate`].
        eos_token_id (`int` or list, *optional*): No further block after one of these; the model's by default.
        pad_token_id (`int`, *optional*, defaults to `0`): Fills prompts on the left; never read.
        model_columns (sequence of `str`, *optional*): Further inputs, such as `pixel_values`, equal in shape; stacked
            for the model and copied into the records.
        augment (`bool`, *optional*, defaults to `False`): Apply [`augment_trajectory`].
        drop_repeats (`int`, *optional*, defaults to `10`): Leave out prompts whose answer has so many equal tokens in
            a row before EOS; `None` keeps all.
        seed (`int`, *optional*, defaults to `0`): Of guesses and augmentation.
        folder (`str` or `Path`, *optional*): Shards are written here, and those already there are not made again. An
            interrupted call is continued by calling again; the result is that of one call.
        progress (`bool`, *optional*, defaults to `True`): Show a bar.

    Returns:
        `Dataset`: `prompt_ids` (P,), `trajectory` (K + 1, n) from the guess to the fixed point, `fixed_point` (n,),
        `labels` (n,) padded with -100 if there are any, `index` (row of `prompts`), `block`, and `model_columns`;
        tokens are int32. Order of the prompts, then of the blocks.

    Raises:
        KeyError: If a column is missing.
        ValueError: For an empty prompt (row named), no prompts, sizes below 1, or a folder with other trajectories.

    Cost: a prefill per block and prompt; at most `block_size` passes per block, over the rows not yet ended.

    Source: CEED-VLA, trajectory collection; code of Consistency LLM.
    """
    max_new_tokens = block_size if max_new_tokens is None else max_new_tokens
    for name, value in (("block_size", block_size), ("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    require_columns(prompts, [prompt_column, *model_columns])
    if not len(prompts):
        raise ValueError("`prompts` is empty. Give at least one row.")
    if eos_token_id is None:
        eos_token_id = getattr(model.generation_config, "eos_token_id", None)
    ends = [] if eos_token_id is None else [int(i) for i in np.atleast_1d(np.asarray(eos_token_id))]
    reader = _Reader(prompts, prompt_column, labels_column, tuple(model_columns), pad_token_id or 0)
    settings = {
        "model": weights_hash(model), "prompts": reader.fingerprint(), "block_size": block_size, "ends": ends,
        "max_new_tokens": max_new_tokens, "batch_size": batch_size, "init": _name_init(init), "augment": augment,
        "drop_repeats": drop_repeats, "seed": seed, "rows": len(prompts),
    }  # fmt: skip
    store = _Shards(folder, settings)
    training = model.training
    model.eval()
    try:
        for shard in _bar(range(0, len(prompts), batch_size), progress):
            if store.has(shard):
                continue
            rows = list(range(shard, min(shard + batch_size, len(prompts))))
            generator = torch.Generator().manual_seed(derive_seed(seed, shard))
            records = _collect(model, reader, rows, block_size, max_new_tokens, init, ends, generator)
            if augment:
                for record in records:
                    trajectory = torch.as_tensor(record["trajectory"])
                    record["trajectory"] = augment_trajectory(trajectory, generator=generator).numpy()
            store.write(shard, _without_repeats(records, ends, drop_repeats))
    finally:
        model.train(training)
    return store.read()


def augment_trajectory(trajectory: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Iterates with some of their wrong tokens put right: more states between a guess and the fixed point.

    In every iterate but the last two, of its m wrong positions floor(m / 2) are drawn with replacement, and where they
    are not the first wrong one, they get the token of the fixed point.

    Args:
        trajectory (`LongTensor` of shape `(K + 1, n)`): The last row is the fixed point. Not changed.
        generator (`torch.Generator`, *optional*)

    Returns:
        `LongTensor` of shape `(K + 1, n)`.

    Source: code of Consistency LLM (arXiv:2403.00835), `use_aug`.
    """
    result = trajectory.clone()
    for j in range(len(trajectory) - 3, -1, -1):
        wrong = (trajectory[j] != trajectory[-1]).nonzero().flatten()
        if len(wrong) < 2:
            continue
        drawn = wrong[torch.randint(len(wrong), (len(wrong) // 2,), generator=generator)]
        drawn = drawn[drawn != wrong[0]]
        result[j, drawn] = trajectory[-1, drawn]
    return result


class _Reader:
    """Prompts, labels and further inputs of given rows."""

    def __init__(self, prompts: datasets.Dataset, prompt: str, labels: str, columns: tuple[str, ...], pad: int):
        self.labels = labels if labels in prompts.column_names else None
        names = [prompt, *columns, *([self.labels] if self.labels else [])]
        self.data = prompts.with_format("numpy", columns=list(dict.fromkeys(names)))
        self.prompt, self.columns, self.pad = prompt, columns, pad

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for row in self.data:
            for name in (self.prompt, self.labels, *self.columns):
                digest.update(np.ascontiguousarray(row[name]).tobytes() if name else b"")
                digest.update(b"|")
        return digest.hexdigest()

    def rows(self, rows: list[int]) -> list[dict[str, Any]]:
        found = [self.data[row] for row in rows]
        for number, row in zip(rows, found, strict=True):
            if len(row[self.prompt]) == 0:
                raise ValueError(
                    f"Column `{self.prompt}` is empty at row {number}: start a prompt with the BOS token."
                )
        return found


def _collect(model, reader, rows, block_size, max_new_tokens, init, ends, generator) -> list[dict[str, Any]]:
    """Records of some rows, in order."""
    given = reader.rows(rows)
    tokens = [torch.as_tensor(np.asarray(row[reader.prompt])).long() for row in given]
    prompts, alive, done = list(tokens), list(range(len(rows))), 0
    records: list[list[dict[str, Any]]] = [[] for _ in rows]
    while alive and done < max_new_tokens:
        n = min(block_size, max_new_tokens - done)
        ids, mask = _left_padded([prompts[i] for i in alive], reader.pad)
        extra: dict[str, Any] = {
            name: _stacked([given[i][name] for i in alive], model.device) for name in reader.columns
        }
        guess = init[alive] if isinstance(init, Tensor) and init.dim() == 2 else init
        output: Any = jacobi_generate(
            model,
            ids,
            attention_mask=mask,
            block_size=n,
            max_new_tokens=n,
            eos_token_id=None,
            init=guess,
            generator=generator if isinstance(init, str) else None,
            return_jacobi_stats=True,
            **extra,
        )
        iterates, last = output.stats.iterates[0].cpu(), output.stats.row_iterations[0]
        still = []
        for place, i in enumerate(alive):
            path = iterates[: last[place] + 1, place]
            record = {
                "prompt_ids": prompts[i].numpy(),
                "trajectory": path.numpy(),
                "fixed_point": path[-1].numpy(),
                "index": rows[i],
                "block": done // block_size,
                **{name: given[i][name] for name in reader.columns},
            }
            if reader.labels:
                record["labels"] = _block_labels(given[i][reader.labels], done, n)
            records[i].append(record)
            prompts[i] = torch.cat([prompts[i], path[-1]])
            if not ends or not bool(torch.isin(path[-1], torch.tensor(ends)).any()):
                still.append(i)
        alive, done = still, done + n
    return [record for row in records for record in row]


def _stacked(values: list[Any], device: torch.device) -> Tensor:
    return torch.stack([torch.as_tensor(value) for value in values]).to(device)


def _left_padded(rows: list[Tensor], pad: int) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    ids = torch.stack([torch.nn.functional.pad(row, (width - len(row), 0), value=pad) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(width) >= width - lengths[:, None]).long()


def _block_labels(labels: Any, start: int, n: int) -> np.ndarray:
    block = np.full(n, IGNORE_INDEX)
    part = np.asarray(labels)[start : start + n]
    block[: len(part)] = part
    return block


def _without_repeats(records: list[dict[str, Any]], ends: list[int], longest: int | None) -> list[dict[str, Any]]:
    """Without the prompts whose whole answer repeats a token `longest` times before EOS."""
    if longest is None:
        return records
    answers: dict[int, list[int]] = {}
    for record in records:
        answers.setdefault(record["index"], []).extend(record["fixed_point"].tolist())
    bad = {index for index, answer in answers.items() if _run_length(answer, ends) >= longest}
    if bad:
        logger.info("Left out %d of %d prompts: their answer repeats one token.", len(bad), len(answers))
    return [record for record in records if record["index"] not in bad]


def _run_length(answer: list[int], ends: list[int]) -> int:
    """Longest run of one token before the first EOS."""
    best = run = 0
    previous = None
    for token in answer:
        if token in ends:
            break
        run = run + 1 if token == previous else 1
        best, previous = max(best, run), token
    return best


class _Shards:
    """Parquet files of records, one per batch of prompts, and the settings that made them."""

    def __init__(self, folder: str | Path | None, settings: dict[str, Any]):
        self.folder = None if folder is None else Path(folder)
        self.parts: dict[int, datasets.Dataset] = {}
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / "settings.json"
        if note.exists():
            found = json.loads(note.read_text(encoding="utf-8"))
            other = [name for name in settings if found.get(name) != settings[name]]
            if other:
                raise ValueError(
                    f"`folder` {self.folder} holds trajectories made with another {', '.join(other)}. Choose another "
                    "folder, or delete it."
                )
        else:
            note.write_text(json.dumps(settings, indent=2), encoding="utf-8")

    def _path(self, shard: int) -> Path:
        assert self.folder is not None
        return self.folder / f"trajectories-{shard:09d}.parquet"

    def has(self, shard: int) -> bool:
        return self.folder is not None and self._path(shard).exists()

    def write(self, shard: int, records: list[dict[str, Any]]) -> None:
        part = _to_dataset(records)
        if self.folder is None:
            self.parts[shard] = part
            return
        draft = self._path(shard).with_suffix(".tmp")
        parquet.write_table(part.data.table, draft)
        draft.replace(self._path(shard))  # a shard is there whole or not at all

    def read(self) -> datasets.Dataset:
        parts = list(self.parts.values())
        if self.folder is not None:
            files = sorted(self.folder.glob("trajectories-*.parquet"))
            parts = [datasets.Dataset(parquet.read_table(file)) for file in files]
        parts = [part for part in parts if len(part)]
        if not parts:
            raise ValueError("No trajectory is left: every answer repeats one token. Pass `drop_repeats=None`.")
        return datasets.concatenate_datasets(parts)


def _to_dataset(records: list[dict[str, Any]]) -> datasets.Dataset:
    if not records:
        return datasets.Dataset.from_dict({"index": []})  # a shard without records is a shard too
    tokens = datasets.List(datasets.Value("int32"))
    kinds = {"trajectory": datasets.List(tokens), "index": datasets.Value("int64"), "block": datasets.Value("int32")}
    kinds |= {name: tokens for name in ("prompt_ids", "fixed_point", "labels")}
    columns = {name: [_listed(record[name]) for record in records] for name in records[0]}
    data = datasets.Dataset.from_dict(columns)
    return data.cast(datasets.Features({name: kinds.get(name, kind) for name, kind in data.features.items()}))


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _name_init(init: Init) -> str:
    if isinstance(init, Tensor):
        return hashlib.sha256(init.cpu().long().numpy().tobytes()).hexdigest()
    return getattr(init, "__qualname__", None) or str(init)


def _bar(shards: range, progress: bool) -> Any:
    from transformers.utils import logging as transformers_logging

    return transformers_logging.tqdm(shards, desc="Jacobi trajectories") if progress else shards
