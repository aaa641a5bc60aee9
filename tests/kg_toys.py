"""A small taxonomy of animals and vehicles, vectors of its nodes, and features around class means."""

import numpy as np

from hf_labels.data.kg_zero_shot import KnowledgeGraph

PARENTS = {
    "cat": "feline", "lynx": "feline", "dog": "canine", "wolf": "canine", "feline": "animal", "canine": "animal",
    "car": "vehicle", "bus": "vehicle", "bike": "vehicle", "animal": "thing", "vehicle": "thing",
}  # fmt: skip
CLASSES = ("cat", "lynx", "dog", "wolf", "car", "bus", "bike")
SEEN = ("cat", "dog", "wolf", "car", "bus")


def graph() -> KnowledgeGraph:
    return KnowledgeGraph.from_triples([(child, "isa", parent) for child, parent in PARENTS.items()])


def vectors(seed: int = 0, size: int = 8) -> dict[str, np.ndarray]:
    """A node's vector is its parent's and a step of its own, shorter on every level."""
    rng = np.random.default_rng(seed)
    found, steps = {"thing": np.ones(size)}, {"thing": 2.0}
    todo = list(PARENTS.items())
    while todo:
        child, parent = todo.pop(0)
        if parent in found:
            found[child] = found[parent] + steps[parent] * rng.normal(size=size)
            steps[child] = 0.4 * steps[parent]
        else:
            todo.append((child, parent))
    return found


def examples(names=SEEN, count: int = 12, seed: int = 0, width: int = 10) -> tuple[np.ndarray, list[str]]:
    """Features that are a linear map of the class's vector, and noise."""
    table = np.random.default_rng(99).normal(size=(8, width))
    rng = np.random.default_rng(seed)
    known = vectors()
    x = np.concatenate([known[name] @ table + 0.3 * rng.normal(size=(count, width)) for name in names])
    return x, [name for name in names for _ in range(count)]
