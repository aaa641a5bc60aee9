"""What TnT-LLM costs beside the language model: checks and batches, labels of a corpus, and the classifier in turns.

    python examples/benchmarks/tnt_llm.py [--turns 7] [--texts 2000]

The head is compared with scikit-learn's `predict_proba` of the same logistic regression on the same features.
"""

import argparse
import time

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from sklearn.linear_model import LogisticRegression
from timing import in_turns, show

from hf_labels.labels.tnt_llm import Taxonomy
from hf_labels.lm import ScriptedLM
from hf_labels.lm.tnt_llm_labels import LLMLabeler
from hf_labels.models.tnt_llm import TaxonomyClassifier

LABELS, WIDTH = 25, 384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--texts", type=int, default=2000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    names = [f"label {number}" for number in range(LABELS)]
    taxonomy = Taxonomy.from_names(names, "a benchmark")
    data = Dataset.from_dict({"text": [f"text {number}" for number in range(args.texts)]})
    lm = ScriptedLM(lambda request: {"primary": "Label 3", "all": ["label 3", "lable 4"]}, progress=False)
    start = time.perf_counter()
    LLMLabeler(lm, taxonomy).label(data)
    each = 1e3 * (time.perf_counter() - start) / args.texts
    print(f"labelling beside the model's own time: {each:.2f} ms a text ({args.texts} texts, {LABELS} labels)")

    labels = rng.integers(0, LABELS, args.texts)
    features = (rng.normal(size=(LABELS, WIDTH))[labels] + rng.normal(size=(args.texts, WIDTH))).astype(np.float32)
    rows = {text: row for text, row in zip(data["text"][:], features, strict=True)}
    labelled = data.add_column("label", labels).cast_column("label", ClassLabel(names=names))
    start = time.perf_counter()
    model = TaxonomyClassifier.train_on(
        labelled, lambda texts: np.stack([rows.get(text, features[0]) for text in texts])
    )
    print(f"classifier fitted, with the choice of C, in {time.perf_counter() - start:.1f} s")
    peer = LogisticRegression(C=1.0, max_iter=1000).fit(features, labels)
    inputs = torch.from_numpy(features)

    @torch.no_grad()
    def ours() -> torch.Tensor:
        return model.head(inputs).softmax(-1)

    show(
        f"probabilities of {args.texts} texts from features of {WIDTH}",
        in_turns({"scikit-learn": lambda: peer.predict_proba(features), "the head (ours)": ours}, args.turns),
    )


if __name__ == "__main__":
    main()
