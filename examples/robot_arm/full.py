"""The published models: decode, distil with LoRA, decode again. Needs an accelerator with room for 7 B parameters."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

PLANS: dict[str, dict[str, Any]] = {
    # Questions in text, blocks of 16 tokens. The model is the teacher of Consistency LLM.
    "text": {"model": "GAIR/Abel-7B-001", "data": "openai/gsm8k", "block_size": 16, "max_new_tokens": 256},
    # An action chunk of 3 x 7 tokens and EOS. `data`: a saved `datasets.Dataset` with `input_ids`, `labels` (22,) and
    # `pixel_values`, made with the model's processor from `openvla/modified_libero_rlds`.
    "vla": {"model": "chenpyyy/openvla-ac", "data": None, "block_size": 22, "max_new_tokens": 22},
}
DISTILLED = "cllm/consistency-llm-7b-math"  # for comparison: Consistency LLM, distilled by its authors
PROMPT = "Question:\n{question}\nAnswer:\nLet's think step by step.\n"


def text_rows(name: str, tokenizer: Any, train: int, test: int) -> tuple[Any, Any]:
    """Prompts of GSM8K as `input_ids`."""
    import datasets

    found = datasets.load_dataset(name, "main")
    made = [
        part.select(range(min(number, len(part)))).map(
            lambda row: {"input_ids": tokenizer(PROMPT.format(**row))["input_ids"]}, remove_columns=part.column_names
        )
        for part, number in ((found["train"], train), (found["test"], test))
    ]
    return made[0], made[1]


@torch.no_grad()
def measure(model: Any, rows: Any, plan: dict[str, Any], sigmas: Sequence[int], columns: Sequence[str]) -> list[Any]:
    """Passes, milliseconds and share of the greedy tokens, batch 1, per decoder."""
    from hf_labels.generation import jacobi_generate

    model.eval()
    found: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows.with_format("torch"):
        given = {name: row[name][None].to(model.device) for name in ("input_ids", *columns)}
        given["attention_mask"] = torch.ones_like(given["input_ids"])
        length = given["input_ids"].shape[1]
        options = {"do_sample": False, "max_new_tokens": plan["max_new_tokens"]}
        greedy = None
        for sigma in (0, None, *sigmas):  # 0: one token a pass
            begin = time.perf_counter()
            if sigma == 0:
                out, passes = model.generate(**given, **options), None
            else:
                decode = {"custom_generate": jacobi_generate, "block_size": plan["block_size"], "init": "prompt"}
                answer = model.generate(**given, **options, **decode, max_jacobi_iter=sigma, return_jacobi_stats=True)
                out, passes = answer.sequences, answer.stats.forward_passes
            spent = 1000 * (time.perf_counter() - begin)
            tokens = out[0, length:].cpu()
            greedy = tokens if greedy is None else greedy
            both = min(len(tokens), len(greedy))
            same = float((tokens[:both] == greedy[:both]).float().mean())
            name = "generate" if sigma == 0 else "exact" if sigma is None else f"early exit {sigma}"
            found.setdefault(name, []).append((passes or len(tokens), spent, same))
    keys = ("passes", "ms", "same_as_greedy")
    return [
        {"decoder": name, **dict(zip(keys, np.mean(v, axis=0).tolist(), strict=True))} for name, v in found.items()
    ]


def run_full(
    output: str | None = None,
    kind: str = "text",
    model: Any = None,
    rows: tuple[Any, Any] | None = None,
    plan: dict[str, Any] | None = None,
    sigmas: Sequence[int] = (2, 3, 4),
    **training: Any,
) -> Path:
    """Measure the teacher, collect trajectories, distil adapters, measure the student.

    Args:
        output: Folder of everything.
        kind: Entry of `PLANS`.
        model, rows, plan: Instead of those of the plan: a loaded model, (training, test) rows, sizes.
        training: Arguments of `ConsistencyDistillationTrainingArguments` that differ.
    """
    import transformers

    from hf_labels.generation import collect_jacobi_trajectories
    from hf_labels.trainers.ceed_vla import ConsistencyDistillationTrainer, ConsistencyDistillationTrainingArguments

    plan = {**PLANS[kind], **(plan or {})}
    folder = Path(output or f"ceed_vla_full_{kind}")
    folder.mkdir(parents=True, exist_ok=True)
    if model is None:
        loader = transformers.AutoModelForCausalLM if kind == "text" else transformers.AutoModelForImageTextToText
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = loader.from_pretrained(plan["model"], dtype=torch.bfloat16).to(device)
    if rows is None:
        rows = _rows(kind, plan)
    train, test = rows
    columns = [name for name in train.column_names if name not in ("input_ids", "labels")]
    result: dict[str, Any] = {"plan": plan, "teacher": measure(model, test, plan, sigmas, columns)}
    sizes = {name: plan[name] for name in ("block_size", "max_new_tokens")}
    found = collect_jacobi_trajectories(
        model, train, **sizes, batch_size=16, model_columns=columns, folder=folder / "trajectories"
    )
    has_labels = "labels" in found.column_names
    settings: dict[str, Any] = {
        "lora_rank": 32,
        "learning_rate": 5e-4 if kind == "vla" else 2e-5,
        "per_device_train_batch_size": 4,
        "max_label_distance": 0.1 if has_labels else float("inf"),
        "save_custom_generate": True,
        **training,
    }
    args = ConsistencyDistillationTrainingArguments(str(folder / "student"), **settings)
    trainer = ConsistencyDistillationTrainer(model, args, train_dataset=found)
    trainer.train()
    trainer.save_model()
    result["student"] = measure(trainer.bare_model, test, plan, sigmas, columns)
    path = folder / "result.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


def _rows(kind: str, plan: dict[str, Any]) -> tuple[Any, Any]:
    import datasets
    from transformers import AutoTokenizer

    if kind == "text":
        return text_rows(plan["data"], AutoTokenizer.from_pretrained(plan["model"]), 7000, 200)
    if plan["data"] is None:
        raise ValueError(
            "`plan['data']` must be the folder of a saved data set with `input_ids`, `labels`, `pixel_values`."
        )
    parts = datasets.load_from_disk(plan["data"]).train_test_split(200, seed=0)
    return parts["train"], parts["test"]
