"""What do many sources cost? A stored mixture against sources that run at every step; PARC and heads against peers.

    python examples/benchmarks/distill_weighted.py

Three comparisons, each in turns in one run, on one thread, after a check that both sides give the same numbers:
a distillation step of a small ResNet with 1 and 8 sources, from the stored mixture and with the sources in the loop;
PARC of 500 rows against `numpy.corrcoef` with `scipy.stats.spearmanr`, as in the released code of PARC; the linear
head against scikit-learn's `LogisticRegression` with the same objective.
"""

import argparse
from typing import Any

import numpy as np
import torch
from timing import in_turns, show
from torch.nn import functional as F

from hf_labels.data import SoftLabelStore, StoreInfo
from hf_labels.labels.linear_head import fit_linear_head
from hf_labels.labels.task_similarity import parc
from hf_labels.losses.distill_weighted import mix_sources, weighted_distillation_loss


def resnet(width: int, seed: int) -> Any:
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(seed)
    sizes = [width, 2 * width, 2 * width]
    config = ResNetConfig(embedding_size=width, hidden_sizes=sizes, depths=[1] * 3, layer_type="basic", num_labels=9)
    return ResNetForImageClassification(config).eval()


def steps(batch: int, sources: tuple[int, ...]) -> dict[str, Any]:
    """One step (forward, backward) with each number of sources, stored and in the loop."""
    pixels, labels = torch.randn(2 * batch, 3, 32, 32), torch.arange(batch) % 9
    student, teachers = resnet(16, 0), [resnet(32, 1 + seed) for seed in range(max(sources))]
    jobs: dict[str, Any] = {}
    for count in sources:
        weights = torch.full((count,), 1 / count)
        with torch.no_grad():
            answers = torch.stack([model(pixels[batch:]).logits.softmax(-1) for model in teachers[:count]])
        info, ids = StoreInfo("dense", 9, codec="float32"), np.arange(batch)
        store = SoftLabelStore.from_arrays(info, example_ids=ids.tolist(), probs=mix_sources(answers, weights))

        def stored(store: Any = store, ids: Any = ids) -> torch.Tensor:
            logits = student(pixels).logits
            loss, _, _ = weighted_distillation_loss(
                logits[:batch], labels, logits[batch:], store.decode(store.lookup(ids))
            )
            return backward(loss)

        def looped(count: int = count, weights: torch.Tensor = weights) -> torch.Tensor:
            logits = student(pixels).logits
            log_p = logits[batch:].log_softmax(-1)
            loss = 0.8 * F.cross_entropy(logits[:batch], labels)
            for weight, model in zip(weights, teachers[:count], strict=True):
                with torch.no_grad():
                    q = model(pixels[batch:]).logits.softmax(-1)
                loss = loss - 0.2 * weight * (q * log_p).sum(-1).mean()
            return backward(loss)

        def backward(loss: torch.Tensor) -> torch.Tensor:
            student.zero_grad()
            loss.backward()
            return loss.detach()

        torch.testing.assert_close(stored(), looped(), rtol=1e-4, atol=1e-5)
        jobs[f"{count} sources, stored mixture"] = stored
        jobs[f"{count} sources in the loop"] = looped
    return jobs


def parc_jobs(rows: int, width: int) -> dict[str, Any]:
    """Ours and the way of the released code."""
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 10
    features = rng.normal(size=(rows, width)) + rng.normal(size=(10, width))[labels]

    def peer() -> float:
        z = (features - features.mean(0)) / features.std(0)
        upper = np.triu_indices(rows, 1)
        one, two = 1 - np.corrcoef(z), 1 - np.corrcoef(np.eye(10)[labels])
        return 100 * float(spearmanr(one[upper], two[upper].round(9)).statistic)

    np.testing.assert_allclose(parc(features, labels), peer(), atol=1e-6)
    return {"PARC": lambda: parc(features, labels), "numpy.corrcoef, scipy spearmanr": peer}


def head_jobs(rows: int, width: int) -> dict[str, Any]:
    """Ours and scikit-learn's, same objective."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(1)
    labels = np.arange(rows) % 10
    features = rng.normal(size=(rows, width)) + 0.3 * rng.normal(size=(10, width))[labels]
    z = (features - features.mean(0)) / features.std(0)

    def peer() -> Any:
        return LogisticRegression(C=1.0, max_iter=1000).fit(z, labels)

    gap = abs(fit_linear_head(features, labels).probs(features) - peer().predict_proba(z)).max()
    assert gap < 5e-3, gap
    return {"linear head (L-BFGS, float64)": lambda: fit_linear_head(features, labels), "scikit-learn": peer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--batch", type=int, default=32, help="labelled rows, and as many to distil")
    args = parser.parse_args()
    torch.set_num_threads(1)
    show(
        f"A step of {args.batch} + {args.batch} images of 32 pixels; sources twice as wide as the student",
        in_turns(steps(args.batch, (1, 8)), args.turns),
    )
    show("PARC, 500 rows of 32 features", in_turns(parc_jobs(500, 32), args.turns))
    show("Linear head, 500 rows of 512 features, 10 classes", in_turns(head_jobs(500, 512), args.turns))


if __name__ == "__main__":
    main()
