import math
import time

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from hf_labels.metrics.functional import average_precision, episode_map, multilabel_map, ndcg_at_k, precision_at_k


def data(seed: int, rows: int = 60, classes: int = 7, ties: bool = False):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (rows, classes)) / 6 if ties else rng.random((rows, classes))
    labels = (rng.random((rows, classes)) < rng.uniform(0.1, 0.7, classes)).astype(int)
    labels[0] = 1
    return scores, labels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
def test_equals_scikit_learn_with_and_without_ties(seed, ties):
    scores, labels = data(seed, ties=ties)
    got = multilabel_map(scores, labels, per_class=True)
    assert got["ap"] == pytest.approx(average_precision_score(labels, scores, average=None), abs=1e-12)
    for key, average in (("map", "macro"), ("micro_map", "micro"), ("weighted_map", "weighted")):
        assert got[key] == pytest.approx(average_precision_score(labels, scores, average=average), abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_torchmetrics_without_ties(seed):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    scores, labels = data(seed, 300, 20)
    theirs = functional.multilabel_average_precision(
        torch.tensor(scores), torch.tensor(labels), num_labels=20, average="none"
    )
    assert average_precision(scores, labels) == pytest.approx(theirs.numpy(), abs=1e-6)


def test_more_classes_than_one_block_and_one_class():
    scores, labels = data(0, 40, 37)
    assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores, average=None))
    assert average_precision(scores[:, :1], labels[:, :1])[0] == pytest.approx(
        average_precision_score(labels[:, 0], scores[:, 0])
    )


def test_perfect_ranking_is_one_and_a_constant_is_the_prevalence():
    _, labels = data(0)
    perfect = multilabel_map(labels + 0.5, labels)
    assert perfect["map"] == perfect["weighted_map"] == perfect["micro_map"] == 1
    constant = multilabel_map(np.zeros(labels.shape), labels, per_class=True)
    assert constant["ap"] == pytest.approx(labels.mean(axis=0))
    assert constant["micro_map"] == pytest.approx(labels.mean())


def test_increasing_transforms_and_permutations_change_nothing():
    scores, labels = data(1)
    want = multilabel_map(scores, labels, per_class=True)
    assert multilabel_map(np.exp(3 * scores), labels, per_class=True) == want
    order = np.random.default_rng(0).permutation(len(scores))
    shuffled = multilabel_map(scores[order], labels[order], per_class=True)
    assert shuffled.pop("ap") == pytest.approx(want["ap"])
    assert shuffled == pytest.approx({key: value for key, value in want.items() if key != "ap"})
    columns = np.random.default_rng(1).permutation(7)
    swapped = multilabel_map(scores[:, columns], labels[:, columns], per_class=True)
    assert swapped["map"] == pytest.approx(want["map"])
    assert swapped["ap"] == pytest.approx(np.array(want["ap"])[columns])


@pytest.mark.parametrize("unknown", [-1, np.nan])
def test_unknown_cells_are_left_out(unknown):
    scores, labels = data(2, ties=True)
    hidden = np.random.default_rng(3).random(labels.shape) < 0.3
    hidden[0] = False
    got = multilabel_map(scores, np.where(hidden, unknown, labels), per_class=True)
    for c, value in enumerate(got["ap"]):
        seen = ~hidden[:, c]
        assert value == pytest.approx(average_precision_score(labels[seen, c], scores[seen, c]))
    assert got["micro_map"] == pytest.approx(average_precision_score(labels[~hidden], scores[~hidden]))


def test_classes_without_a_positive_are_left_out_or_zero(caplog):
    scores, labels = data(3, classes=4)
    labels[:, 2] = 0
    got = multilabel_map(scores, labels, per_class=True)
    assert math.isnan(got["ap"][2]) and got["n_classes_without_positive"] == 1
    assert got["map"] == pytest.approx(np.mean([got["ap"][c] for c in (0, 1, 3)]))
    assert "1 of 4 classes" in caplog.text
    zero = multilabel_map(scores, labels, empty_class="zero", per_class=True)
    assert zero["ap"][2] == 0 and zero["map"] == pytest.approx(got["map"] * 3 / 4)
    assert zero["weighted_map"] == pytest.approx(got["weighted_map"])
    nothing = multilabel_map(scores, labels * 0)
    assert math.isnan(nothing["map"]) and math.isnan(nothing["micro_map"]) and math.isnan(nothing["weighted_map"])


def test_shot_groups_cover_all_classes():
    scores, labels = data(4, classes=8)
    counts = [150, 100, 99, 20, 19, 3, 39, 0]
    got = multilabel_map(scores, labels, train_counts=counts, per_class=True)
    ap = np.array(got["ap"])
    assert got["map_many"] == pytest.approx(ap[[0, 1]].mean())
    assert got["map_medium"] == pytest.approx(ap[[2, 3, 6]].mean())
    assert got["map_few"] == pytest.approx(ap[[4, 5, 7]].mean())
    assert got["map_shot_mean"] == pytest.approx((got["map_many"] + got["map_medium"] + got["map_few"]) / 3)
    parts = 2 * got["map_many"] + 3 * got["map_medium"] + 3 * got["map_few"]
    assert parts / 8 == pytest.approx(got["map"])
    other = multilabel_map(scores, labels, train_counts=counts, many=30, few=30)
    assert math.isnan(other["map_medium"])
    assert other["map_shot_mean"] == pytest.approx((other["map_many"] + other["map_few"]) / 2)


def test_own_groups_and_a_subset_of_classes():
    scores, labels = data(5, classes=6)
    whole = multilabel_map(scores, labels, groups={"head": [0, 1], "unseen": [5], "none": []}, per_class=True)
    assert whole["map_head"] == pytest.approx(np.mean(whole["ap"][:2])) and whole["map_unseen"] == whole["ap"][5]
    assert math.isnan(whole["map_none"])
    part = multilabel_map(
        scores,
        labels,
        label_subset=[4, 1],
        train_counts=[500, 50, 5, 5, 5, 5],
        groups={"head": [0, 1]},
        per_class=True,
    )
    assert part["ap"] == [whole["ap"][4], whole["ap"][1]] and part["map"] == pytest.approx(np.mean(part["ap"]))
    assert part["map_medium"] == part["map_head"] == whole["ap"][1] and math.isnan(part["map_many"])


def test_lists_of_class_ids():
    scores, _ = data(0, rows=3, classes=4)
    hot = [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 1]]
    ids = [[0, 2], [], [3, 1]]
    assert multilabel_map(scores, ids, num_classes=4) == multilabel_map(scores, hot)
    with pytest.raises(IndexError, match="class id 4 at row 2; ids are 0 to 3"):
        multilabel_map(scores, [[0], [1], [4]], num_classes=4)
    with pytest.raises(IndexError, match="class id -1 at row 0"):
        multilabel_map(scores, [[-1], [1], [2]], num_classes=4)
    with pytest.raises(ValueError, match="must hold class ids, got 0.5 at row 1"):
        multilabel_map(scores, [[0], [0.5], [2]], num_classes=4)


def test_episodes():
    episodes = [data(seed) for seed in range(4)]
    values = [multilabel_map(*episode, label_subset=[1, 2])["map"] for episode in episodes]
    got = episode_map(episodes, label_subset=[1, 2])
    assert got["map_mean"] == pytest.approx(np.mean(values)) and got["n_episodes"] == 4
    assert got["map_std"] == pytest.approx(np.std(values, ddof=1))
    assert got["map_ci95"] == pytest.approx(1.96 * np.std(values, ddof=1) / 2)
    assert math.isnan(episode_map(episodes[:1])["map_std"])
    with pytest.raises(ValueError, match="empty"):
        episode_map([])
    with pytest.raises(ValueError, match="Episode 1"):
        episode_map([episodes[0], (episodes[1][0], episodes[1][1] * 0)])


def test_precision_and_ndcg_at_k_equal_plain_loops():
    scores, labels = data(6, rows=50, classes=9, ties=True)
    labels[3] = 0
    precision, gain = {1: [], 3: [], 5: []}, {1: [], 3: [], 5: []}
    for score, label in zip(scores, labels, strict=True):
        if not label.any():
            continue
        ranked = sorted(range(9), key=lambda c: (-score[c], c))
        for k in (1, 3, 5):
            hits = [label[c] for c in ranked[:k]]
            precision[k].append(sum(hits) / k)
            best = sum(1 / math.log2(r + 2) for r in range(min(k, label.sum())))
            gain[k].append(sum(hit / math.log2(r + 2) for r, hit in enumerate(hits)) / best)
    got = precision_at_k(scores, labels) | ndcg_at_k(scores, labels)
    for k in (1, 3, 5):
        assert got[f"precision_at_{k}"] == pytest.approx(np.mean(precision[k]))
        assert got[f"ndcg_at_{k}"] == pytest.approx(np.mean(gain[k]))


def test_ranking_metrics_skip_unknown_cells_and_empty_samples():
    scores, labels = [[0.9, 0.8, 0.1], [0.1, 0.2, 0.3]], [[-1, 1, 0], [0, -1, 0]]
    assert precision_at_k(scores, labels, 1) == {"precision_at_1": 1.0}
    assert ndcg_at_k(scores, labels, 1) == {"ndcg_at_1": 1.0}
    assert math.isnan(ndcg_at_k(scores, np.zeros((2, 3)), 2)["ndcg_at_2"])
    with pytest.raises(ValueError, match="1 to 3"):
        precision_at_k(scores, labels, 4)


SCORES, LABELS = [[0.1, 0.2], [0.3, 0.4]], [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("scores", "labels", "options", "error", "message"),
    [
        ([[0.1, np.nan], [0.3, 0.4]], LABELS, {}, ValueError, "got nan at row 0, class 1"),
        ([[0.1, 0.2], [np.inf, 0.4]], LABELS, {}, ValueError, "got inf at row 1, class 0"),
        (SCORES, [[0, 1], [2, 0]], {}, ValueError, "got 2 at row 1, class 0"),
        (SCORES, [[0, 0.5], [1, 0]], {}, ValueError, "got 0.5 at row 0, class 1"),
        (SCORES, [[0, 1, 1], [1, 0, 1]], {}, ValueError, r"\(2, 2\) and \(2, 3\)"),
        (SCORES, [0, 1], {}, ValueError, r"got shape \(2,\)"),
        (SCORES, [[0], [1]], {}, ValueError, "num_classes"),
        ([0.1, 0.2], LABELS, {}, ValueError, r"\(N, C\)"),
        (np.zeros((0, 2)), np.zeros((0, 2)), {}, ValueError, "empty"),
        ([[0.1, 0.2], [0.3]], LABELS, {}, ValueError, "Row 1 has 1 values"),
        (SCORES, LABELS, {"train_counts": [1, 2, 3]}, ValueError, "train_counts"),
        (SCORES, LABELS, {"train_counts": [1, -2]}, ValueError, "negative"),
        (SCORES, LABELS, {"train_counts": [1, 2], "few": 200}, ValueError, "few"),
        (SCORES, LABELS, {"train_counts": [1, 2], "groups": {"few": [0]}}, ValueError, "taken"),
        (SCORES, LABELS, {"groups": {"tail": [2]}}, IndexError, "class id 2"),
        (SCORES, LABELS, {"label_subset": [0, 0]}, ValueError, "twice"),
        (SCORES, LABELS, {"label_subset": []}, ValueError, "empty"),
        (SCORES, LABELS, {"label_subset": [-1]}, IndexError, "class id -1"),
        (SCORES, LABELS, {"empty_class": "one"}, ValueError, "empty_class"),
    ],
)
def test_bad_input_is_named(scores, labels, options, error, message):
    with pytest.raises(error, match=message):
        multilabel_map(scores, labels, **options)


def test_a_large_input_takes_little_time():
    rng = np.random.default_rng(0)
    scores = rng.random((20_000, 100))
    labels = rng.random(scores.shape) < 0.1
    start = time.process_time()
    multilabel_map(scores, labels)
    assert time.process_time() - start < 1.5  # about 0.1 s on one core with vector instructions
