"""Crowd aggregation: properties of every method, layouts of the data, bad input, mixtures, data sets."""

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, List, Value
from torch.nn import functional as F

from hf_labels.data.corrupt import simulated_annotators
from hf_labels.labels import crowd_votes as votes
from hf_labels.labels.crowd import CrowdAnnotations, read_annotations
from hf_labels.labels.crowd_dawid_skene import dawid_skene
from hf_labels.labels.crowd_glad import glad
from hf_labels.labels.crowd_mace import mace
from hf_labels.labels.crowd_soft_labels import AVERAGED, METHODS, aggregate_annotations
from hf_labels.losses.crowd_soft_labels import multi_task_loss, soft_label_loss
from hf_labels.metrics.functional import calibrated_scores, calibration_scores

TRUTH = np.random.default_rng(0).integers(3, size=60)
WIDE = simulated_annotators(TRUTH, num_labels=3, seed=0, accuracies=[0.9, 0.85, 0.7, 0.6, 0.5, 0.4, 0.8], answers=5)
ITEM, WORKER = np.nonzero(WIDE >= 0)
LABEL = WIDE[ITEM, WORKER]
DATA = CrowdAnnotations.from_arrays(ITEM, WORKER, LABEL)
SINGLE = [name for name in METHODS if name not in ("average", "conflation", "js_centroid")]


@pytest.mark.parametrize("method", METHODS)
def test_rows_sum_to_one_and_order_does_not_matter(method):
    found = aggregate_annotations(DATA, method)
    np.testing.assert_allclose(found.soft.sum(1), 1)
    assert (found.soft >= 0).all() and found.soft.shape == (60, 3)
    assert (found.labels == TRUTH).mean() > 0.8
    order = np.random.default_rng(1).permutation(len(DATA))
    moved = CrowdAnnotations.from_arrays(ITEM[order], WORKER[order], LABEL[order])
    np.testing.assert_allclose(aggregate_annotations(moved, method).soft, found.soft, atol=1e-7)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "majority"])
def test_names_of_workers_and_labels_do_not_matter(method):
    options = {"mace": {"n_restarts": 2}, "glad": {"n_iter": 20, "stop": "bound", "m_step_tol": 1e-8}}
    options["glad"] |= {"m_step_max_iter": 500, "method": "L-BFGS-B"}
    counts = np.sort(DATA.counts(), axis=1)
    clear = np.flatnonzero(counts[:, -1] > counts[:, -2])  # ties go to the smallest id
    keep = np.isin(ITEM, clear)
    item, worker, label = np.searchsorted(clear, ITEM[keep]), WORKER[keep], LABEL[keep]
    found = aggregate_annotations(CrowdAnnotations.from_arrays(item, worker, label), method, options=options).soft
    workers, labels = np.random.default_rng(2).permutation(7), np.array([2, 0, 1])
    other = CrowdAnnotations.from_arrays(item, workers[worker], labels[label])
    moved = aggregate_annotations(other, method, options=options).soft
    loose = method in ("mace", "average", "conflation", "js_centroid")  # MACE starts at random
    np.testing.assert_allclose(moved[:, labels], found, atol=2e-2 if loose else 1e-5)


def test_one_annotation_per_item():
    once = CrowdAnnotations.from_arrays(np.arange(9), np.arange(9) % 3, np.arange(9) % 2)
    assert (votes.normalized_votes(once) == np.eye(2)[np.arange(9) % 2]).all()
    assert (votes.majority_vote(once)[0] == np.arange(9) % 2).all()
    for method in SINGLE:
        np.testing.assert_allclose(aggregate_annotations(once, method).soft.sum(1), 1)


def test_dawid_skene_bound_never_falls_and_start():
    found = dawid_skene(DATA, n_iter=40, tol=None)
    assert len(found.history) == 40
    start = dawid_skene(DATA, n_iter=0)
    np.testing.assert_allclose(start.soft, votes.normalized_votes(DATA))

    def log_likelihood(n_iter):
        one = dawid_skene(DATA, n_iter, tol=None)
        evidence = np.tile(np.log(one.priors), (60, 1))
        for t, w, said in zip(ITEM, WORKER, LABEL, strict=True):
            evidence[t] += np.log(np.maximum(one.errors[w, said], 1e-300))
        return np.logaddexp.reduce(evidence, axis=1).sum()

    values = [log_likelihood(n) for n in range(1, 12)]
    assert (np.diff(values) > -1e-9).all()
    np.testing.assert_allclose(found.errors.sum(1), 1)
    assert np.corrcoef(found.skill, [0.9, 0.85, 0.7, 0.6, 0.5, 0.4, 0.8])[0, 1] > 0.8


def test_known_labels_stay_and_input_is_kept():
    before = DATA.label.copy()
    wrong = {0: int((TRUTH[0] + 1) % 3), 5: int(TRUTH[5])}
    found = dawid_skene(DATA, true_labels=wrong)
    assert (found.soft[0] == np.eye(3)[wrong[0]]).all() and (found.soft[5] == np.eye(3)[TRUTH[5]]).all()
    assert (DATA.label == before).all()


def test_glad_bound_never_falls_and_bad_workers_are_seen():
    found = glad(DATA, stop="bound", m_step_max_iter=500, m_step_tol=1e-8, method="L-BFGS-B", n_iter=15, tol=-1)
    assert (np.diff(found.history) > -1e-7).all() and len(found.history) == 15
    assert found.skill[0] > found.skill[5]
    assert len(glad(DATA, n_iter=3, stop="none").history) == 3


def test_mace_restarts_differ_and_the_best_is_kept():
    one = mace(DATA, n_restarts=1, seed=0)
    many = mace(DATA, n_restarts=6, seed=0)
    assert many.log_likelihood >= one.log_likelihood
    assert mace(DATA, "em", n_restarts=2).skill[0] > mace(DATA, "em", n_restarts=2).skill[5]
    again = mace(DATA, n_restarts=6, seed=0)
    np.testing.assert_array_equal(again.soft, many.soft)


def test_many_annotations_per_item_do_not_underflow():
    item, label = np.repeat([0, 1], 4000), np.r_[np.zeros(3000), np.ones(1000), np.ones(4000)].astype(int)
    many = CrowdAnnotations.from_arrays(item, np.tile(np.arange(2000), 4), label)
    for method in ("ds", "glad", "mace"):
        found = aggregate_annotations(many, method, options={"mace": {"n_restarts": 1}})
        assert np.isfinite(found.soft).all() and found.labels.tolist() == [0, 1], method


def test_workers_without_skill_fall_back_to_votes():
    data = CrowdAnnotations.from_arrays([0, 0, 1, 1], [0, 1, 2, 3], [0, 1, 0, 0])
    soft = votes.weighted_votes(data, np.zeros(4))
    assert soft.tolist() == [[0.5, 0.5], [1.0, 0.0]]


def test_mixtures():
    stack = np.stack([aggregate_annotations(DATA, name).soft for name in AVERAGED])
    found = aggregate_annotations(DATA, "average")
    np.testing.assert_allclose(found.soft, stack.mean(0))
    assert list(found.parts) == list(AVERAGED) and found.confusion.shape == (7, 3, 3)
    same = np.stack([stack[2]] * 3)
    np.testing.assert_allclose(votes.average(same), stack[2])
    np.testing.assert_allclose(votes.jensen_shannon_centroid(same), stack[2], atol=1e-7)
    centre = votes.jensen_shannon_centroid(stack[[0, 5]])
    low, high = stack[[0, 5]].min(0), stack[[0, 5]].max(0)
    assert (centre >= low - 1e-6).all() and (centre <= high + 1e-6).all()
    both = votes.conflation([[[0.5, 0.5], [1, 0]], [[0.2, 0.8], [0, 1]]])
    np.testing.assert_allclose(both, [[0.2, 0.8], [0.5, 0.5]])
    weighted = aggregate_annotations(DATA, "average", methods=("ds", "wawa"), weights=[3, 1])
    np.testing.assert_allclose(weighted.soft, 0.75 * weighted.parts["ds"] + 0.25 * weighted.parts["wawa"])


def test_layouts_agree():
    names = ["cat", "dog", "eel"]
    want = aggregate_annotations(DATA, "ds").soft
    long = {
        "task": [f"t{i:02d}" for i in ITEM],
        "worker": [f"w{w}" for w in WORKER],
        "label": [names[k] for k in LABEL],
    }
    for table in (long, Dataset.from_dict(long), pd.DataFrame(long)):
        found = aggregate_annotations(table, "ds")
        np.testing.assert_allclose(found.soft, want)
        assert found.data.names == tuple(names) and found.data.workers[0] == "w0"
    feature = List(ClassLabel(names=names))
    wide = Dataset.from_dict({"label": WIDE.tolist()})
    np.testing.assert_allclose(aggregate_annotations(wide, "ds").soft, want)
    lists = {"label": [LABEL[ITEM == t].tolist() for t in range(60)]}
    lists |= {"worker": [WORKER[ITEM == t].tolist() for t in range(60)]}
    ragged = Dataset.from_dict(lists).cast_column("label", feature)
    found = aggregate_annotations(ragged, "ds")
    np.testing.assert_allclose(found.soft, want)
    assert found.data.names == tuple(names)
    assert read_annotations(DATA) is DATA


def test_repeated_annotations_and_missing_labels():
    table = {"task": [0, 0, 0, 1, 1], "worker": [0, 0, 1, 0, 1], "label": [1.0, 1.0, 0.0, np.nan, 1.0]}
    found = aggregate_annotations(table, "normalized", num_labels=2)
    np.testing.assert_allclose(found.soft, [[1 / 3, 2 / 3], [0, 1]])
    assert found.num_annotations.tolist() == [3, 1]


def test_to_dataset_and_skills(tmp_path):
    table = {"task": ["b", "b", "a", "a"], "worker": ["x", "y", "x", "y"], "label": ["no", "yes", "yes", "yes"]}
    found = aggregate_annotations(table, "wawa")
    texts = Dataset.from_dict({"id": ["a", "b", "a"], "text": ["A", "B", "A again"]})
    data = found.to_dataset(texts, "id")
    assert data.column_names == ["id", "text", "soft_labels", "labels", "num_annotations"]
    assert data.features["labels"].names == ["no", "yes"]
    assert data.features["soft_labels"] == List(Value("float32"), length=2)
    assert data["labels"][:] == [1, 0, 1] and data["num_annotations"][:] == [2, 2, 2]
    assert found.to_dataset()["item"][:] == ["a", "b"]
    assert found.skills() == {"x": 1.0, "y": 0.5}
    assert '"x": 1.0' in found.save_skills(tmp_path / "skills" / "s.json").read_text()
    with pytest.raises(ValueError, match="2 items. Pass `item_column`"):
        found.to_dataset(texts)
    with pytest.raises(ValueError, match="'c' at row 0"):
        found.to_dataset(Dataset.from_dict({"id": ["c"]}), "id")
    with pytest.raises(ValueError, match="does not rate workers"):
        aggregate_annotations(table, "softmax").skills()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"method": "magic"}, ValueError, "'magic' is unknown"),
        ({"methods": ("average",), "method": "conflation"}, ValueError, "'average' is unknown"),
        ({"on_empty": "magic"}, ValueError, "'error' or 'uniform'"),
        ({"item_column": "row"}, KeyError, "`row`"),
        ({"label": [0, 0, 0, 0], "num_labels": None}, ValueError, "`num_labels` is 1"),
        ({"label": [0, 1, -2, 0]}, ValueError, "-2 at row 2"),
        ({"label": [0, 1, 5, 0], "num_labels": 3}, ValueError, r"`label` must be in \[0, 3\), got 5"),
        ({"label": [0, 1, None, None]}, ValueError, "1 items have no label in column `label`: 1"),
        ({"worker": ["a", None, "a", "b"]}, ValueError, "`worker` is empty at row 1"),
        ({"weights": [1, -1], "methods": ("ds", "wawa"), "method": "average"}, ValueError, "at least 0"),
        ({"options": {"glad": {"stop": "magic"}}, "method": "glad"}, ValueError, "'magic', expected one of"),
        ({"options": {"mace": {"method": "magic"}}, "method": "mace"}, ValueError, "'vb' or 'em'"),
        ({"options": {"mace": {"n_restarts": 0}}, "method": "mace"}, ValueError, "at least 1"),
    ],
)
def test_bad_input_is_named(change, error, message):
    table = {"task": [0, 0, 1, 1], "worker": ["a", "b", "a", "b"], "label": [0, 1, 1, 0]}
    columns = {name: change.pop(name) for name in list(change) if name in table}
    with pytest.raises(error, match=message):
        aggregate_annotations(table | columns, **{"method": "normalized"} | change)


def test_items_without_annotations():
    wide = {"label": [[0, 1], [-1, -1], [1, 1]]}
    with pytest.raises(ValueError, match=r"1 items have no annotation \(1\)"):
        aggregate_annotations(wide, "average")
    for method in METHODS:
        assert aggregate_annotations(wide, method, on_empty="uniform").soft[1].tolist() == [0.5, 0.5], method
    with pytest.raises(ValueError, match="differ in length"):
        aggregate_annotations({"label": [[0, 1], [0]]})
    with pytest.raises(ValueError, match="equal lengths"):
        aggregate_annotations({"label": [[0, 1], [0]], "worker": [[0, 1], [0, 1]]})
    with pytest.raises(ValueError, match="no annotation"):
        CrowdAnnotations.from_arrays([], [], [], 1, 1, 2)
    with pytest.raises(ValueError, match=r"must be \(N,\)"):
        CrowdAnnotations(np.zeros(2, int), np.zeros(2, int), np.zeros(3, int), 1, 1, 2)


def test_losses():
    torch.manual_seed(0)
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    probs = logits.detach().softmax(-1)
    assert soft_label_loss(logits, probs).item() == pytest.approx(0, abs=1e-12)
    hard = torch.eye(3, dtype=torch.float64)[torch.tensor([0, 1, 2, 0, 1, 2])]
    assert soft_label_loss(logits, hard).item() == pytest.approx(F.cross_entropy(logits, hard.argmax(1)).item())
    target = torch.rand(6, 3, dtype=torch.float64)
    target /= target.sum(1, keepdim=True)
    soft_label_loss(logits, target).backward()
    torch.testing.assert_close(logits.grad, (probs - target) / 6)
    one = multi_task_loss(logits, logits, hard.argmax(1), hard)
    assert one.item() == pytest.approx(2 * F.cross_entropy(logits, hard.argmax(1)).item())


def test_calibrated_scores_repair_confidence():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=400)
    logits = rng.normal(size=(400, 3)) + 1.5 * np.eye(3)[labels]
    found = calibrated_scores(8 * logits, labels)
    assert found["nll"] < calibration_scores(8 * logits, labels, from_logits=True)["nll"]
    assert found["cll"] == -found["nll"] and found["temperature"] > 4
    assert calibrated_scores(logits, labels)["nll"] == pytest.approx(found["nll"], rel=1e-4)
    with pytest.raises(ValueError, match="at least 4 rows"):
        calibrated_scores(logits[:3], labels[:3])
