"""The report: ensemble, flags, treatments, experts, controls, files."""

import datasets
import numpy as np
import pytest

from hf_labels.labels.issues import ClassVanishesError
from hf_labels.labels.llm_label_error_files import load_report, report_rows, save_report
from hf_labels.labels.llm_label_errors import LabelErrorReport, check_judgements, ensemble

NAMES = ("no", "maybe", "yes")
RNG = np.random.default_rng(0)
PROBS = RNG.dirichlet(np.ones(3) * 0.6, size=(2, 3, 40))
LABELS = RNG.integers(0, 3, 40)
EXPERTS = RNG.integers(0, 3, 40)


def report(probs=PROBS, labels=LABELS, **options):
    return LabelErrorReport(probs, labels, NAMES, ["one", "two"], ["a", "b", "c"], **options)


def rows(labels=LABELS):
    features = datasets.Features({"text": datasets.Value("string"), "labels": datasets.ClassLabel(names=list(NAMES))})
    return datasets.Dataset.from_dict(
        {"text": [f"t{i}" for i in range(len(labels))], "labels": [int(x) for x in labels]}, features=features
    )


def test_the_ensemble_does_not_depend_on_the_order_and_one_judge_is_itself():
    q = ensemble(PROBS)
    np.testing.assert_allclose(q, ensemble(PROBS[::-1][:, ::-1]))
    np.testing.assert_allclose(q, ensemble(np.concatenate([PROBS, PROBS])))
    np.testing.assert_allclose(ensemble(PROBS[:1, :1]), PROBS[0, 0])
    assert not np.allclose(q, ensemble(PROBS[[0, 0, 1]]))


def test_a_judge_that_failed_is_passed_over_and_rows_without_any_are_never_flagged():
    probs = PROBS.copy()
    probs[0, :, 4] = np.nan
    probs[:, :, 7] = np.nan
    found = report(probs)
    np.testing.assert_allclose(found.q[4], PROBS[1, :, 4].mean(0))
    assert not found.judged[7] and found.predicted[7] == -1 and not found.flagged(1 / 3)[7]
    assert found.votes.shape == (40, 6) and (found.votes[7] == -1).all()
    table = report_rows(found)
    assert table["status"][7] == "unjudged" and table["suggested_label"][7] == LABELS[7]


def test_flags_are_nested_and_above_one_nothing_is_flagged():
    found = report()
    last = found.disputed
    for threshold in (1 / 3, 0.5, 0.7, 0.9):
        now = found.flagged(threshold)
        assert not (now & ~last).any()
        last = now
    assert not found.flagged(1.1).any()
    assert found.apply(rows(), "flip", 1.1)["labels"][:] == LABELS.tolist()
    with pytest.raises(ValueError, match="never below 1 / 3"):
        found.flagged(0.2)


def test_relabelled_classes_give_relabelled_results():
    order = np.array([2, 0, 1])
    found, other = report(), LabelErrorReport(PROBS[..., np.argsort(order)], order[LABELS])
    assert (order[found.predicted] == other.predicted).all() and (found.disputed == other.disputed).all()


def test_flipping_once_leaves_nothing_to_flip():
    found = report()
    flipped = found.apply(rows(), "flip", 0.5)
    again = report(labels=np.array(flipped["labels"][:]))
    assert found.flagged(0.5).any() and not again.flagged(0.5).any()
    kept = found.apply(rows(), "filter", 0.5)
    assert kept["text"][:] == [f"t{i}" for i in np.flatnonzero(~found.flagged(0.5))]


def test_worklist_is_of_all_disputes_most_confident_first():
    found = report()
    work = found.worklist()
    assert set(work) == set(np.flatnonzero(found.disputed))
    assert (np.diff(found.confidence[work]) <= 0).all() and found.worklist(3).tolist() == work[:3].tolist()


def test_quality_is_the_margin_of_the_label():
    issues = report().issues(0.5)
    q = ensemble(PROBS)
    for row in range(40):
        others = np.delete(q[row], LABELS[row]).max()
        assert issues.quality[row] == pytest.approx((q[row, LABELS[row]] - others + 1) / 2)
    assert ((issues.quality < 0.5) == report().disputed).all()


def test_experts_are_needed_for_disputes_only():
    found = report()
    partial = {int(row): int(EXPERTS[row]) for row in np.flatnonzero(found.disputed)}
    assert (found.gold(partial) == found.gold(EXPERTS)).all()
    assert (found.gold(EXPERTS)[~found.disputed] == LABELS[~found.disputed]).all()
    first = partial.popitem()[0]
    with pytest.raises(ValueError, match=f"1 disputed rows have no expert label: {first}"):
        found.error_rate(partial)
    with pytest.raises(ValueError, match=r"40 rows \(-1 = none\), got \(3,\)"):
        found.gold([0, 1, 2])


def test_error_rate_has_its_interval_and_leaves_out_unlabelled_rows():
    labels = np.array([None if i in (0, 5) else int(x) for i, x in enumerate(LABELS)], dtype=object)
    found = report(labels=labels)
    rate = found.error_rate(EXPERTS)
    assert rate["left_out"] == [0, 5] and rate["items"] == 38
    assert rate["low"] < rate["error_rate"] < rate["high"]
    known = found.error_rate(EXPERTS, population_size=100)
    assert rate["low"] < known["low"] <= known["error_rate"] <= known["high"] < rate["high"]
    assert not found.disputed[[0, 5]].any()
    with pytest.raises(ValueError, match="No row has a label"):
        report(labels=np.full(40, -100)).error_rate(EXPERTS)


def test_bins_hold_all_disputes_and_the_bootstrap_repeats():
    found = report()
    one, two = (found.precision_by_confidence(EXPERTS, bins=4, draws=300, seed=3) for _ in range(2))
    assert one == two and sum(part["n"] for part in one) == found.disputed.sum()
    assert [part["mean_conf"] for part in one] == sorted(part["mean_conf"] for part in one)
    assert all(part["low"] <= part["llm_precision"] <= part["high"] for part in one)
    perfect = report(labels=ensemble(PROBS).argmax(1))
    assert perfect.precision_by_confidence(EXPERTS) == []


def test_larger_ensembles_are_measured_up_to_all_judges():
    sizes = report().ensemble_sizes(EXPERTS, 0.5, draws=4)
    assert [part["size"] for part in sizes] == [1, 2, 3, 4, 5, 6]
    assert sizes[-1]["f1"] == pytest.approx(report().detection(EXPERTS, 0.5)["f1"])
    assert all(0 <= part["auroc"] <= 1 for part in sizes)


def test_controls_have_the_same_size():
    found = report()
    for way in ("filter", "flip"):
        control = found.random_control(0.5, seed=1, treatment=way)
        assert control.is_issue.sum() == found.flagged(0.5).sum()
        assert (control.is_issue != found.flagged(0.5)).any()
    with pytest.raises(ValueError, match="'filter' or 'flip'"):
        found.random_control(0.5, 0, "drop")


def test_grades_are_disputed_by_their_distance():
    probs = np.array([[0.9, 0.1, 0.0], [0.5, 0.0, 0.5], [0.0, 0.2, 0.8]])
    found = LabelErrorReport(probs, np.array([1, 0, 0]), ordinal=True)
    assert found.disputed.tolist() == [False, True, True]  # |0.1 - 1| < 1, |1 - 0| and |1.8 - 0|


def test_a_filter_keeps_every_class():
    probs = np.tile([0.05, 0.05, 0.9], (4, 1))
    found = LabelErrorReport(probs, np.array([0, 1, 2, 2]), NAMES)
    with pytest.raises(ClassVanishesError):
        found.apply(rows([0, 1, 2, 2]), "filter", 0.8)


def test_report_comes_back_from_its_files(tmp_path):
    probs = PROBS.copy()
    probs[0, 1, 3] = np.nan
    save_report(report(probs, ordinal=True, delta=0.5), tmp_path / "r", 0.6)
    again = load_report(tmp_path / "r")
    np.testing.assert_array_equal(again.probs, probs)
    assert (again.original == LABELS).all() and again.names == NAMES and list(again.judges) == ["one", "two"]
    assert again.ordinal and again.delta == 0.5
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="not written by `save_report`"):
        load_report(tmp_path / "empty")


def test_one_judge_is_warned_about(caplog):
    LabelErrorReport(PROBS[:1], LABELS)
    assert "one judge only" in caplog.text


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        ([[0.5, 0.6]], [0], "judge 0, prompt 0 are no probabilities at row 0"),
        ([[-0.5, 1.5]], [0], "row 0"),
        ([[0.5, np.nan]], [0], "row 0"),
        ([[1.0]], [0], r"classes >= 2\), got \(1, 1\)"),
        ([0.5, 0.5], [0], r"got \(2,\)"),
        ([[0.5, 0.5]], [2], "label of row 0 is 2, expected 0 to 1"),
        ([[0.5, 0.5]], [0, 1], r"labels of \(2,\) rows and judgements of 1"),
    ],
)
def test_bad_judgements_are_named(probs, labels, message):
    with pytest.raises(ValueError, match=message):
        LabelErrorReport(np.array(probs), np.array(labels))


def test_scores_are_divided_only_on_demand():
    assert check_judgements([[2.0, 6.0]], renormalize=True).tolist() == [[[[0.25, 0.75]]]]
    with pytest.raises(ValueError, match="row 0"):
        check_judgements([[0.0, 0.0]], renormalize=True)
    with pytest.raises(ValueError, match="3 names for 2 classes"):
        LabelErrorReport([[0.5, 0.5]], [0], NAMES)
