"""Domains, classes and exact posteriors for tests of latent label shift."""

import numpy as np
from datasets import Dataset

MIXTURES = np.array([[0.8, 0.2, 0.0, 0.3], [0.2, 0.0, 0.7, 0.3], [0.0, 0.8, 0.3, 0.4]])
"""p(class | domain), 3 classes, 4 domains. Each class is absent somewhere: the factorisation is unique."""


def draw(rows=600, mixtures=MIXTURES, noise=0.0, seed=0):
    """Posteriors of domains `(N, r)`, domains and classes: every row is of one class for sure, up to `noise`."""
    rng = np.random.default_rng(seed)
    classes, number = mixtures.shape
    domains = np.arange(rows) % number
    labels = np.array([rng.choice(classes, p=mixtures[:, d]) for d in domains])
    sure = np.eye(classes)[labels] * (1 - noise) + noise * rng.dirichlet(np.ones(classes), rows)
    table = mixtures / mixtures.sum(1, keepdims=True)
    return sure @ table, domains, labels


def images(rows=240, mixtures=MIXTURES, seed=0, noise=0.3):
    """8 x 8 pictures, bright in the quarter of their class; columns `pixel_values`, `domain`, `labels` (true)."""
    _, domains, labels = draw(rows, mixtures, seed=seed)
    rng = np.random.default_rng(seed + 1)
    pixels = rng.normal(size=(rows, 1, 8, 8)).astype("float32") * noise
    for row, label in enumerate(labels):
        pixels[row, 0, 4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 1
    return Dataset.from_dict({"pixel_values": pixels.tolist(), "domain": domains.tolist(), "labels": labels.tolist()})
