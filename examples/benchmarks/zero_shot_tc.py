"""What the zero-shot pipeline costs beside the stock one, and what sorting, short lists and pair encoders save.

    python examples/benchmarks/zero_shot_tc.py [--texts 12] [--labels 10] [--turns 5]

All jobs are timed in turns in one process; ratios are medians over the turns. Expected: never slower than the stock
pipeline (less padding), a short list of a fifth of the labels over twice as fast, a pair encoder (each text once per
batch) faster, and more so with larger batches.
"""

import argparse
from typing import Any

import numpy as np
import torch
from timing import in_turns, ratio, show

from hf_labels.data.encoders import TextEncoder
from hf_labels.data.offline import MINILM, load_bbc_news, minilm_path
from hf_labels.labels.zero_shot_tc import DecisionRule, decide
from hf_labels.metrics.functional import zero_shot_f1
from hf_labels.models.zero_shot_tc import HypothesisZeroShotPipeline
from hf_labels.models.zero_shot_tc_pairs import PairEncoderForSequenceClassification

STOCK, LOOP = "stock pipeline", "plain loop"


def cross_encoder() -> tuple[Any, Any]:
    """MiniLM with a new head of two classes: the cost of a real cross-encoder, not its quality."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    names = {0: "entailment", 1: "not_entailment"}
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(minilm_path(), num_labels=2, id2label=names).eval()
    model.config.label2id = {name: place for place, name in names.items()}
    return model, AutoTokenizer.from_pretrained(minilm_path(), model_max_length=128)


def plain_decide(probs: np.ndarray, owner: list[int], seen: set[int], margin: float) -> list[int]:
    """The two-phase topic rule as it is written on paper: one text and one hypothesis at a time."""
    found = []
    for row in probs:
        best: dict[bool, tuple[float, int]] = {True: (-1.0, -1), False: (-1.0, -1)}
        for value, label in zip(row, owner, strict=True):
            group = label in seen
            if value > best[group][0]:
                best[group] = (float(value), label)
        (p, a), (q, b) = best[True], best[False]
        alike = (p > 0.5) == (q > 0.5)
        found.append(a if (p - q > margin if alike else p > 0.5) else b)
    return found


def pipelines(count: int, number: int, turns: int) -> dict[str, list[float]]:
    """Seconds per call of every pipeline."""
    from transformers import pipeline

    data = load_bbc_news().shuffle(seed=0).select(range(count))
    texts = [text[: 60 + 45 * (row % 10)] for row, text in enumerate(data["text"][:])]  # of many lengths
    labels = [f"topic number {place}" for place in range(number)]
    model, tokenizer = cross_encoder()
    stock = pipeline("zero-shot-classification", model=model, tokenizer=tokenizer)
    ours = HypothesisZeroShotPipeline(model=model, tokenizer=tokenizer)
    pair = PairEncoderForSequenceClassification.from_backbone(MINILM).eval()
    light = HypothesisZeroShotPipeline(model=pair, tokenizer=tokenizer)
    few: dict[str, Any] = {"prefilter": TextEncoder.from_pretrained(MINILM, max_length=128)}
    few["prefilter_k"] = max(1, number // 5)
    # Sixteen pairs go through at once; the stock pipeline takes texts as they come.
    jobs = {
        STOCK: lambda: stock(texts, labels, batch_size=16),
        "ours, sorted by length": lambda: ours(texts, labels, batch_size=16),
        f"ours, short list of {few['prefilter_k']} labels": lambda: ours(texts, labels, batch_size=16, **few),
        "ours, pair encoder of the same size": lambda: light(texts, labels, batch_size=16),
        "the same, 64 pairs at once": lambda: light(texts, labels, batch_size=64),
    }
    return in_turns(jobs, turns)


def decisions(turns: int) -> dict[str, list[float]]:
    """Seconds per call of the decision rule and its plain loop, which agree."""
    rng = np.random.default_rng(0)
    probs, owner = rng.random((20_000, 20)), [place // 2 for place in range(20)]
    rule, seen = DecisionRule("two_phase"), [0, 2, 4, 6, 8]
    if decide(probs, owner, seen, rule).tolist() != plain_decide(probs, owner, set(seen), 0.1):
        raise RuntimeError("The vectorised decision differs from the plain loop.")
    gold = rng.integers(10, size=20_000).tolist()
    jobs = {
        LOOP: lambda: plain_decide(probs, owner, set(seen), 0.1),
        "ours": lambda: decide(probs, owner, seen, rule),
        "ours, and F1": lambda: zero_shot_f1(decide(probs, owner, seen, rule).tolist(), gold, seen),
    }
    return in_turns(jobs, turns)


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=12)
    parser.add_argument("--labels", type=int, default=10)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args(argv)
    from transformers import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    times = pipelines(args.texts, args.labels, args.turns)
    show(f"{args.texts} texts of 60 to 465 characters, {args.labels} labels, MiniLM, one thread", times)
    rules = decisions(args.turns)
    show("two-phase decisions of 20 000 texts, 20 hypotheses, 10 labels", rules)
    ratios = {name: ratio(times, STOCK, name) for name in times}
    ratios["decision"] = ratio(rules, LOOP, "ours")
    print("times as fast: " + "; ".join(f"{name} {value:.2f}" for name, value in ratios.items()))
    return ratios


if __name__ == "__main__":
    main()
