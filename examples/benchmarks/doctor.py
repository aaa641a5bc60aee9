"""The doctor on 20 000 short texts: the encoder's time and the rest; and its noise rate against planted noise.

    python examples/benchmarks/doctor.py [--rows 20000]

Texts: definitions of WordNet (26 classes), with the labels that they have; BBC news with planted wrong labels, one
section to a text and several.
"""

import argparse
import tempfile

import datasets
import numpy as np

from hf_labels.data.offline import load_bbc_news
from hf_labels.data.offline_wordnet import load_glosses
from hf_labels.doctor import examine


def planted() -> None:
    """Estimated against planted noise, with and without the near-duplicates of the corpus left in."""
    data = load_bbc_news()
    right = np.array(data["labels"][:])
    print("BBC news: planted, estimated (95 % interval), precision and recall of the rows named")
    for rate in (0.0, 0.05, 0.1, 0.2, 0.3):
        for seed in range(5):
            rng = np.random.default_rng(seed)
            wrong = rng.random(len(right)) < rate
            given = np.where(wrong, (right + rng.integers(1, 5, size=len(right))) % 5, right)
            own = data.remove_columns("labels").add_column("labels", given)
            own = own.cast_column("labels", data.features["labels"])
            report = examine(own, seed=seed)
            found = next(one for one in report.findings if "noise rate" in one.title)
            named = np.zeros(len(right), bool)
            named[found.values["rows"]] = True
            hits = int((named & wrong).sum())
            shares = f"{hits / max(named.sum(), 1):.2f} {hits / max(wrong.sum(), 1):.2f}"
            print(f"  {wrong.mean():.3f}  {found.value:.3f} ({found.low:.3f} to {found.high:.3f})  {shares}")


def planted_sets() -> None:
    """The same for sets of labels: one to three articles of the corpus in a text, with the sections of all of them."""
    data = load_bbc_news()
    articles, sections = data["text"][:], np.array(data["labels"][:])
    rng = np.random.default_rng(0)
    picked = [[row, *rng.integers(len(articles), size=rng.integers(3))] for row in range(len(articles))]
    texts = [" ".join(articles[i][:250] for i in rows) for rows in picked]
    right = np.zeros((len(texts), 5), dtype=np.int64)
    for row, articles_in in enumerate(picked):
        right[row, sections[articles_in]] = 1
    print("sets of sections: planted, estimated (95 % interval), precision and recall of the first 1 000 cells named")
    for rate in (0.0, 0.02, 0.05, 0.1):
        for seed in range(5):
            wrong = np.random.default_rng(seed).random(right.shape) < rate
            given = np.where(wrong, 1 - right, right)
            report = examine(datasets.Dataset.from_dict({"text": texts, "labels": given.tolist()}), seed=seed)
            found = next(one for one in report.findings if "of the cells (95 %" in one.title)
            named = np.zeros(right.shape, bool)
            named[found.values["rows"], [int(name) for name in found.values["labels"]]] = True
            hits = int((named & wrong).sum())
            shares = f"{hits / max(named.sum(), 1):.2f} {hits / max(wrong.sum(), 1):.2f}"
            print(f"  {wrong.mean():.3f}  {found.value:.3f} ({found.low:.3f} to {found.high:.3f})  {shares}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    args = parser.parse_args()
    datasets.disable_progress_bars()
    data = load_glosses().shuffle(seed=0).select(range(args.rows)).remove_columns("word")
    report = examine(data)
    print(report.text())
    with tempfile.TemporaryDirectory() as folder:
        page = report.to_html(f"{folder}/report.html")
        print(f"page: {page.stat().st_size / 1e3:.0f} kB")
    planted()
    planted_sets()


if __name__ == "__main__":
    main()
