"""From token log-probabilities to label scores, against loops; label words; first-token lists."""

import json
import math

import numpy as np
import pytest

from hf_labels.lm import LabelScores, first_token_scores, score_tokens, softmax, verbalize
from hf_labels.lm.scoring import check_labels


def random_logprobs(rng, n, lengths):
    return [[[-float(v) for v in rng.exponential(size=size)] for size in lengths] for _ in range(n)]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("n", "lengths"), [(1, [1]), (5, [3, 1, 2]), (3, [1, 1]), (0, [2, 2])])
def test_normalisations_equal_a_loop(seed, n, lengths):
    rng = np.random.default_rng(seed)
    rows = random_logprobs(rng, n, lengths)
    prior = random_logprobs(rng, 1, lengths)[0]
    chars = [int(c) for c in rng.integers(1, 9, len(lengths))]
    for name in ("sum", "mean", "per_char", "pmi"):
        got = score_tokens(rows, normalize=name, num_chars=chars, prior_token_logprobs=prior)
        assert got.shape == (n, len(lengths)) and got.dtype == np.float64
        for i, row in enumerate(rows):
            for c, tokens in enumerate(row):
                want = math.fsum(tokens)
                want = {
                    "sum": want,
                    "mean": want / len(tokens),
                    "per_char": want / chars[c],
                    "pmi": want - math.fsum(prior[c]),
                }[name]
                assert got[i, c] == pytest.approx(want, rel=1e-12)
    each = score_tokens(rows, normalize="pmi", prior_token_logprobs=rows)
    assert np.abs(each).max(initial=0) < 1e-12


def test_missing_parts_are_named():
    rows = [[[-1.0], [-2.0]]]
    with pytest.raises(ValueError, match="prior_prompt"):
        score_tokens(rows, normalize="pmi")
    with pytest.raises(ValueError, match="num_chars"):
        score_tokens(rows, normalize="per_char", num_chars=[1])
    with pytest.raises(ValueError, match="num_chars"):
        score_tokens(rows, normalize="per_char", num_chars=[1, 0])
    with pytest.raises(ValueError, match="2 labels"):
        score_tokens(rows, normalize="pmi", prior_token_logprobs=[[-1.0]])
    with pytest.raises(ValueError, match="same labels"):
        score_tokens([[[-1.0]], [[-1.0], [-2.0]]])


def test_softmax_is_stable_and_sums_to_one():
    p = softmax([[1e4, 1e4 - 1], [-1e5, -1e5 + 2], [0.0, -np.inf]])
    assert np.abs(p.sum(1) - 1).max() < 1e-15
    assert p[0] == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.e)]) and p[2].tolist() == [1.0, 0.0]
    assert np.isnan(softmax([[np.nan, 1.0]])).all()


def test_calibration_divides_by_the_content_free_probabilities():
    scores = LabelScores(("a", "b"), np.log([[0.8, 0.2], [0.4, 0.6]]))
    q = scores.calibrated([0.8, 0.2]).probs()
    assert q[0] == pytest.approx([0.5, 0.5]) and q[1] == pytest.approx([0.5 / 3.5, 3.0 / 3.5])
    assert scores.calibrated(scores.probs()).probs() == pytest.approx(np.full((2, 2), 0.5))
    for bad in ([1.0, 0.0], [0.5], [[0.5, 0.5]] * 3, [np.nan, 1.0]):
        with pytest.raises(ValueError, match="calibrate"):
            scores.calibrated(bad)


def test_scores_survive_json():
    scores = LabelScores(
        ("a", "b"),
        np.array([[-1.0, -2.0], [np.nan, np.nan]]),
        [[[-1.0], [-2.0]], None],
        np.array([[True, False]] * 2),
        (None, "no"),
    )
    assert LabelScores.from_dict(json.loads(json.dumps(scores.to_dict()))) == scores
    assert scores != LabelScores(("a", "b"), scores.logprobs) and len(scores) == 2
    assert scores.predictions().tolist() == [0, -1]


def test_label_lists_are_checked():
    assert check_labels(["a", " a"]) == ("a", " a")
    for bad, error in (([], ValueError), (["a", "a"], ValueError), (["a", ""], ValueError), ([1], TypeError)):
        with pytest.raises(error):
            check_labels(bad)


def test_verbalize():
    assert verbalize("Sports") == " Sports" and verbalize(" Sports") == " Sports"
    assert verbalize(["Sports", "tax law"], "space_lower") == [" sports", " tax law"]
    assert verbalize("tax law", "capital") == "Tax law" and verbalize("X", "plain") == "X"
    assert verbalize(list("xyz"), "letter") == ["A", "B", "C"]
    for bad in (
        lambda: verbalize("x", "letter"),
        lambda: verbalize("x", "loud"),
        lambda: verbalize(["x"] * 27, "letter"),
    ):
        with pytest.raises(ValueError):
            bad()


def test_first_tokens():
    assert first_token_scores(["yes", "no"], [("yes", -0.1), (" yes", -1.0), ("n", -2.0)]) == (
        [-0.1, -2.0],
        [False, False],
    )
    assert first_token_scores([" yes", "no"], [(" yes", -0.3), ("yes", -0.1)]) == ([-0.3, -0.3], [False, True])
    with pytest.raises(ValueError, match="'A', 'AB'"):
        first_token_scores(["A", "AB"], [("A", -0.3), ("x", -1.0)])
    assert first_token_scores(["a", "b"], [("\n", -0.3), ("", -1.0)]) == ([-1.0, -1.0], [True, True])


def test_examples_in_docstrings():
    import doctest

    from hf_labels.lm import first_token, scoring, structured

    for module in (first_token, scoring, structured):
        result = doctest.testmod(module)
        assert result.attempted and not result.failed, module.__name__
