"""What unsupervised prompt learning costs beside its model: gradient, projection, candidates, demonstrations.

    python examples/benchmarks/unsupervised_prompt_learning.py [--turns 15]

The gradient is compared with a loop over positions and prompts, as BDPL's code has it, in turns.
"""

import argparse
import time

import numpy as np
import torch
from timing import in_turns, show
from torch import Tensor

from hf_labels.labels.unsupervised_prompt_learning import candidate_vocabulary, draw_demonstrations
from hf_labels.losses.unsupervised_prompt_learning import project_simplex, variance_reduced_gradient


def by_loop(probs: Tensor, indices: Tensor, losses: Tensor) -> Tensor:
    """Position by position, prompt by prompt: +1/p for the drawn token, -1/p for all others."""
    gradient = torch.zeros_like(probs)
    mean = losses.mean()
    for prompt, loss in zip(indices, losses, strict=True):
        for position, token in enumerate(prompt):
            row = -1.0 / probs[position]
            row[token] = -row[token]
            gradient[position] += (loss - mean) * row / (len(losses) - 1)
    return gradient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    probs = torch.rand(20, 200, dtype=torch.float64).softmax(1)
    indices, losses = torch.randint(0, 200, (20, 20)), torch.rand(20, dtype=torch.float64)

    def ours() -> Tensor:
        return variance_reduced_gradient(probs, indices, losses, "reference")

    apart = float((by_loop(probs, indices, losses) - ours()).abs().max())
    jobs = {"loop (BDPL)": lambda: by_loop(probs, indices, losses), "one scatter (ours)": ours}
    show(f"gradient, 20 positions, 200 candidates, 20 prompts (difference {apart:.1e})", in_turns(jobs, args.turns))
    show("projection of 20 x 200", in_turns({"ours": lambda: project_simplex(probs + 0.1)}, args.turns))
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in rng.zipf(1.5, 30) % 500) for _ in range(5000)]
    start = time.perf_counter()
    candidate_vocabulary(texts, 200)
    middle = time.perf_counter()
    for text in texts[:1000]:
        draw_demonstrations(text, texts[:80], [place % 10 for place in range(80)], 4, seed=0)
    done = time.perf_counter()
    print(
        f"candidates of 5000 texts {middle - start:.2f} s, demonstrations {1e6 * (done - middle) / 1000:.0f} us a text"
    )


if __name__ == "__main__":
    main()
