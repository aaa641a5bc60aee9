"""`KnowledgeGraph`: classes, their ancestors, names and texts, from WordNet or from triples."""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.data.offline_wordnet import load_wordnet
from hf_labels.labels.columns import require_columns
from hf_labels.labels.kg_zero_shot import distance_groups

logger = logging.getLogger(__name__)

PARENT_RELATIONS = ("hypernym", "instance_hypernym", "isa", "is_a", "subclass_of", "parent")
_POINTERS = {"@": "hypernym", "@i": "instance_hypernym"}


@dataclass(frozen=True)
class KnowledgeGraph:
    """Nodes and triples. Duplicate triples are dropped.

    Parameters:
        nodes (`tuple[str, ...]`): Ids, such as `"cat.n.01"`.
        triples (`np.ndarray` of shape `(T, 3)`): Head, relation and tail by number.
        relations (`tuple[str, ...]`): Their names.
        names (`tuple[str, ...]`, *optional*): For people; the ids by default.
        texts (`tuple[str, ...]`, *optional*): Definitions.
        parent_relations (`tuple[str, ...]`, *optional*): Relations whose tail is a parent of the head.

    Raises:
        ValueError: If an id comes twice, or a triple names no node or relation.
    """

    nodes: tuple[str, ...]
    triples: np.ndarray
    relations: tuple[str, ...]
    names: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    parent_relations: tuple[str, ...] = PARENT_RELATIONS
    duplicates: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        for key in ("nodes", "relations", "names", "texts"):
            object.__setattr__(self, key, tuple(getattr(self, key)))
        if not self.nodes:
            raise ValueError("The graph has no node.")
        if len(set(self.nodes)) < len(self.nodes):
            raise ValueError(f"The node {Counter(self.nodes).most_common(1)[0][0]!r} comes more than once.")
        object.__setattr__(self, "names", self.names or self.nodes)
        object.__setattr__(self, "texts", self.texts or ("",) * len(self.nodes))
        if not len(self.nodes) == len(self.names) == len(self.texts):
            raise ValueError(f"There are {len(self.nodes)} nodes, {len(self.names)} names, {len(self.texts)} texts.")
        triples = np.asarray(self.triples, dtype=np.int64).reshape(-1, 3)
        top = np.array([len(self.nodes), len(self.relations), len(self.nodes)])
        bad = np.flatnonzero(((triples < 0) | (triples >= top)).any(1))
        if len(bad):
            raise ValueError(f"Triple {bad[0]} is {triples[bad[0]].tolist()}, beyond the nodes or relations.")
        _, first = np.unique(triples, axis=0, return_index=True)
        if len(first) < len(triples):
            logger.warning("%d duplicate triples were dropped.", len(triples) - len(first))
            object.__setattr__(self, "duplicates", len(triples) - len(first))
        object.__setattr__(self, "triples", triples[np.sort(first)])
        object.__setattr__(self, "_place", {node: number for number, node in enumerate(self.nodes)})

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def edges(self) -> np.ndarray:
        """(child, parent) pairs `(E, 2)`: the triples of the parent relations."""
        numbers = [i for i, name in enumerate(self.relations) if name in self.parent_relations]
        return self.triples[np.isin(self.triples[:, 1], numbers)][:, [0, 2]]

    def ancestors(self, lim: int = 4) -> list[np.ndarray]:
        """Pairs of node and ancestor by distance: [`~hf_labels.labels.kg_zero_shot.distance_groups`]."""
        return distance_groups(self.edges, len(self), lim)

    def number(self, node: str) -> int:
        """Number of a node by its id.

        Raises:
            ValueError: If it is not there; lists the nearest ids and names.
        """
        place: dict[str, int] = self._place  # type: ignore[attr-defined]
        if node in place:
            return place[node]
        near = difflib.get_close_matches(str(node), [*self.nodes, *set(self.names)], 5, 0.5)
        told = f" Nearest: {', '.join(near)}." if near else ""
        raise ValueError(f"The graph has no node {node!r} ({len(self)} nodes).{told}")

    def find(self, name: str) -> str:
        """Id of the first node with this name or id; for WordNet its most frequent sense.

        Raises:
            ValueError: As in `number`.
        """
        folded = name.lower().replace("_", " ")
        sense = f"{folded.replace(' ', '_')}.n.01"
        place: dict[str, int] = self._place  # type: ignore[attr-defined]
        for option in (name, sense):
            if option in place:
                return option
        for node, own in zip(self.nodes, self.names, strict=True):
            if own.lower().replace("_", " ") == folded:
                return node
        return self.nodes[self.number(name)]

    def with_ancestors(self, nodes: Iterable[str]) -> KnowledgeGraph:
        """The graph of these nodes and all their ancestors, the given nodes first."""
        start = [self.number(node) for node in nodes]
        up: dict[int, list[int]] = {}
        for child, parent in self.edges.tolist():
            up.setdefault(child, []).append(parent)
        kept = dict.fromkeys(start)
        todo = list(kept)
        while todo:
            for parent in up.get(todo.pop(), ()):
                if parent not in kept:
                    kept[parent] = None
                    todo.append(parent)
        return self.subgraph([self.nodes[number] for number in kept])

    def subgraph(self, nodes: Sequence[str]) -> KnowledgeGraph:
        """The graph of these nodes, in this order, and the triples among them."""
        numbers = [self.number(node) for node in nodes]
        place = np.full(len(self), -1)
        place[numbers] = np.arange(len(numbers))
        triples = self.triples.copy()
        triples[:, 0], triples[:, 2] = place[triples[:, 0]], place[triples[:, 2]]
        kept = triples[(triples[:, 0] >= 0) & (triples[:, 2] >= 0)]
        pick = [tuple(values[i] for i in numbers) for values in (self.nodes, self.names, self.texts)]
        return KnowledgeGraph(pick[0], kept, self.relations, pick[1], pick[2], self.parent_relations)

    @classmethod
    def from_wordnet(cls, folder: str | Path | None = None, pos: str = "noun") -> KnowledgeGraph:
        """Synsets of a part of speech with their hypernyms; ids as in `cat.n.01` (82 115 nouns in 2 s).

        Raises:
            FileNotFoundError: If WordNet is not there; says how to get it.
        """
        wordnet = load_wordnet(folder)
        synsets = list(wordnet.all(pos))
        place = {synset.offset: number for number, synset in enumerate(synsets)}
        kinds = list(_POINTERS.values())
        triples = [
            (number, kinds.index(_POINTERS[symbol]), place[offset])
            for number, synset in enumerate(synsets)
            for symbol, target, offset in synset.pointers
            if symbol in _POINTERS and target == pos
        ]
        ids = [wordnet.sense_id(synset) for synset in synsets]
        names = [synset.words[0] for synset in synsets]
        return cls(tuple(ids), np.array(triples), tuple(kinds), tuple(names), tuple(s.definition for s in synsets))

    @classmethod
    def from_triples(cls, source: Any, parent_relations: Sequence[str] = PARENT_RELATIONS) -> KnowledgeGraph:
        """Triples of texts: head, relation, tail.

        Args:
            source (path, `datasets.Dataset`, or rows of three texts): A tab-separated file, a data set with the
                columns `head`, `relation`, `tail`, or the rows themselves.
            parent_relations (sequence of `str`, *optional*)

        Raises:
            ValueError: If a line does not hold three texts; names it. If there is no triple.
            KeyError: If a column is missing.
        """
        rows = _rows(source)
        nodes = list(dict.fromkeys(name for head, _, tail in rows for name in (head, tail)))
        relations = list(dict.fromkeys(relation for _, relation, _ in rows))
        place, kind = ({name: i for i, name in enumerate(names)} for names in (nodes, relations))
        triples = np.array([(place[head], kind[relation], place[tail]) for head, relation, tail in rows])
        return cls(tuple(nodes), triples, tuple(relations), parent_relations=tuple(parent_relations))

    def numbered(self, source: Any, unknown: str = "error") -> np.ndarray:
        """Further triples (a test part) by the numbers of this graph, `(M, 3)`.

        Args:
            source: As in `from_triples`.
            unknown (`str`, *optional*, defaults to `"error"`): `"skip"` leaves out triples with an entity or relation
                that the graph does not have, and warns with their count.

        Raises:
            ValueError: For such a triple; names it.
        """
        place: dict[str, int] = self._place  # type: ignore[attr-defined]
        kind = {name: number for number, name in enumerate(self.relations)}
        found, lost = [], 0
        for row, (head, relation, tail) in enumerate(_rows(source)):
            if head in place and relation in kind and tail in place:
                found.append((place[head], kind[relation], place[tail]))
            elif unknown == "error":
                strange = next(n for n, known in ((head, place), (relation, kind), (tail, place)) if n not in known)
                raise ValueError(
                    f"Triple {row} has {strange!r}, which the graph does not have. Skip it: unknown='skip'."
                )
            else:
                lost += 1
        if lost:
            logger.warning(
                "%d of %d triples have unknown entities or relations and were skipped.", lost, lost + len(found)
            )
        return np.array(found, dtype=np.int64).reshape(-1, 3)

    def inverse_leakage(self, test: np.ndarray, share: float = 0.8) -> dict[str, float]:
        """Relations whose test triples are mostly known backwards, as (tail, other relation, head), in this graph.

        Args:
            test (`(M, 3)` integers): From `numbered`.
            share (`float`, *optional*, defaults to 0.8): From which share on a relation is named and warned about.

        Returns:
            `dict[str, float]`: Relation -> share of its test triples that stand here the other way round.
        """
        backwards = {(tail, head) for head, _, tail in self.triples.tolist()}
        hits, total = Counter[int](), Counter[int]()
        for head, relation, tail in np.asarray(test).tolist():
            total[relation] += 1
            hits[relation] += (head, tail) in backwards
        found = {self.relations[r]: hits[r] / n for r, n in total.items() if hits[r] / n >= share}
        if found:
            logger.warning("Test triples of %s are known backwards: ranks of them say little.", ", ".join(found))
        return found

    def to_dataset(self) -> Any:
        """The triples as a `datasets.Dataset` of texts: `head`, `relation`, `tail`."""
        import datasets

        columns = {"head": self.nodes, "relation": self.relations, "tail": self.nodes}
        return datasets.Dataset.from_dict(
            {name: [known[i] for i in self.triples[:, c]] for c, (name, known) in enumerate(columns.items())}
        )


def _rows(source: Any) -> list[tuple[str, str, str]]:
    if isinstance(source, str | Path):
        with Path(source).open(encoding="utf-8") as file:
            source = [line.rstrip("\n").split("\t") for line in file if line.strip()]
    elif hasattr(source, "column_names"):
        require_columns(source, ["head", "relation", "tail"])
        source = zip(source["head"][:], source["relation"][:], source["tail"][:], strict=True)
    rows = [tuple(row) for row in source]
    for number, row in enumerate(rows):
        if len(row) != 3:
            raise ValueError(f"Line {number} has {len(row)} parts, not head, relation and tail with tabs between.")
    if not rows:
        raise ValueError("There is no triple.")
    return rows


def node_vectors(kg: KnowledgeGraph, source: Any, nodes: Sequence[str] | None = None) -> np.ndarray:
    """Vectors of nodes, those without one from their nearest relatives.

    Args:
        kg (`KnowledgeGraph`): For names, and for parents of nodes without a vector.
        source: A function from names to vectors with rows of NaN for the unknown
            ([`~hf_labels.data.offline_graphs.WordVectors`], or `encode` of a sentence encoder), a mapping from node
            ids, or an array `(len(kg), d)`.
        nodes (sequence of `str`, *optional*): Only these.

    Returns:
        `np.ndarray` of shape `(N, d)`, float64. A node without a vector gets the mean of its parents', or else of its
        children's, for as many rounds as it takes, with a warning; an isolated one gets zeros.

    Raises:
        ValueError: For an array of another length, infinite values, or no vector at all.
    """
    if isinstance(source, Mapping):
        size = len(next(iter(source.values())))
        vectors = np.array([source.get(node, np.full(size, np.nan)) for node in kg.nodes], dtype=np.float64)
    elif isinstance(source, Callable):  # type: ignore[arg-type]
        vectors = np.asarray(source(list(kg.names)), dtype=np.float64)
    else:
        vectors = np.array(source, dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) != len(kg):
        raise ValueError(f"There must be one vector for each of the {len(kg)} nodes, got shape {vectors.shape}.")
    if np.isinf(vectors).any():
        raise ValueError(f"The vector of {kg.nodes[int(np.isinf(vectors).any(1).argmax())]!r} is infinite.")
    missing = np.asarray(np.isnan(vectors).any(axis=1))
    if missing.all():
        raise ValueError("No node has a vector.")
    if missing.any():
        logger.warning("%d of %d nodes have no vector: they get the mean of their relatives'.", missing.sum(), len(kg))
        _fill(vectors, missing, kg.edges)
    return vectors if nodes is None else vectors[[kg.number(node) for node in nodes]]


def _fill(vectors: np.ndarray, missing: np.ndarray, edges: np.ndarray) -> None:
    vectors[missing] = 0.0
    for pairs in (edges, edges[:, ::-1]):
        while True:
            useful = pairs[missing[pairs[:, 0]] & ~missing[pairs[:, 1]]]
            if not len(useful):
                break
            sums, counts = np.zeros_like(vectors), np.bincount(useful[:, 0], minlength=len(vectors))
            np.add.at(sums, useful[:, 0], vectors[useful[:, 1]])
            rows = np.flatnonzero(counts)
            vectors[rows] = sums[rows] / counts[rows, None]
            missing[rows] = False
