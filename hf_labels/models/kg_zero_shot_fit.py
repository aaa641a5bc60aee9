"""How the classes of a [`KGZeroShotClassifier`] are computed, one function for each paradigm."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch

from hf_labels.data.encoders import TextEncoder, make_encoder
from hf_labels.data.features import FeatureCache
from hf_labels.data.kg_zero_shot import KnowledgeGraph, node_vectors
from hf_labels.labels.kg_zero_shot import check_matrix, class_means, eszsl_map, ridge_map, unit_rows
from hf_labels.losses.kg_zero_shot import devise_loss
from hf_labels.models.kg_zero_shot import KGZeroShotClassifier, KGZeroShotConfig
from hf_labels.models.kg_zero_shot_generate import fclswgan_features, gaussian_features, softmax_weights
from hf_labels.models.kg_zero_shot_propagation import DGPModel

logger = logging.getLogger(__name__)


def fit_classifier(
    inputs: Any,
    labels: Sequence[Any],
    *,
    kg: KnowledgeGraph,
    class_nodes: Mapping[str, str] | Sequence[str],
    semantics: Any = "glove",
    method: str = "ridge",
    unseen: Sequence[str] | None = None,
    encoder: Any = None,
    tokenizer: Any = None,
    strength: float = 1.0,
    gamma: float = 1.0,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> KGZeroShotClassifier:
    """Fit a [`KGZeroShotClassifier`].

    Args:
        inputs: Features `(N, D)` (any encoder, texts or images), or N texts with `encoder`.
        labels (N names): Classes of the examples; these classes are the seen ones.
        kg ([`~hf_labels.data.kg_zero_shot.KnowledgeGraph`]): Holds all classes.
        class_nodes (mapping of names to nodes, or names): All classes. Names alone are looked up, in WordNet as the
            most frequent sense.
        semantics (*optional*, defaults to `"glove"`): Vectors of the nodes: `"glove"` (of their names), `"text"`
            (their definitions by the encoder), or as in [`~hf_labels.data.kg_zero_shot.node_vectors`].
        method (`str`, *optional*, defaults to `"ridge"`): See [`KGZeroShotConfig`].
        unseen (names, *optional*): Checks that no example has one of these.
        encoder, tokenizer (*optional*): As in [`~hf_labels.data.encoders.make_encoder`]; features are cached.
        strength, gamma (`float`, *optional*, defaults to 1.0): Ridge terms, above 0.
        seed (`int`, *optional*), progress (`bool`, *optional*): Of what is trained.
        options: Of the method: `steps` and `margin` (`"devise"`), settings of [`DGPConfig`] and of `DGPModel.fit`
            (`"dgp"`), `samples`, `generalized` and settings of
            [`~hf_labels.models.kg_zero_shot_generate.fclswgan_features`] (`"gaussian"`, `"fclswgan"`).

    Returns:
        `KGZeroShotClassifier`: With all classes, in the order of `class_nodes`.

    Raises:
        ValueError: If a node is not in the graph (lists the nearest), an example has an unseen class or one that is
            not listed, fewer than two classes have examples, features are not finite, or a ridge term is not above 0.
    """
    names, nodes = _classes(kg, class_nodes)
    numbers = _numbers(labels, names, unseen)
    frozen = None if encoder is None else make_encoder(encoder, tokenizer)
    if frozen is not None:
        inputs = FeatureCache(frozen.key()).get(list(inputs), frozen.encode, desc="Features")["features"]
    features = check_matrix(inputs, "inputs")
    if len(features) != len(numbers):
        raise ValueError(f"There are {len(features)} inputs for {len(numbers)} labels.")
    part = kg.with_ancestors(nodes)
    every = unit_rows(_vectors(part, semantics, frozen))
    seen = np.unique(numbers)
    base = every[seen].mean(0)
    config = KGZeroShotConfig(
        method=method,
        hidden_size=features.shape[1],
        semantic_size=every.shape[1],
        seen=[names[number] for number in seen],
        nodes=nodes,
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
        **_of_encoder(frozen),
    )
    center = class_means(features, numbers, len(names))[seen].mean(0)
    run = _Run(
        unit_rows(features - center), numbers, seen, every[: len(nodes)] - base, strength, gamma, seed, progress
    )
    found = _BUILDERS[method](run, part, every, config, options)
    model = KGZeroShotClassifier(config)
    found |= {"center": center, "semantics": every[: len(nodes)], "semantic_center": base}
    propagation = found.pop("propagation", None)
    for name, values in found.items():
        getattr(model, name).data = torch.as_tensor(values, dtype=torch.float32)
    if propagation is not None:
        model.propagation = propagation
    model._encoder = frozen
    return cast(KGZeroShotClassifier, model.eval())


class _Run:
    """Unit features of the seen classes, and the classes' semantics relative to the mean of the seen ones."""

    def __init__(self, x: Any, y: Any, seen: Any, semantics: Any, *rest: Any):
        self.x, self.y, self.seen = x, y, seen
        self.semantics = unit_rows(semantics)
        self.strength, self.gamma, self.seed, self.progress = rest
        self.place = np.full(len(semantics), -1)
        self.place[seen] = np.arange(len(seen))
        self.own = self.place[y]  # class numbers among the seen ones
        self.unseen = np.flatnonzero(self.place < 0)


def _ridge(run: _Run, *_: Any) -> dict[str, Any]:
    means = unit_rows(class_means(run.x, run.own, len(run.seen)))
    table = ridge_map(run.semantics[run.seen], means, run.strength)
    return {"map": table, "class_weight": unit_rows(run.semantics @ table), "class_bias": np.zeros(len(run.semantics))}


def _mapped(run: _Run, table: np.ndarray) -> dict[str, Any]:
    return {"map": table, "class_weight": run.semantics, "class_bias": np.zeros(len(run.semantics))}


def _forward(run: _Run, *_: Any) -> dict[str, Any]:
    return _mapped(run, ridge_map(run.x, run.semantics[run.y], run.strength))


def _eszsl(run: _Run, *_: Any) -> dict[str, Any]:
    return _mapped(run, eszsl_map(run.x, run.own, run.semantics[run.seen], run.gamma, run.strength))


def _devise(run: _Run, part: Any, every: Any, config: Any, options: dict[str, Any]) -> dict[str, Any]:
    steps, margin = options.pop("steps", 500), options.pop("margin", 0.1)
    rate = options.pop("learning_rate", 1e-2)
    _none_left(options)
    x, s = (torch.as_tensor(one, dtype=torch.float32) for one in (run.x, run.semantics[run.seen]))
    y = torch.as_tensor(run.own)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        linear = torch.nn.Linear(x.shape[1], s.shape[1], bias=False)
        adam = torch.optim.Adam(linear.parameters(), rate)
        for _ in range(steps):
            rows = torch.randint(len(x), (min(128, len(x)),))
            loss = devise_loss(linear(x[rows]), s, y[rows], margin)
            adam.zero_grad()
            loss.backward()
            adam.step()
    return _mapped(run, linear.weight.detach().double().numpy().T)


def _dgp(run: _Run, part: KnowledgeGraph, every: Any, config: Any, options: dict[str, Any]) -> dict[str, Any]:
    training = {name: options.pop(name) for name in ("steps", "learning_rate", "weight_decay") if name in options}
    targets, bias = softmax_weights(run.x, run.own, len(run.seen), strength=10.0)
    goal = unit_rows(targets - targets.mean(0))  # softmax weights are the same up to a common part
    torch.manual_seed(run.seed)
    model = DGPModel.from_graph(part.edges, every, run.x.shape[1], **options)
    model.fit(goal, run.seen, seed=run.seed, progress=run.progress, **training)
    config.graph_nodes, config.propagation = list(part.nodes), model.config.to_diff_dict()
    with torch.no_grad():
        weights = model().weights[: len(run.semantics)].double().numpy()
    size = (config.semantic_size, config.hidden_size)
    return {"class_weight": weights, "class_bias": np.zeros(len(weights)), "map": np.zeros(size), "propagation": model}


def _generated(draw: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    def build(run: _Run, part: Any, every: Any, config: Any, options: dict[str, Any]) -> dict[str, Any]:
        samples, both = options.pop("samples", 300), options.pop("generalized", True)
        if draw is fclswgan_features:
            options.setdefault("progress", run.progress)
        else:
            options.setdefault("strength", run.strength)
        s = run.semantics
        fake, which = draw(run.x, run.own, s[run.seen], s[run.unseen], samples, seed=run.seed, **options)
        x, y = unit_rows(fake), run.unseen[which]
        if both:
            x, y = np.concatenate([run.x, x]), np.concatenate([run.y, y])
        weight, bias = softmax_weights(x, y, len(s), strength=10.0)
        size = (config.semantic_size, config.hidden_size)
        return {"class_weight": weight, "class_bias": bias, "map": np.zeros(size)}

    return build


_BUILDERS: dict[str, Callable[..., dict[str, Any]]] = {
    "ridge": _ridge,
    "ridge_forward": _forward,
    "eszsl": _eszsl,
    "devise": _devise,
    "dgp": _dgp,
    "gaussian": _generated(gaussian_features),
    "fclswgan": _generated(fclswgan_features),
}


def _none_left(options: dict[str, Any]) -> None:
    if options:
        raise TypeError(f"Unknown setting {next(iter(options))!r} for this method.")


def _classes(kg: KnowledgeGraph, class_nodes: Any) -> tuple[list[str], list[str]]:
    if not isinstance(class_nodes, Mapping):
        class_nodes = {name: kg.find(name) for name in class_nodes}
    names, nodes = [str(name) for name in class_nodes], list(class_nodes.values())
    for node in nodes:
        kg.number(node)
    if len(set(nodes)) < len(nodes):
        twice = next(node for node in nodes if nodes.count(node) > 1)
        raise ValueError(f"Two classes have the node {twice!r}; their predictions could not differ.")
    return names, nodes


def _numbers(labels: Sequence[Any], names: list[str], unseen: Sequence[str] | None) -> np.ndarray:
    place = {name: number for number, name in enumerate(names)}
    hidden = {str(name) for name in unseen or ()}
    given = [str(label) for label in labels]
    for row, label in enumerate(given):
        if label not in place:
            raise ValueError(f"Label {label!r} at row {row} is not in `class_nodes`: {', '.join(names[:20])}.")
        if label in hidden:
            raise ValueError(f"Row {row} is of the class {label!r}, which is in `unseen`. Leave such rows out.")
    if len(set(given)) < 2:
        raise ValueError(f"At least two classes must have examples, got {len(set(given))}.")
    return np.array([place[label] for label in given])


def _vectors(part: KnowledgeGraph, semantics: Any, frozen: Any) -> np.ndarray:
    if isinstance(semantics, str) and semantics == "glove":
        from hf_labels.data.offline_graphs import load_glove

        return node_vectors(part, load_glove())
    if isinstance(semantics, str) and semantics == "text":
        if frozen is None:
            raise ValueError("`semantics='text'` reads definitions with the encoder: give `encoder`.")
        return np.asarray(frozen.encode([f"{n}: {t}" for n, t in zip(part.names, part.texts, strict=True)]), float)
    if isinstance(semantics, str):
        raise ValueError(f"`semantics` must be 'glove', 'text', vectors or a function, got {semantics!r}.")
    if isinstance(semantics, np.ndarray):
        raise ValueError(
            "Give an array of vectors as a mapping from node to vector: the graph is cut to what is used."
        )
    return node_vectors(part, semantics)


def _of_encoder(frozen: Any) -> dict[str, Any]:
    if frozen is None:
        return {}
    return {
        "backbone": frozen.model_id,
        "backbone_revision": frozen.revision,
        "backbone_fingerprint": frozen.key()["model"] if isinstance(frozen, TextEncoder) else None,
        "text_pooling": frozen.pooling,
        "template": frozen.template,
    }


def extend_classifier(model: KGZeroShotClassifier, names: list[str], vectors: Any, parents: list[list[str]]) -> None:
    """Add unseen classes to a fitted classifier; see `KGZeroShotClassifier.add_classes`."""
    config = model.config
    if config.method in ("gaussian", "fclswgan"):
        raise ValueError(f"{config.method!r} trains a classifier over its classes: fit again with the new ones.")
    there = [name for name in names if name in model.names or names.count(name) > 1]
    if there:
        raise ValueError(f"The class {there[0]!r} is there already, or comes twice.")
    known = list(config.graph_nodes or config.nodes or [])
    by_class = dict(zip(model.names, config.nodes or model.names, strict=True))
    rows: list[list[int]] = []
    for number, name in enumerate(names):
        above = [by_class.get(one, one) for one in (parents[number] if parents else ())]
        strange = [one for one in above if one not in known]
        if strange or (vectors is None and not above):
            told = f"has the unknown parent {strange[0]!r}" if strange else "has neither a vector nor parents"
            raise ValueError(f"The new class {name!r} {told}.")
        rows.append([known.index(one) for one in above])
    old = model.propagation.node_features if model.propagation is not None else model.semantics
    if vectors is None:
        new = torch.stack([old[above].mean(0) for above in rows])
    else:
        new = torch.as_tensor(check_matrix(vectors, "vectors", config.semantic_size)).to(old)
    new = torch.nn.functional.normalize(new)
    _append(model, names, new, rows)


def _append(model: KGZeroShotClassifier, names: list[str], new: torch.Tensor, rows: list[list[int]]) -> None:
    config, added = model.config, len(names)
    if model.propagation is not None:
        graph, first = model.propagation, len(model.propagation.node_features)
        edges = torch.tensor([(first + i, above) for i, row in enumerate(rows) for above in row], dtype=torch.int64)
        pairs = torch.cat([graph.edges.cpu(), edges.reshape(-1, 2)])
        graph.set_graph(pairs, torch.cat([graph.node_features, new]))
        config.graph_nodes = [*(config.graph_nodes or []), *names]
        weights = graph().weights[-added:]
    else:
        relative = torch.nn.functional.normalize(new - model.semantic_center)
        weights = relative if config.mapped else torch.nn.functional.normalize(relative @ model.map)
    model.semantics = torch.cat([model.semantics, new])
    model.class_weight.data = torch.cat([model.class_weight, weights])
    model.class_bias.data = torch.cat([model.class_bias, model.class_bias.new_zeros(added)])
    every = [*model.names, *names]
    config.nodes = [*(config.nodes or []), *names]
    config.id2label = dict(enumerate(every))
    config.label2id = {name: number for number, name in enumerate(every)}
    config.num_labels = len(every)
