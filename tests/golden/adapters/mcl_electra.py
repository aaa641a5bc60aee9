"""Replays corruption, notebook and losses of MCL."""

import torch

from hf_labels.losses.mcl_electra import (
    correction_notebook,
    detection_loss,
    insert_slots,
    put_tokens,
    replaced_labels,
    swap_tokens,
    total_loss,
)


def _ids(value):
    return torch.tensor(value, dtype=torch.int64)


def replay(function: str, inputs: dict, params: dict) -> dict:
    if "gaps" in inputs:
        return _inserted(inputs)
    if "positions" in inputs:
        return _replaced(inputs)
    if "category" in inputs:
        logits = torch.tensor(inputs["disc_logits"], dtype=torch.float64)
        labels, category = _ids(inputs["labels"]), _ids(inputs["category"])
        return {
            "loss_all": detection_loss(logits, labels, _ids(inputs["attention_mask"])),
            "loss_notebook": detection_loss(logits, labels, category >= 2),
        }
    if "corrupted" in inputs:
        logits = torch.tensor(inputs["disc_logits"], dtype=torch.float64)
        ids, corrupted, mask = (_ids(inputs[name]) for name in ("input_ids", "corrupted", "attention_mask"))
        return {"category": correction_notebook(ids, corrupted, logits, mask)}
    if "gen_loss" in inputs:
        gen, disc = (
            {name: torch.tensor(value, dtype=torch.float64) for name, value in inputs[key].items()}
            for key in ("gen_loss", "disc_loss")
        )
        return {"total": total_loss(gen, disc, inputs["course_weight"], params["disc_weight"])}
    raise LookupError(f"No function for {function!r} with inputs {sorted(inputs)}.")


def _placed(ids: torch.Tensor, positions: list, sampled: list) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions as a mask, and the tokens in the order of the mask."""
    chosen, tokens = torch.zeros_like(ids, dtype=torch.bool), ids.clone()
    for row, (places, values) in enumerate(zip(positions, sampled, strict=True)):
        for place, value in zip(places, values, strict=True):
            chosen[row, place], tokens[row, place] = True, value
    return chosen, tokens[chosen]


def _replaced(inputs: dict) -> dict:
    ids = _ids(inputs["input_ids"])
    chosen, tokens = _placed(ids, inputs["positions"], inputs["sampled"])
    found, read = {}, ids
    if "perm" in inputs:
        sources = torch.arange(ids.shape[1]).repeat(len(ids), 1)
        for row, (places, order) in enumerate(zip(inputs["positions"], inputs["perm"], strict=True)):
            for place, index in zip(places, order, strict=True):
                sources[row, place] = places[index]
        read = found["swapped"] = swap_tokens(ids, sources)
    corrupted = put_tokens(read, chosen, tokens)
    return {**found, "corrupted": corrupted, "labels": replaced_labels(corrupted, ids)}


def _inserted(inputs: dict) -> dict:
    ids = _ids(inputs["input_ids"])
    slots = torch.zeros(ids.shape[0], ids.shape[1] + 1, dtype=torch.int64)
    for row, gaps in enumerate(inputs["gaps"]):
        for gap in gaps:
            slots[row, gap] += 1
    built = insert_slots(ids, torch.ones_like(ids), slots, fill=0)
    tokens = torch.tensor([token for row in inputs["sampled"] for token in row], dtype=torch.int64)
    return {
        "new_ids": put_tokens(built.input_ids, built.inserted, tokens),
        "labels": built.inserted.long(),
        "source": built.source,
    }
