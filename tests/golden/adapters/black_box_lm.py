"""Replays black-box-lm.json through `hf_labels.lm`."""

from hf_labels.lm import score_tokens, softmax


def replay(function: str, inputs: dict, params: dict) -> dict:
    if "label-word scoring" not in function.lower() or "token_logprobs" not in inputs:
        raise LookupError(f"Unknown function: {function!r} with inputs {sorted(inputs)}.")
    given = {
        "num_chars": inputs.get("num_chars"),
        "prior_token_logprobs": inputs.get("prior_token_logprobs"),
    }
    wanted = ["sum", "mean"]
    wanted += ["per_char"] if given["num_chars"] is not None else []
    wanted += ["pmi"] if given["prior_token_logprobs"] is not None else []
    scores = {name: score_tokens(inputs["token_logprobs"], normalize=name, **given) for name in wanted}
    return {"scores": scores, "probs": {name: softmax(score) for name, score in scores.items()}}
