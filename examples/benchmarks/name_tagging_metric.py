"""Multi-similarity loss and similarity of events: whole matrices next to loops over anchors and pairs, in turns.

python examples/benchmarks/name_tagging_metric.py [--turns 7] [--entities 200] [--width 768]
"""

import argparse

import numpy as np
import torch
from timing import in_turns, show
from torch import Tensor

from hf_labels.labels.name_tagging_metric import event_similarity
from hf_labels.losses.name_tagging_metric import multi_similarity_loss


def by_anchor(features: Tensor, labels: Tensor, a: float = 2.0, b: float = 5.0) -> Tensor:
    """One anchor after the other, as the loss is usually written."""
    unit = torch.nn.functional.normalize(features, dim=1)
    cosines, rows = unit @ unit.T, []
    for anchor in range(len(unit)):
        same = labels == labels[anchor]
        own, others = cosines[anchor][same], cosines[anchor][~same]
        pull = own[own - 0.1 < others.max()] if len(others) else own
        push = others[others + 0.1 > own.min()]
        if len(pull) or len(push):
            positive = torch.log(1 + torch.exp(-a * (pull - 0.5)).sum()) / a
            rows.append(positive + torch.log(1 + torch.exp(b * (push - 0.5)).sum()) / b)
    return torch.stack(rows).sum() / len(unit)


def by_pair(events: list[np.ndarray]) -> np.ndarray:
    """One pair of entities after the other."""
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in events]
    return np.array([[(one @ two.T).max() for two in unit] for one in unit])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--entities", type=int, default=200)
    parser.add_argument("--width", type=int, default=768)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    features = torch.randn(args.entities, args.width, requires_grad=True)
    labels = torch.randint(0, 5, (args.entities,))
    difference = (by_anchor(features, labels) - multi_similarity_loss(features, labels).loss).abs().item()
    jobs = {
        "loop over anchors": lambda: by_anchor(features, labels).backward(),
        "one matrix (ours)": lambda: multi_similarity_loss(features, labels).loss.backward(),
    }
    show(f"loss and gradient, {args.entities} entities (difference {difference:.1e})", in_turns(jobs, args.turns))
    rng = np.random.default_rng(0)
    events = [rng.normal(size=(int(rng.integers(1, 6)), 384)) for _ in range(args.entities)]
    apart = abs(by_pair(events) - event_similarity(events)).max()
    jobs = {
        "loop over pairs": lambda: by_pair(events),
        "segments of one product (ours)": lambda: event_similarity(events),
    }
    show(
        f"similarity of {args.entities} entities by their events (difference {apart:.1e})", in_turns(jobs, args.turns)
    )


if __name__ == "__main__":
    main()
