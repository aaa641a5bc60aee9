"""Loads, in a fresh process with an empty cache, what `zero_shot_tc_push.py` has pushed to the loopback Hub."""

from __future__ import annotations

import contextlib
import io
import sys

import tiny
from checks import check, main
from transformers import pipeline


def same(found: list[dict], name: str) -> None:
    for row, want in zip(found, tiny.recall(name), strict=True):
        assert (row["label"], row["labels"]) == (want["label"], want["labels"])
        assert all(abs(a - b) < 1e-5 for a, b in zip(row["scores"], want["scores"], strict=True))


@check
def the_stock_pipeline_takes_the_model_without_hf_labels():
    assert not any(name.split(".")[0] == "hf_labels" for name in sys.modules)
    sys.modules["hf_labels"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        pipe = pipeline("zero-shot-classification", model="tester/zero-shot")
        assert pipe.entailment_id == 0 and set(pipe(tiny.TEXTS[0], ["film", "plot"])["labels"]) == {"film", "plot"}
    finally:
        del sys.modules["hf_labels"]


@check
def loading_code_of_the_card_answers_as_the_trained_model():
    from huggingface_hub import ModelCard

    from hf_labels.hub_cards import method_text

    code = method_text("zero_shot_tc").loading_code("tester/zero-shot")
    assert code in ModelCard.load("tester/zero-shot").text
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "loading", "exec"), names)
    assert "'label'" in printed.getvalue()
    same(names["pipe"](tiny.TEXTS), "zero-shot")


@check
def settings_that_the_pipeline_pushed_are_read():
    pipe = pipeline("hypothesis-zero-shot", model="tester/zero-shot-pipe")
    found = pipe(tiny.TEXTS)
    same(found, "zero-shot-pipe")
    assert all(isinstance(row["label"], list) for row in found)


@check
def the_pair_encoder_loads_by_its_id():
    import hf_labels.models.zero_shot_tc_pairs  # noqa: F401  # registers the class

    pipe = pipeline("hypothesis-zero-shot", model="tester/zero-shot-pair")
    texts = {"good": ["the film is good", "great acting"], "bad": ["the film is bad"], "poor": ["poor plot"]}
    same(pipe(tiny.TEXTS, hypotheses=texts), "zero-shot-pair")


if __name__ == "__main__":
    main()
