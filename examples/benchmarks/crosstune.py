"""What CrossTune's frozen features save, and what its head costs: ratios of times taken in one run.

python examples/benchmarks/crosstune.py
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch

from hf_labels.data.encoders import TextEncoder
from hf_labels.data.features import FeatureCache
from hf_labels.data.offline import BBC_NEWS_DESCRIPTIONS, MINILM, load_bbc_news
from hf_labels.losses.crosstune import crosstune_loss, head_log_probs
from hf_labels.models.crosstune import CrossTuneForSequenceClassification


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median time of one call, after one call to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def loop_over_heads(queries: torch.Tensor, keys: torch.Tensor, heads: int) -> torch.Tensor:
    """The head as it is written on paper: one softmax per head and text."""
    width = queries.shape[1] // heads
    out = torch.zeros(len(queries), len(keys))
    for b in range(len(queries)):
        for j in range(heads):
            part = slice(j * width, (j + 1) * width)
            out[b] += torch.softmax(keys[:, part] @ queries[b, part] / width**0.5, 0) / heads
    return out.log()


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--classes", type=int, default=1000, help="labels in the comparison of the two heads")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    data = load_bbc_news().shuffle(seed=0).select(range(args.texts))
    texts, labels = data["text"][:], torch.tensor(data["labels"][:])
    encoder = TextEncoder.from_pretrained(MINILM, max_length=64)
    model = CrossTuneForSequenceClassification.from_backbone(encoder, BBC_NEWS_DESCRIPTIONS)

    def epoch(features: np.ndarray) -> None:
        crosstune_loss(model.head(torch.from_numpy(features)), labels).backward()
        model.zero_grad()

    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(encoder.key(), folder)
        features = cache.get(texts, encoder.encode)["features"]
        every = seconds(lambda: epoch(encoder.encode(texts)), args.repeats)
        once = seconds(lambda: epoch(features), 10 * args.repeats)
        encode = seconds(lambda: encoder.encode(texts), args.repeats)
        read = seconds(lambda: FeatureCache(encoder.key(), folder).get(texts, encoder.encode), args.repeats)
    queries, keys = torch.randn(args.texts, 384), torch.randn(args.classes, 384)
    fast = seconds(lambda: head_log_probs(queries, keys, 8), args.repeats)
    slow = seconds(lambda: loop_over_heads(queries, keys, 8), args.repeats)
    difference = (head_log_probs(queries, keys, 8) - loop_over_heads(queries, keys, 8)).abs().max().item()
    ratios = {
        "epoch: encode every time / features once": every / once,
        "start of a run: encode / read the cache": encode / read,
        "head: loop over heads / batched": slow / fast,
    }
    print(f"{args.texts} texts of 64 tokens, MiniLM, one thread; heads over {args.classes} labels")
    for name, ratio in ratios.items():
        print(f"  {name:<42} {ratio:8.1f} x")
    print(f"  one epoch on cached features {1000 * once:.2f} ms; the two heads differ by {difference:.1e}")
    return ratios


if __name__ == "__main__":
    main()
