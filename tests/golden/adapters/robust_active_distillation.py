"""Replays robust-active-distillation.json: the game for one draw, the game with a budget, and the margin gain."""

from hf_labels.labels.query_gains import margin_gain
from hf_labels.labels.robust_active_distillation import rad_distribution


def replay(function: str, inputs: dict, params: dict) -> dict:
    given = inputs | params
    if "probs" in given:
        margin, gain = margin_gain(given["probs"])
        return {"margin": margin, "gain": gain}
    if "gains" not in given:
        raise LookupError(f"No function for {function!r} with inputs {sorted(inputs)}.")
    errors = given.get("num_teacher_errors", given.get("num_errors", 0))
    reward, budget = given.get("wrong_reward", -1.0), given.get("budget")
    found = rad_distribution(given["gains"], errors, reward, budget, fallback=False)
    return {"value": found.value, "k_star": found.k_star, "q": found.probs, "inclusion": found.inclusion}
