"""ANLS and ANLS* next to the plain table of the edit distance and to torchmetrics, in turns; and the alignment.

Processor time, so that other work on the machine does not count.

    python examples/benchmarks/tail_vrd.py [--turns 7] [--questions 400] [--length 60]
"""

import argparse
import random
import time

from timing import Jobs, in_turns, show

from hf_labels.labels.tail_vrd import DocumentField
from hf_labels.labels.tail_vrd_align import align_value
from hf_labels.metrics import functional as fn
from hf_labels.metrics.functional.edit_distance import plain_text

LETTERS = "abcdefghij "


def plain_distance(one: str, two: str) -> int:
    """The table row by row, as the public implementations have it."""
    row = list(range(len(two) + 1))
    for i, a in enumerate(one):
        new = [i + 1]
        for j, b in enumerate(two):
            new.append(row[j] if a == b else 1 + min(row[j], row[j + 1], new[-1]))
        row = new
    return row[-1]


def plain_anls(predictions: list[str], references: list[list[str]]) -> float:
    total = 0.0
    for guess, accepted in zip(predictions, references, strict=True):
        best = 0.0
        for right in accepted:
            one, two = plain_text(guess), plain_text(right)
            far = plain_distance(one, two) / max(len(one), len(two), 1)
            best = max(best, 1 - far if far < 0.5 else 0.0)
        total += best
    return total / len(predictions)


def plain_star(prediction: list[dict[str, str]], reference: list[dict[str, str]]) -> float:
    """A list of flat dicts with the same keys, matched by SciPy."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    def leaf(one: str, two: str) -> float:
        one, two = plain_text(one), plain_text(two)
        score = 1 - plain_distance(one, two) / max(len(one), len(two), 1)
        return score if score >= 0.5 else 0.0

    table = np.array([[sum(leaf(a[k], b[k]) for k in a) / len(a) for b in prediction] for a in reference])
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / max(len(prediction), len(reference)))


def torchmetrics_distance(pairs: list[tuple[str, str]]) -> float:
    from torchmetrics.functional.text import edit_distance

    return float(edit_distance([a for a, _ in pairs], [b for _, b in pairs], reduction="mean"))


def spoiled(text: str, rng: random.Random, share: float) -> str:
    return "".join(rng.choice(LETTERS) if rng.random() < share else char for char in text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--length", type=int, default=60)
    args = parser.parse_args()
    rng = random.Random(0)
    for length in (12, args.length, 4 * args.length):
        count = max(20, args.questions * 144 // length**2)
        right = ["".join(rng.choice(LETTERS) for _ in range(length)).strip() for _ in range(count)]
        guesses = [spoiled(text, rng, rng.choice((0.05, 0.3, 0.9))) for text in right]
        accepted = [[text] for text in right]
        apart = abs(fn.anls(guesses, accepted)["anls"] - plain_anls(guesses, accepted))
        jobs: Jobs = {
            "plain table": lambda g=guesses, a=accepted: plain_anls(g, a),  # type: ignore[misc]
            "ours": lambda g=guesses, a=accepted: fn.anls(g, a),  # type: ignore[misc]
        }
        show(
            f"ANLS, {count} answers of {length} characters (difference {apart:.0e})",
            in_turns(jobs, args.turns, time.process_time),
        )
        pairs = list(zip(guesses, right, strict=True))
        own = sum(fn.levenshtein(a, b) for a, b in pairs) / len(pairs)
        apart = abs(own - torchmetrics_distance(pairs))
        jobs = {
            "torchmetrics": lambda p=pairs: torchmetrics_distance(p),  # type: ignore[misc]
            "ours, no limit": lambda p=pairs: [fn.levenshtein(a, b) for a, b in p],  # type: ignore[misc]
        }
        show(
            f"edit distance alone (difference {apart:.0e})", in_turns(jobs, max(2, args.turns // 2), time.process_time)
        )
    gold = [{"name": spoiled("a long item name", rng, 1.0), "price": str(rng.random())[:6]} for _ in range(30)]
    found = rng.sample([{k: spoiled(v, rng, 0.1) for k, v in row.items()} for row in gold], 30)
    apart = abs(fn.anls_star(found, gold) - plain_star(found, gold))
    jobs = {"plain table": lambda: plain_star(found, gold), "ours": lambda: fn.anls_star(found, gold)}
    show(f"ANLS* of lists of 30 (difference {apart:.0e})", in_turns(jobs, args.turns, time.process_time))
    words = [spoiled("word", rng, 1.0) for _ in range(500)]
    value = " ".join(words[250:253])
    start = time.perf_counter()
    for _ in range(20):
        align_value(value + "x", words, DocumentField("x"))
    print(f"alignment of 3 words among 500: {1e3 * (time.perf_counter() - start) / 20:.1f} ms")


if __name__ == "__main__":
    main()
