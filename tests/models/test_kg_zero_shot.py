"""Propagation, embeddings and the classifier: oracles, properties, saving, new classes, bad input."""

import logging

import numpy as np
import pytest
import torch
from kg_toys import CLASSES, SEEN, examples, graph, vectors

from hf_labels.labels.kg_zero_shot import distance_groups
from hf_labels.metrics.functional import gzsl_scores
from hf_labels.models.kg_zero_shot import METHODS, KGZeroShotClassifier
from hf_labels.models.kg_zero_shot_embedding import KGEmbeddingConfig, KGEmbeddingModel
from hf_labels.models.kg_zero_shot_generate import fclswgan_features, gaussian_features, softmax_weights
from hf_labels.models.kg_zero_shot_propagation import DGPConfig, DGPModel

NODES = {name: name for name in CLASSES}
FAST = {"dgp": {"hidden_sizes": [16], "steps": 150}, "devise": {"steps": 300}, "gaussian": {"samples": 60}}
FAST["fclswgan"] = {"hidden_size": 32, "steps": 60, "samples": 30}


def classifier(method="ridge", **settings):
    x, y = examples()
    options = {"semantics": vectors(), "progress": False, **FAST.get(method, {}), **settings}
    return KGZeroShotClassifier.fit(x, y, kg=graph(), class_nodes=NODES, method=method, **options)


def test_output_has_unit_rows_and_permuting_nodes_permutes_it():
    kg = graph()
    x = np.random.default_rng(0).normal(size=(len(kg), 4))
    for variant in ("dgp", "sgcn", "gcn_dense", "gcnz"):
        torch.manual_seed(0)
        model = DGPModel.from_graph(kg.edges, x, 3, variant=variant, hidden_sizes=[5]).eval()
        out = model().weights
        assert torch.allclose(out.norm(dim=1), torch.ones(len(kg)), atol=1e-5)
        order = np.random.default_rng(1).permutation(len(kg))  # old number of each new node
        place = np.argsort(order)
        model.set_graph(torch.as_tensor(place[kg.edges]), model.node_features[order])
        assert torch.allclose(model().weights, out[order], atol=1e-5), variant


def test_even_attention_over_equal_matrices_is_sgcn():
    kg, x = graph(), np.random.default_rng(0).normal(size=(12, 4))
    loops = np.stack([np.arange(12)] * 2, 1)
    both = np.concatenate([kg.edges, kg.edges[:, ::-1], loops])
    one = DGPModel.from_graph(kg.edges, x, 3, variant="sgcn", hidden_sizes=[5], dropout=0.0)
    many = DGPModel.from_graph(kg.edges, x, 3, hidden_sizes=[5], dropout=0.0)
    many.layers.load_state_dict(one.layers.state_dict())
    many.set_groups([both] * 5)
    assert torch.allclose(one().weights, many().weights, atol=1e-6)
    with pytest.raises(ValueError, match="5 groups, got 2"):
        many.set_groups([both] * 2)


def test_only_seen_rows_enter_the_loss():
    kg, x = graph(), np.random.default_rng(0).normal(size=(12, 4))
    model = DGPModel.from_graph(kg.edges, x, 3, hidden_sizes=[5]).eval()
    targets, rows = torch.randn(2, 3), torch.tensor([3, 7])
    found = model(labels=targets, rows=rows)
    assert torch.isclose(found.loss, (found.weights[rows] - targets).square().sum() / 4)
    first = model(labels=targets)
    assert torch.isclose(first.loss, (first.weights[:2] - targets).square().sum() / 4)


def test_propagation_learns_and_comes_back(tmp_path):
    kg, known = graph(), vectors()
    model = DGPModel.from_graph(kg.edges, [known[node] for node in kg.nodes], 3, hidden_sizes=[16], dropout=0.0)
    losses = model.fit(np.eye(3), [0, 2, 6], steps=150, learning_rate=1e-2, weight_decay=0.0, progress=False)
    assert losses[-1] < 0.3 * losses[0]
    model.save_pretrained(tmp_path)
    again = DGPModel.from_pretrained(tmp_path)
    assert torch.equal(again.edges, model.edges)
    assert torch.allclose(again().weights, model().weights, atol=1e-6)
    assert len(distance_groups(again.edges.numpy(), 12)) == 5


@pytest.mark.parametrize("scoring", ["transe", "distmult", "complex"])
@pytest.mark.parametrize("norm", [1, 2])
def test_candidates_equal_scores_one_by_one(scoring, norm):
    torch.manual_seed(0)
    model = (
        KGEmbeddingModel(KGEmbeddingConfig(scoring=scoring, num_entities=5, num_relations=2, hidden_size=6, norm=norm))
        .double()
        .eval()
    )
    h, r = torch.tensor([0, 3]), torch.tensor([1, 0])
    for side in ("tail", "head"):
        table = model.candidates(h, r, side)
        for row in range(2):
            for other in range(5):
                ends = (h[row], torch.tensor(other)) if side == "tail" else (torch.tensor(other), h[row])
                one = model(ends[0][None], r[row][None], ends[1][None]).logits[0]
                assert torch.isclose(table[row, other], one)


def test_embeddings_learn_normalise_and_come_back(tmp_path):
    kg = graph()
    torch.manual_seed(0)
    model = KGEmbeddingModel.from_graph(kg, hidden_size=16)
    adam = torch.optim.Adam(model.parameters(), 0.05)
    h, r, t = torch.as_tensor(kg.triples).T
    for _ in range(150):
        neg = torch.randint(len(kg), (len(h), 4))
        loss = model(h, r, t, neg=neg, corrupt_head=torch.rand(neg.shape) < 0.5).loss
        adam.zero_grad()
        loss.backward()
        adam.step()
    model.normalize_entities()
    assert torch.allclose(model.entities().norm(dim=1), torch.ones(len(kg)), atol=1e-5)
    scores = model.evaluate_ranks(kg.triples, kg.triples)
    assert scores["mrr"] > 0.8
    assert (model.ranks(kg.triples, kg.triples) <= model.ranks(kg.triples)).all()
    model.save_pretrained(tmp_path)
    again = KGEmbeddingModel.from_pretrained(tmp_path)
    assert again.config.entities == list(kg.nodes) and again.evaluate_ranks(kg.triples, kg.triples) == scores


def test_entities_that_are_read_from_texts_can_be_new():
    kg, known = graph(), vectors()
    model = KGEmbeddingModel.from_graph(kg, np.stack([known[node] for node in kg.nodes]), hidden_size=8)
    model.add_entities(["puma"], known["lynx"][None])
    assert model.config.num_entities == 13
    table = model.candidates(torch.tensor([12, kg.number("lynx")]), torch.tensor([0, 0]), "tail")
    assert torch.allclose(table[0], table[1], atol=1e-5)
    with pytest.raises(ValueError, match="shape"):
        model.add_entities(["x"], np.ones((1, 3)))
    with pytest.raises(ValueError, match="learned vectors"):
        KGEmbeddingModel.from_graph(kg).add_entities(["x"], np.ones((1, 3)))


@pytest.mark.parametrize("method", METHODS)
def test_unseen_classes_are_told_apart_saved_and_loaded(method, tmp_path):
    model = classifier(method)
    x, y = examples(CLASSES, seed=5)
    found = gzsl_scores(model.predict(x, ["lynx", "bike"]), y, SEEN)
    new = [name in ("lynx", "bike") for name in y]
    right = np.mean([a == b for a, b in zip(model.predict(x[new], "unseen"), np.array(y)[new], strict=True)])
    assert right > 0.75, method
    assert model.names == list(CLASSES) and model.seen.tolist() == [name in SEEN for name in CLASSES]
    assert found["unseen"] == right
    model.save_pretrained(tmp_path)
    again = KGZeroShotClassifier.from_pretrained(tmp_path)
    np.testing.assert_allclose(again.scores(x), model.scores(x), atol=1e-5)
    logits = again(features=torch.as_tensor(x, dtype=torch.float32)).logits
    np.testing.assert_allclose(logits.detach().numpy(), model.scores(x), atol=1e-5)


def test_calibration_moves_predictions_to_unseen_classes_and_is_tuned():
    model = classifier()
    x, y = examples(CLASSES, seed=6)
    counts = [np.isin(model.predict(x, calibrate=value), SEEN).sum() for value in (-9.0, 0.0, 9.0)]
    assert counts[0] == len(x) and counts[2] == 0 and counts[0] >= counts[1] >= counts[2]
    curve = model.tune_calibration(x, y)
    best = gzsl_scores(model.predict(x), y, SEEN)["harmonic_mean"]
    assert model.config.calibration == curve["best"] and abs(best - curve["harmonic_mean"]) < 1e-9
    assert best >= gzsl_scores(model.predict(x, calibrate=0.0), y, SEEN)["harmonic_mean"]
    logits = model(features=torch.as_tensor(x, dtype=torch.float32), return_dict=False)[0]
    assert [model.names[i] for i in logits.argmax(1).tolist()] == model.predict(x)


def test_a_few_examples_move_prototypes():
    model = classifier()
    before = model.class_weight.detach().clone()
    x, y = examples(("bike",), count=4, seed=8)
    model.add_shots(x, y, kappa=2.0)
    moved = (model.class_weight - before).abs().sum(1) > 1e-6
    assert [name for name, far in zip(CLASSES, moved.tolist(), strict=True) if far] == ["bike"]
    assert torch.isclose(model.class_weight[CLASSES.index("bike")].norm(), torch.tensor(1.0))
    with pytest.raises(ValueError, match="'cat' at row 0"):
        model.add_shots(x[:1], ["cat"])
    with pytest.raises(ValueError, match="has none"):
        classifier("eszsl").add_shots(x, y)


@pytest.mark.parametrize("method", ["ridge", "ridge_forward", "eszsl", "devise", "dgp"])
def test_new_classes_get_rows_from_vectors_or_parents(method, tmp_path):
    model = classifier(method)
    x, _ = examples(("lynx",), count=3, seed=2)
    old = model.scores(x)
    model.add_classes(["truck"], parents=[["vehicle" if method == "dgp" else "car"]])
    if method != "dgp":
        model.add_classes(["puma"], vectors=vectors()["lynx"][None])
        scores = model.scores(x)
        np.testing.assert_allclose(scores[:, model.names.index("puma")], scores[:, CLASSES.index("lynx")], atol=1e-4)
    np.testing.assert_allclose(model.scores(x)[:, : len(CLASSES)], old, atol=1e-5)
    assert not model.seen[model.names.index("truck")]
    model.save_pretrained(tmp_path)
    again = KGZeroShotClassifier.from_pretrained(tmp_path)
    assert again.names == model.names
    np.testing.assert_allclose(again.scores(x), model.scores(x), atol=1e-5)


def test_gaussian_features_have_the_predicted_mean_and_the_pooled_spread():
    rng = np.random.default_rng(0)
    s, table, root = rng.normal(size=(20, 3)), rng.normal(size=(3, 4)), rng.normal(size=(4, 4))
    y = np.repeat(np.arange(20), 100)
    x = s[y] @ table + rng.normal(size=(2000, 4)) @ root
    new = rng.normal(size=(2, 3))
    drawn, which = gaussian_features(x, y, s, new, 4000, strength=1e-3)
    np.testing.assert_allclose(drawn[which == 1].mean(0), new[1] @ table, atol=0.6)
    np.testing.assert_allclose(np.cov(drawn[which == 0].T), root.T @ root, atol=0.15 * np.abs(root.T @ root).max())
    again, _ = gaussian_features(x, y, s, new, 4000, strength=1e-3)
    assert np.array_equal(drawn, again)


def test_the_generator_stays_in_the_range_of_the_features_and_repeats():
    x, y = examples()
    s = np.stack([vectors()[name] for name in SEEN])
    numbers = np.array([SEEN.index(name) for name in y])
    made = [
        fclswgan_features(x, numbers, s, s[:2], 5, hidden_size=16, steps=5, progress=False, seed=seed)[0]
        for seed in (0, 0, 1)
    ]
    assert made[0].shape == (10, x.shape[1]) and (made[0] >= x.min(0) - 1e-9).all()  # the last layer is a ReLU
    assert np.array_equal(made[0], made[1]) and not np.array_equal(made[0], made[2])


def test_softmax_weights_of_two_classes_are_symmetric():
    x, y = np.array([[1.0], [2], [-1], [-2]]), np.array([1, 1, 3, 3])
    weight, bias = softmax_weights(x, y, 4)
    assert weight[1, 0] == -weight[3, 0] > 0 and not weight[[0, 2]].any() and bias[0] == 0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"class_nodes": {"cat": "katze"}}, "no node 'katze'"),
        ({"class_nodes": {"cat": "cat", "kitten": "cat"}}, "Two classes have the node 'cat'"),
        ({"unseen": ["dog"]}, "is of the class 'dog', which is in `unseen`"),
        ({"labels": ["cat"] * 60}, "At least two classes"),
        ({"labels": ["unicorn"] * 60}, "'unicorn' at row 0 is not in `class_nodes`"),
        ({"labels": ["cat", "dog"]}, "60 inputs for 2 labels"),
        ({"inputs": np.full((60, 10), np.nan)}, "Row 0 of `inputs` holds NaN"),
        ({"strength": 0.0}, "above 0"),
        ({"semantics": "word2vec"}, "'word2vec'"),
        ({"semantics": "text"}, "give `encoder`"),
        ({"semantics": np.ones((12, 3))}, "mapping from node to vector"),
        ({"method": "maml"}, "`method` must be one of"),
    ],
)
def test_bad_input_is_named(change, match):
    x, y = examples()
    given = {"inputs": x, "labels": y, "kg": graph(), "class_nodes": NODES, "semantics": vectors(), **change}
    with pytest.raises(Exception, match=match) as caught:
        KGZeroShotClassifier.fit(given.pop("inputs"), given.pop("labels"), **given)
    assert isinstance(caught.value, ValueError) or "Strict" in type(caught.value).__name__


def test_bad_predictions_and_new_classes_are_named(caplog):
    model = classifier()
    x, _ = examples(("cat",), count=2)
    for act, match in (
        (lambda: model.predict(x, ["zebra"]), "'zebra' is not a class"),
        (lambda: model.predict(x, []), "no candidate"),
        (lambda: model.predict(np.ones((2, 3))), "shape"),
        (lambda: model(), "exactly one"),
        (lambda: model.add_classes(["cat"], vectors()["cat"][None]), "there already"),
        (lambda: model.add_classes(["truck"]), "neither a vector nor parents"),
        (lambda: model.add_classes(["truck"], parents=[["zebra"]]), "unknown parent 'zebra'"),
        (lambda: classifier("gaussian").add_classes(["truck"], parents=[["car"]]), "fit again"),
        (lambda: DGPConfig(variant="gat"), "variant"),
        (lambda: KGEmbeddingConfig(scoring="rescal"), "scoring"),
        (lambda: KGEmbeddingConfig(scoring="complex", hidden_size=5), "even"),
        (lambda: KGEmbeddingModel(KGEmbeddingConfig()).ranks(np.empty((0, 3))), "no test triple"),
        (lambda: KGEmbeddingModel(KGEmbeddingConfig()).ranks([[0, 0, 7]]), "Triple 0 names an entity"),
    ):
        with pytest.raises(Exception, match=match):
            act()
    with caplog.at_level(logging.WARNING):
        known = {name: value for name, value in vectors().items() if name != "bike"}
        classifier(semantics=known)
    assert "1 of 12 nodes have no vector" in caplog.text
