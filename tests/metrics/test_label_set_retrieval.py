import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import average_precision_score

from hf_labels.metrics.functional import label_iou, label_set_retrieval


def data(seed: int, queries: int = 12, items: int = 30, width: int = 5, classes: int = 4):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(queries, width)) + 10,
        rng.normal(size=(items, width)) + 10,
        rng.integers(0, 2, (queries, classes)),
        rng.integers(0, 2, (items, classes)),
    )


def iou(a, b, empty=0.0):
    union = (a | b).sum()
    return (a & b).sum() / (union + 1e-6) if union else empty


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("relevance", ["exact", "any", 1 / 3, 1.0])
def test_equals_plain_loops(seed, metric, relevance):
    q, g, ql, gl = data(seed)
    rng = np.random.default_rng(seed)
    exclude = [rng.choice(30, 2, replace=False).tolist() for _ in range(12)]
    distance, best, precision = cdist(q, g, metric), {1: [], 3: [], 5: []}, []
    for i in range(12):
        open_items = [j for j in range(30) if j not in exclude[i]]
        ranked = sorted(open_items, key=lambda j: distance[i, j])
        for k in best:
            best[k].append(max(iou(ql[i], gl[j]) for j in ranked[:k]))
        relevant = {
            "exact": [(ql[i] == gl[j]).all() for j in open_items],
            "any": [(ql[i] & gl[j]).any() for j in open_items],
            1 / 3: [iou(ql[i], gl[j]) >= 1 / 3 - 1e-5 and (ql[i] | gl[j]).any() for j in open_items],
            1.0: [(ql[i] == gl[j]).all() and gl[j].any() for j in open_items],
        }[relevance]
        if any(relevant):
            precision.append(average_precision_score(relevant, -distance[i, open_items]))
    got = label_set_retrieval(q, g, ql, gl, exclude=exclude, metric=metric, relevance=relevance, per_query=True)
    for column, k in enumerate((1, 3, 5)):
        assert got["iou"][:, column] == pytest.approx(best[k])
        assert got[f"iou_at_{k}"] == pytest.approx(np.mean(best[k]))
    assert got["retrieval_map"] == pytest.approx(np.mean(precision))
    assert got["n_without_relevant"] == 12 - len(precision) and got["n_queries"] == 12


def test_chunks_do_not_show():
    inputs = data(3)
    whole = label_set_retrieval(*inputs, per_query=True)
    small = label_set_retrieval(*inputs, per_query=True, max_cells=40)
    assert (whole.pop("iou") == small.pop("iou")).all() and (
        whole.pop("query_index") == small.pop("query_index")
    ).all()
    assert small == pytest.approx(whole)


def test_exact_match_required_skips_queries_after_exclusion():
    q, g = np.zeros((3, 2)), np.array([[0.0, 0.1], [0.0, 5.0]])
    ql, gl = [[1, 0], [0, 1], [1, 1]], [[1, 0], [0, 1]]
    got = label_set_retrieval(q, g, ql, gl, k=1, require_exact_match=True, per_query=True)
    assert got["n_skipped"] == 1 and got["query_index"].tolist() == [0, 1]
    assert got["iou_at_1"] == pytest.approx((1 / (1 + 1e-6) + 0) / 2)
    hidden = label_set_retrieval(q, g, ql, gl, k=1, require_exact_match=True, exclude=[[0], [], []], per_query=True)
    assert hidden["query_index"].tolist() == [1]


def test_iou_bounds_and_empty_sets():
    sets = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]
    table = label_iou(sets, sets)
    assert ((table >= 0) & (table < 1)).all() and (table == table.T).all()
    assert table[1, 2] == pytest.approx(1 / (2 + 1e-6)) and table[0, 0] == 0
    assert label_iou(sets, sets, empty_iou=1)[0, 0] == 1
    got = label_set_retrieval([[0.0]], [[0.0]], [[0, 0]], [[0, 0]], k=1, empty_iou=1, relevance=0.5)
    assert got["iou_at_1"] == 1 and got["retrieval_map"] == 1


def test_larger_k_is_never_worse_and_the_query_itself_is_found():
    q, g, ql, gl = data(4)
    got = label_set_retrieval(q, np.concatenate([g, q]), ql, np.concatenate([gl, ql]), k=[1, 2, 10], empty_iou=1)
    assert 0.99 < got["iou_at_1"] <= got["iou_at_2"] <= got["iou_at_10"] <= 1


def test_fewer_items_left_than_k_and_none_left():
    got = label_set_retrieval(
        np.zeros((2, 1)), [[0.0], [1.0]], [[1], [1]], [[1], [0]], k=2, exclude=[[0], [0, 1]], per_query=True
    )
    assert got["n_skipped"] == 1 and got["iou"].tolist() == [[0.0]] and got["n_without_relevant"] == 1
    assert math.isnan(got["retrieval_map"])


def test_label_subset_restricts_sets_and_skips_queries_without_any():
    q, g, ql, gl = data(5)
    ql[0, [1, 2]] = 0
    got = label_set_retrieval(q, g, ql, gl, label_subset=[2, 1])
    keep = ql[:, [1, 2]].any(axis=1)
    want = label_set_retrieval(q[keep], g, ql[keep][:, [1, 2]], gl[:, [1, 2]])
    assert got["n_skipped"] == (~keep).sum() > 0
    for key in ("iou_at_1", "iou_at_5", "retrieval_map"):
        assert got[key] == pytest.approx(want[key])


Q, G, QL, GL = [[0.0, 1.0]], [[1.0, 0.0], [1.0, 1.0]], [[1, 0]], [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        ((Q, [[1.0], [2.0]], QL, GL), {}, ValueError, "query_embeddings"),
        ((Q, G, QL, [[1], [0]]), {}, ValueError, "query_labels"),
        ((Q, G, QL, [[1, 0]]), {}, ValueError, "`gallery_labels` has 1 rows and `gallery_embeddings` has 2"),
        ((Q, G, [[1, -1]], GL), {}, ValueError, "`query_labels` must be 0 or 1, got -1 at row 0, class 1"),
        (([[np.nan, 1.0]], G, QL, GL), {}, ValueError, "query_embeddings.*row 0"),
        (([[0.0, 0.0]], G, QL, GL), {"metric": "cosine"}, ValueError, "zero vector at row 0"),
        ((Q, G, QL, GL), {"metric": "dot"}, ValueError, "metric"),
        ((Q, G, QL, GL), {"k": 3}, ValueError, "1 to 2"),
        ((Q, G, QL, GL), {"k": []}, ValueError, "empty"),
        ((Q, G, QL, GL), {"relevance": 0.0}, ValueError, "relevance"),
        ((Q, G, QL, GL), {"relevance": "all"}, ValueError, "relevance"),
        ((Q, G, QL, GL), {"k": 1, "exclude": [[0], [1]]}, ValueError, "one list for each of the 1"),
        ((Q, G, QL, GL), {"k": 1, "exclude": [[5]]}, IndexError, r"exclude\[0\]"),
        ((Q, G, QL, GL), {"k": 1, "label_subset": [2]}, IndexError, "label_subset"),
        ((np.zeros((0, 2)), G, np.zeros((0, 2)), GL), {}, ValueError, "empty"),
    ],
)
def test_bad_input_is_named(inputs, options, error, message):
    with pytest.raises(error, match=message):
        label_set_retrieval(*inputs, **{"k": 1, **options})
