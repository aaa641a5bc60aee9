"""Small texts about three subjects, and what the tests of the doctor share."""

import numpy as np
from datasets import ClassLabel, Dataset

WORDS = {
    "skin": "spots cream oily face acne pimples cheeks forehead scars gel".split(),
    "sleep": "night tired awake bed dream pillow snore rest clock sheep".split(),
    "money": "bank loan coins price wallet tax salary market shares rent".split(),
}


def texts(count, seed=0, names=tuple(WORDS)):
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(names), size=count)
    rows = [" ".join(rng.choice(WORDS[names[k]], 6)) + f" {rng.integers(10**9)}" for k in labels]
    return rows, labels


def table(count=300, seed=0, **columns):
    rows, labels = texts(count, seed)
    data = Dataset.from_dict({"text": rows, "labels": labels, **columns})
    return data.cast_column("labels", ClassLabel(names=list(WORDS)))


def only(report, words):
    found = [finding for finding in report.findings if words in finding.title]
    assert len(found) == 1, [finding.title for finding in report.findings]
    return found[0]


class Frozen:
    """An encoder of texts for the command of confident learning."""

    def __init__(self, encode):
        self.encode = lambda texts, batch_size=32: encode(list(texts))

    def key(self):
        return None
