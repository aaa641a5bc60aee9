"""Consistency distillation for the matrix: real Jacobi trajectories of a tiny Llama, prompts of several lengths."""

import numpy as np
import torch
from datasets import Dataset
from matrix_case import MatrixCase
from transformers import LlamaConfig, LlamaForCausalLM

from hf_labels.generation import collect_jacobi_trajectories
from hf_labels.trainers.ceed_vla import ConsistencyDistillationTrainer, ConsistencyDistillationTrainingArguments

N = 5


def tiny_llama(seed=0, **options):
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": 23,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **options}))


def _model(folder):
    return tiny_llama()


def _data(model, rows):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 23, 4 + i % 3).tolist() for i in range(rows)]
    labels = rng.integers(3, 23, (rows, N)).tolist()
    data = Dataset.from_dict({"input_ids": prompts, "labels": labels})
    found = collect_jacobi_trajectories(model, data, block_size=N, drop_repeats=None, progress=False)
    assert len(found) == rows and max(map(len, found["trajectory"])) > 2
    # every third ground truth is the teacher's own decode, so that both kinds of anchor occur
    return found.map(lambda row, i: {"labels": row["fixed_point"]} if i % 3 == 0 else {}, with_indices=True)


def _with(row, **columns):
    return lambda d: d.map(lambda r, i: {**r, **columns} if i == row else r, with_indices=True)


CASE = MatrixCase(
    trainer=ConsistencyDistillationTrainer,
    arguments=ConsistencyDistillationTrainingArguments,
    model=_model,
    data=_data,
    options={"warmup_steps": 0, "adam_epsilon": 1e-3},
    extra_columns=("trajectory", "fixed_point", "labels"),
    broken={
        "no trajectories": (lambda d: d.remove_columns("trajectory"), "trajectory"),
        "no labels although the distance is finite": (lambda d: d.remove_columns("labels"), "labels"),
        "empty data set": (lambda d: d.select([]), "empty"),
        "token outside the vocabulary": (_with(3, prompt_ids=[1, 23, 4]), r"\[0, 23\), got 23 at row 3"),
        "iterates of another length": (_with(1, trajectory=[[3] * 4, [4] * 4]), r"as long as `fixed_point` \(5\).*1"),
        "last iterate is not the fixed point": (_with(2, trajectory=[[3] * 5, [4] * 5]), "not `fixed_point` at row 2"),
        "empty prompt": (_with(2, prompt_ids=[]), "`prompt_ids`.*empty at row 2"),
        "labels longer than the block": (_with(4, labels=[3] * 6), "6 tokens for a block of 5 at row 4"),
    },
)
