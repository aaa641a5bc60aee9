"""Replays Jacobi decoding on a table language model, the losses of Consistency LLM, and the action tokens."""

import torch
from transformers import GenerationConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from hf_labels.generation import jacobi_generate
from hf_labels.labels.action_bins import decode_actions, encode_actions
from hf_labels.losses.ceed_vla import anchor_loss, consistency_loss, consistency_mask


class TableLM(PreTrainedModel, GenerationMixin):
    """Logits at position t are A[x_t] + B[x_{t-1}]; A alone at the first one."""

    config_class = PreTrainedConfig
    _supports_cache_class = False

    def __init__(self, first, second):
        super().__init__(PreTrainedConfig(vocab_size=len(first)))
        self.first = torch.nn.Parameter(torch.tensor(first, dtype=torch.float64))
        self.second = torch.nn.Parameter(torch.tensor(second, dtype=torch.float64))
        self.generation_config = GenerationConfig()
        self.post_init()

    def forward(self, input_ids, attention_mask=None, use_cache=None, return_dict=True):
        before = torch.nn.functional.pad(self.second[input_ids[:, :-1]], (0, 0, 1, 0))
        return CausalLMOutput(logits=self.first[input_ids] + before)


def _decode(model, prompt, block, **options):
    prompt, block = torch.tensor(prompt), torch.tensor(block)
    return jacobi_generate(
        model,
        prompt,
        use_cache=False,
        block_size=block.shape[-1],
        init=block,
        eos_token_id=None,
        return_jacobi_stats=True,
        **options,
    )


def _trajectory(inputs: dict) -> dict:
    prompt, start = inputs["prompt_ids"], inputs["initial_sequence"]
    length = len(prompt[0])
    stats = _decode(TableLM(inputs["A"], inputs["B"]), prompt, [start[0][length:]]).stats
    path = stats.iterates[0][:, 0].tolist()
    return {"trajectory": [start[0][:length] + block for block in path], "fixed_point_block": path[-1]}


def _early_exit(inputs: dict, params: dict) -> dict:
    """The first token of the block is known: it joins the prompt, and the rest is the block."""
    model, block = TableLM(inputs["A"], inputs["B"]), inputs["initial_block"]
    start, runs = [inputs["last_prompt_token"], block[0]], []
    for limit in params.get(
        "max_iter", [1, 2, 3, 2 * len(block)]
    ):  # the limits of the reference are not in its inputs
        stats = _decode(model, [start], [block[1:]], max_jacobi_iter=limit).stats
        path = [[block[0], *row] for row in stats.iterates[0][:, 0].tolist()]
        confirmed = len(path) - 1 < limit  # the reference spends one more pass to see that nothing changes
        after = int(stats.next_tokens[0][0])
        if confirmed:
            after = int(_decode(model, [start + path[-1][1:]], [[0]]).sequences[0, -1])
        runs.append(
            {
                "max_iter": limit,
                "iterates": path if confirmed else path[:-1],
                "output_block": path[-1],
                "next_block_first_token": after,
                "iterations": len(path) - 1,
            }
        )
    return {"runs": runs}


def _training_step(inputs: dict, params: dict) -> dict:
    model = TableLM(inputs["A"], inputs["B"])
    path = torch.tensor(inputs["trajectory"])
    path = path.reshape(len(path), -1)
    target = path[-1:]
    fixed = model(target).logits
    ar = anchor_loss(fixed[:, :-1], target[:, 1:], params.get("label_smoothing", 0.1)) * params.get("ar_scale", 10.0)
    found = []
    for index, guess in enumerate(path[:-1]):
        mask = consistency_mask(guess[None], target)[:, 1:]
        part = consistency_loss(model(guess[None]).logits[:, :-1], fixed[:, :-1], mask)
        names = ("trajectory_index", "ar_loss_times_10", "consistency_loss", "total")
        found.append(dict(zip(names, (index, ar, part, ar + part), strict=True)))
    return {"per_index": found}


def replay(function: str, inputs: dict, params: dict) -> dict:
    if "actions" in inputs:
        options = {"vocab_size": params["vocab_size"], "bins": params["bins"]}
        ids = encode_actions(inputs["actions"], **options)
        return {"token_ids": ids, "decoded": decode_actions(ids, **options)}
    if "pred_logits" in inputs:
        pred, target = (torch.tensor(inputs[f"{name}_logits"], dtype=torch.float64) for name in ("pred", "target"))
        return {"loss": consistency_loss(pred, target, ~torch.tensor(inputs["ignore_mask"], dtype=torch.bool))}
    if "initial_sequence" in inputs:
        return _trajectory(inputs)
    if "initial_block" in inputs:
        return _early_exit(inputs, params)
    if "trajectory" in inputs:
        return _training_step(inputs, params)
    raise LookupError(f"No function for {function}")
