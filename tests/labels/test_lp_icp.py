"""Label-powerset conformal prediction against the whole powerset: sets, p-values, ties, summaries, validity."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_labels.labels.lp_icp import LabelPowersetICP
from hf_labels.metrics.functional.conformal import conformal_pvalues, conformal_sets

LEVELS = (0.02, 0.05, 0.1, 0.3, 0.6, 0.9, 0.99)


def data(rows, labels, seed=0, grid=False):
    rng = np.random.default_rng(seed)
    probs = rng.choice([0.0, 0.25, 0.5, 0.75, 1.0], (rows, labels)) if grid else rng.beta(0.5, 0.5, (rows, labels))
    return probs, (rng.random(probs.shape) < probs).astype(int)


def oracle(cal, truth, row, d):
    """{label set: p-value}, from the definition."""
    known = [sum(abs(t - o) ** d for t, o in zip(ts, os, strict=True)) for ts, os in zip(truth, cal, strict=True)]
    found = {}
    for members in itertools.product([0, 1], repeat=len(row)):
        score = sum(abs(y - o) ** d for y, o in zip(members, row, strict=True))
        found[members] = (sum(one >= score for one in known) + 1) / (len(known) + 1)
    return found


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("labels", [1, 2, 6])
def test_equal_to_the_whole_powerset(d, grid, labels):
    cal, truth = data(60, labels, 1, grid)
    test, _ = data(5, labels, 2, grid)
    icp = LabelPowersetICP(d=d).calibrate(cal, truth)
    answers = icp.predict(test, LEVELS)
    table = icp.powerset_p_values(test)
    for number, row in enumerate(test):
        want = oracle(cal, truth, row, d)
        np.testing.assert_array_equal(table[number], list(want.values()))
        ordered = sorted(want.values(), reverse=True)
        assert answers[0][number].credibility == ordered[0]
        assert answers[0][number].confidence == 1 - ordered[1]
        for level, column in zip(LEVELS, answers, strict=True):
            answer = column[number]
            inside = {members for members, p in want.items() if round(p * 61) > np.floor(level * 61 + 1e-9)}
            if answer.is_everything:
                assert inside == set(want) and answer.size == 2**labels
                continue
            found = [tuple(members) for members in answer.members().astype(int)]
            assert set(found) == inside and len(found) == len(inside) == answer.size
            assert {tuple(members) for members in np.array(list(answer.iter_members()), int)} == inside
            values = [want[members] for members in found]
            assert values == sorted(values, reverse=True) == [p for _, p in answer.ranked()]
            assert all(answer.contains(np.flatnonzero(m)) == (m in inside) for m in want)
            if inside:
                in_all, in_some = np.all(list(inside), axis=0), np.any(list(inside), axis=0)
                assert answer.required == np.flatnonzero(in_all).tolist()
                assert answer.excluded == np.flatnonzero(~in_some).tolist()
                assert answer.uncertain == np.flatnonzero(in_some & ~in_all).tolist()
            assert answer.is_empty == (not inside)


def test_equal_to_brute_force_at_twelve_labels():
    cal, truth = data(200, 12, 3)
    test, _ = data(20, 12, 4)
    icp = LabelPowersetICP().calibrate(cal, truth)
    for level in (0.05, 0.2):
        inside = icp.powerset_p_values(test) > level
        for answer, row in zip(icp.predict(test, level), inside, strict=True):
            numbers = answer.members().astype(int) @ (1 << np.arange(11, -1, -1))
            assert set(numbers) == set(np.flatnonzero(row)) and len(numbers) == answer.size


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 6), st.floats(0.01, 0.99), st.integers(0, 1000))
def test_any_shape_agrees_with_the_p_values(rows, labels, level, seed):
    cal, truth = data(rows, labels, seed, grid=seed % 2 == 0)
    test, _ = data(2, labels, seed + 1, grid=True)
    icp = LabelPowersetICP(d=1 + seed % 3).calibrate(cal, truth)
    least = np.floor(level * (rows + 1) + 1e-9)
    inside = np.rint(icp.powerset_p_values(test) * (rows + 1)) > least
    assert [answer.size for answer in icp.predict(test, level)] == inside.sum(1).tolist()


def test_levels_are_nested_and_labels_may_change_places():
    cal, truth = data(99, 7, 5)
    test, _ = data(12, 7, 6)
    icp = LabelPowersetICP().calibrate(cal, truth)
    order = np.random.default_rng(0).permutation(7)
    other = LabelPowersetICP().calibrate(cal[::-1][:, order], truth[::-1][:, order])  # rows in another order too
    last = None
    for level in (0.05, 0.1, 0.25, 0.5):
        now = [{tuple(row) for row in answer.members()} for answer in icp.predict(test, level)]
        moved = [{tuple(row) for row in answer.members()} for answer in other.predict(test[:, order], level)]
        assert moved == [{tuple(np.array(row)[order]) for row in one} for one in now]
        assert last is None or all(small <= large for small, large in zip(now, last, strict=True))
        last = now


def test_best_first_is_the_head_of_the_list():
    cal, truth = data(99, 9, 7)
    icp = LabelPowersetICP(names="abcdefghi").calibrate(cal, truth)
    for answer in icp.predict(data(6, 9, 8)[0], 0.05):
        head, all_of_them = answer.members(5), answer.members(100_000)
        np.testing.assert_array_equal(head, all_of_them[:5])
        assert (np.diff(answer.scores(all_of_them)) >= 0).all()
        assert answer.label_sets(1) == [answer.forced] and answer.members(0).shape == (0, 9)


def test_sixty_labels_take_milliseconds_and_brute_force_is_refused():
    rng = np.random.default_rng(0)
    logits = np.where(rng.random((600, 60)) < 0.04, 3.0, -5.0) + rng.normal(size=(600, 60))
    truth = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(int)
    icp = LabelPowersetICP().calibrate(logits[:400], truth[:400], from_logits=True)
    answers = icp.predict(logits[400:], 0.05)
    for answer in answers[:20]:
        assert answer.size == len(answer.members()) and not answer.truncated
    assert sum(answer.size for answer in answers) > 1000
    with pytest.raises(ValueError, match=r"2\^60 label sets cannot be written out"):
        icp.powerset_p_values(logits[:1])


def test_too_many_sets_are_counted_and_cut():
    truth, cal = np.zeros((9, 30), int), np.full((9, 30), 0.4)
    test = np.linspace(0.3, 0.39, 30)[None]
    icp = LabelPowersetICP(max_sets=50).calibrate(cal, truth)
    few = LabelPowersetICP(max_sets=2**21).calibrate(cal, truth)
    answer, whole = icp.predict(test, 0.1)[0], few.predict(test, 0.1)[0]
    assert answer.truncated and answer.size_is_exact and len(answer.members()) == 50
    assert answer.size == whole.size == sum(1 for _ in whole.iter_members()) and not whole.truncated
    np.testing.assert_array_equal(answer.members(), whole.members(50))
    wide = LabelPowersetICP(max_sets=50).calibrate(np.full((9, 80), 0.49), np.ones((9, 80), int))
    answer = wide.predict(np.full((1, 80), 0.49), 0.1)[0]
    assert answer.truncated and not answer.size_is_exact and answer.size == 50 and len(answer.members(30)) == 30
    assert wide.score(np.full((1, 80), 0.49), np.zeros((1, 80)), [0.1])[0]["n_truncated"] == 1


def test_too_few_rows_say_everything(caplog):
    icp = LabelPowersetICP(names=["a", "b"]).calibrate([[0.2, 0.7]], [[0, 1]])
    answer = icp.predict([[0.9, 0.1]], 0.05)[0]
    assert "1 calibration rows are too few for epsilon=0.05" in caplog.text and "19 are the least" in caplog.text
    assert answer.is_everything and answer.size == 4 and answer.uncertain == ["a", "b"] and not answer.required
    assert answer.label_sets(3) == [["a"], [], ["a", "b"]] and answer.contains(["b"])
    assert len(list(answer.iter_members())) == 4
    with pytest.raises(ValueError, match=r"All 2\^2 label sets are inside"):
        answer.label_sets()


def test_an_empty_set_stays_empty_unless_asked():
    icp = LabelPowersetICP().calibrate(np.full((9, 3), 0.01), np.zeros((9, 3), int))
    doubtful = np.full((1, 3), 0.5)
    answer = icp.predict(doubtful, 0.5)[0]
    assert answer.is_empty and answer.size == 0 and answer.label_sets() == [] and not answer.contains([])
    filled = icp.predict(doubtful, 0.5, non_empty=True)[0]
    assert not filled.is_empty and filled.size == 1 and filled.label_sets() == [[]] and filled.contains([])
    assert [row.tolist() for row in filled.iter_members()] == [[False] * 3] and filled.credibility == 0.1


@pytest.mark.parametrize("seed", range(3))
def test_smoothed_sets_are_those_of_smoothed_p_values(seed):
    cal, truth = data(15, 4, seed, grid=True)
    test, _ = data(10, 4, seed + 9, grid=True)
    icp = LabelPowersetICP().calibrate(cal, truth)
    known = icp.scores
    every = np.array(list(itertools.product([0, 1], repeat=4)), dtype=bool)
    for level in (0.03, 0.1, 0.5, 0.95):
        for answer in icp.predict(test, level, smoothing=True, rng=seed):
            want = set()
            for members, score in zip(every, answer.scores(every), strict=True):
                p = ((known > score).sum() + answer.tie * ((known == score).sum() + 1)) / 16
                if p > level:
                    want.add(tuple(members))
            found = answer.members(16)
            assert {tuple(row) for row in found} == want and answer.size == len(want)
    again = icp.predict(test, 0.1, smoothing=True, rng=seed)
    assert [a.tie for a in again] == [a.tie for a in icp.predict(test, 0.1, smoothing=True, rng=seed)]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_promise_is_kept_and_smoothing_makes_it_exact(seed):
    rng = np.random.default_rng(seed)
    plain, smooth = [], []
    for _ in range(150):  # the promise is about the draw of the calibration rows too
        probs, truth = data(49 + 40, 5, rng.integers(1 << 30))
        probs = probs**2  # a classifier that is not calibrated
        icp = LabelPowersetICP().calibrate(probs[:49], truth[:49])
        for found, options in ((plain, {}), (smooth, {"smoothing": True, "rng": rng})):
            answers = icp.predict(probs[49:], 0.11, **options)
            found += [answer.contains(np.flatnonzero(row)) for answer, row in zip(answers, truth[49:], strict=True)]
    error = 3 * np.sqrt(0.11 * 0.89 * (1 / 6000 + 1 / (150 * 49)))
    assert 1 - np.mean(plain) <= 0.10 + error and abs(1 - np.mean(smooth) - 0.11) < error


def test_score_is_that_of_the_metric():
    cal, truth = data(199, 5, 11)
    test, own = data(300, 5, 12)
    icp = LabelPowersetICP().calibrate(cal, truth)
    want = conformal_pvalues(icp.powerset_p_values(test), own, [0.07, 0.3])
    for row in icp.score(test, own, [0.07, 0.3]):
        level = row["epsilon"]
        for key in ("error_rate", "mean_size", "median_size", "excess", "share_empty", "validity_stderr"):
            assert row[key] == pytest.approx(want[f"eps_{level}_{key}"])
        for key in ("credibility", "confidence", "forced_accuracy"):
            assert row[key] == pytest.approx(want[key])
        assert row["n"] == 300
    sizes = [answer.size for answer in icp.predict(test, 0.3)]
    assert conformal_sets(sizes, [False] * 300, 0.3)["mean_size"] == np.mean(sizes)
    assert (icp.p_values(test, own) > 0.3).mean() == pytest.approx(1 - want["eps_0.3_error_rate"])


def test_logits_and_trainer_output_are_read():
    from transformers.trainer_utils import PredictionOutput

    probs, truth = data(50, 4, 1)
    probs = probs.clip(1e-6, 1 - 1e-6)
    logits = np.log(probs / (1 - probs))
    one = LabelPowersetICP().calibrate(probs, truth)
    two = LabelPowersetICP().calibrate(PredictionOutput((logits, "hidden"), truth, {}), from_logits=True)
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-9)
    output = PredictionOutput(logits, truth, {})
    assert two.score(output)[1]["error_rate"] == pytest.approx(one.score(probs, truth)[1]["error_rate"])
    assert [a.size for a in two.predict(output, 0.3)] == [a.size for a in one.predict(probs, 0.3)]
    assert one.predict(np.zeros((0, 4))) == []


def test_labels_have_names():
    cal, truth = data(99, 3, 1)
    icp = LabelPowersetICP(names=["cs.CL", "cs.LG", "q bio"]).calibrate(cal, truth)
    assert icp.p_value(cal[0], ["cs.LG", "cs.CL"]) == icp.p_value(cal[0], [0, 1]) == icp.p_values(cal[:1], [[1, 1, 0]])
    with pytest.raises(KeyError, match="No label 'cs.XX'; there are: cs.CL, cs.LG, q bio"):
        icp.p_value(cal[0], ["cs.XX"])
    with pytest.raises(IndexError, match="Label id 3 is out of range; ids are 0 to 2"):
        icp.p_value(cal[0], [3])
    with pytest.raises(ValueError, match="a name twice"):
        LabelPowersetICP(names=["a", "a"])


@pytest.mark.parametrize(
    ("outputs", "labels", "message"),
    [
        ([[0.1, 1.2]], [[0, 1]], r"got 1.2 at row 0, class 1. If they are logits"),
        ([[0.1, -0.2]], [[0, 1]], "got -0.2 at row 0, class 1"),
        ([[0.1, 0.2], [np.nan, 0.2]], [[0, 1]] * 2, "finite, got nan at row 1, class 0"),
        ([[0.1, 0.2]], [[0, -1]], "a missing one at row 0, class 1.*leave such rows out"),
        ([[0.1, 0.2]], [[0, 2]], "got 2 at row 0, class 1"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "is empty"),
        ([[0.1, 0.2]], [[0, 1, 0]], r"got \(1, 2\) and \(1, 3\)"),
        ([[0.1, 0.2]], [[0, 1]] * 2, r"got \(1, 2\) and \(2, 2\)"),
        ([0.1, 0.2], [0, 1], r"got shape \(2,\)"),
        ([[0.1, 0.2]], None, "`labels` is missing"),
        ([[0.1, 0.2, 0.3]], [[0, 1, 0]], r"shape \(n, 3\), expected \(n, 2\)"),
    ],
)
def test_bad_calibration_is_named(outputs, labels, message):
    with pytest.raises(ValueError, match=message):
        LabelPowersetICP(names=["a", "b"]).calibrate(outputs, labels)


def test_bad_use_is_named():
    icp = LabelPowersetICP()
    for call in (
        lambda: icp.predict([[0.1]]),
        lambda: icp.p_value([0.1], []),
        lambda: icp.powerset_p_values([[0.1]]),
        lambda: icp.scores,
    ):
        with pytest.raises(RuntimeError, match="not calibrated"):
            call()
    icp.calibrate(*data(30, 2))
    for level in (0.0, 1.0, -1, 2):
        with pytest.raises(ValueError, match=r"`epsilon` must be in \(0, 1\)"):
            icp.predict([[0.1, 0.2]], level)
    with pytest.raises(ValueError, match=r"\(n, 3\), expected \(n, 2\)"):
        icp.predict([[0.1, 0.2, 0.3]])
    with pytest.raises(ValueError, match="must not be negative"):
        icp.predict([[0.1, 0.2]], 0.1)[0].members(-1)
    for d in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="`d` is a power"):
            LabelPowersetICP(d=d)
    with pytest.raises(ValueError, match="`max_sets` must be at least 1"):
        LabelPowersetICP(max_sets=0)
    for scores in ([], [-1.0], [np.nan], [[1.0]]):
        with pytest.raises(ValueError, match="`scores` must be finite"):
            LabelPowersetICP.from_scores(scores, 2)


def test_a_level_next_to_one_and_one_calibration_row():
    icp = LabelPowersetICP().calibrate([[0.3]], [[0]])
    assert [answer.size for answer in icp.predict([[0.3], [0.31], [0.2]], 0.5)] == [1, 0, 1]
    assert icp.predict([[0.0]], 1 - 1e-12)[0].size == 0
