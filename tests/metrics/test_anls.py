"""ANLS and ANLS*: against a slow oracle, their properties, and as `evaluate` modules."""

import json
import random

import evaluate
import pytest

import hf_labels.metrics as metrics
from hf_labels.metrics import functional as fn
from hf_labels.metrics.functional.edit_distance import from_json_values, plain_text, similarity

RNG = random.Random(0)


def words(letters="abß É1", longest=30):
    return "".join(RNG.choice(letters) for _ in range(RNG.randint(0, longest)))


PAIRS = [(words(), words()) for _ in range(300)]


def slow(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        new = [i + 1]
        for j, y in enumerate(b):
            new.append(min(row[j] + (x != y), row[j + 1] + 1, new[-1] + 1))
        row = new
    return row[-1]


def test_distance_equals_the_plain_table_and_stops_at_its_limit():
    for a, b in PAIRS:
        far = slow(a, b)
        assert fn.levenshtein(a, b) == far
        for limit in (0, 1, far - 1, far, far + 3):
            if limit >= 0:
                assert fn.levenshtein(a, b, limit) == (far if far <= limit else limit + 1)


def test_scores_equal_the_plain_formula():
    for threshold in (0.2, 0.5, 0.9, 1.0):
        for a, b in PAIRS:
            one, two = plain_text(a), plain_text(b)
            size = max(len(one.upper()), len(two.upper()))
            far = slow(one, two) / size if size else 0.0
            assert fn.anls_scores([a], [[b]], threshold)[0] == (1 - far if far < threshold else 0.0)
            size = max(len(one), len(two))
            near = 1 - slow(one, two) / size if size else 1.0
            assert fn.anls_star(a, b, threshold) == (near if near >= threshold else 0.0)


def test_identity_symmetry_case_space_and_range():
    for a, b in PAIRS:
        score = fn.anls_scores([a], [[b]])[0]
        assert 0 <= score <= 1 and fn.anls_scores([a], [[a]]) == [1.0]
        assert score == fn.anls_scores([b], [[a]])[0]
        assert score == fn.anls_scores([f"  {a} "], [[b.replace(" ", "   ")]])[0]
        assert fn.anls_scores([a.replace("ß", "").upper()], [[b]]) == fn.anls_scores([a.replace("ß", "")], [[b]])


def test_a_larger_threshold_and_more_references_never_lower_a_score():
    for a, b in PAIRS[:100]:
        scores = [fn.anls_scores([a], [[b]], threshold / 10)[0] for threshold in range(1, 11)]
        assert scores == sorted(scores)
        assert fn.anls_scores([a], [[b, "abc"]])[0] >= fn.anls_scores([a], [[b]])[0]


def test_empty_none_and_nan():
    assert fn.anls_scores([None, float("nan"), "", "x"], [[""], [""], ["a"], [""]]) == [1.0, 1.0, 0.0, 0.0]
    assert similarity("", "") == 1.0


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="2 predictions for 1"):
        fn.anls_scores(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="Question 1 has no reference"):
        fn.anls_scores(["a", "b"], [["a"], []])
    with pytest.raises(TypeError, match="question 0.*list"):
        fn.anls_scores(["a"], ["a"])
    with pytest.raises(ValueError, match=r"threshold.*\[0, 1\]"):
        fn.anls_scores(["a"], [["a"]], 1.5)
    with pytest.raises(ValueError, match="no question"):
        fn.anls([], [])


def test_star_of_a_flat_dict_is_the_mean_of_its_leaves():
    for _ in range(50):
        gold = {key: words() for key in "abc"}
        pred = {key: words() for key in "abc"}
        leaves = [fn.anls_star(pred[key], gold[key]) for key in "abc"]
        assert fn.anls_star(pred, gold) == pytest.approx(sum(leaves) / 3)


def test_star_does_not_see_the_order_of_lists():
    gold = [{"name": f"item {i}", "price": str(i * 1.5)} for i in range(6)]
    for _ in range(10):
        pred = RNG.sample(gold, 6)
        assert fn.anls_star(pred, gold) == 1.0
    assert fn.anls_star(gold[:3], gold) == pytest.approx(0.5)
    assert fn.anls_star([*gold, *gold], gold) == pytest.approx(0.5)


def test_star_thresholds_types_and_alternatives():
    assert fn.anls_star("abzz", "abcd") == 0.5 and fn.anls_scores(["abzz"], [["abcd"]]) == [0.0]
    assert fn.anls_star({"a": 12.5}, {"a": "12.5"}) == 1.0
    assert fn.anls_star({"a": {"b": "x"}}, {"a": "x"}) == fn.anls_star("x", {"a": "x"}) == 0.0
    assert fn.anls_star({"a": ["x"]}, {"a": (["x", "y"], ["x"])}) == 1.0
    assert fn.anls_star(None, []) == 0.0 and fn.anls_star([], None) == fn.anls_star("", None) == 1.0


def test_an_invented_empty_key_costs_unless_told_otherwise():
    gold, pred = {"a": "x", "b": "y"}, {"a": "x", "b": "y", "c": None, "d": ""}
    assert fn.anls_star(pred, gold) == 0.5
    assert fn.anls_star(pred, gold, count_empty_hallucinations=False) == 1.0
    assert fn.anls_star({**gold, "c": "z"}, gold, count_empty_hallucinations=False) == pytest.approx(2 / 3)


def test_star_refuses_what_is_no_json():
    with pytest.raises(TypeError, match="prediction holds a tuple"):
        fn.anls_star({"a": ("x",)}, {"a": "x"})
    with pytest.raises(ValueError, match="without alternatives"):
        fn.anls_star("x", ())
    with pytest.raises(TypeError, match="got set"):
        fn.anls_star({"x"}, "x")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path))


def test_modules_equal_the_functions_by_class_folder_and_batches():
    guesses, rights = [a for a, _ in PAIRS[:20]], [[b, b + "x"] for _, b in PAIRS[:20]]
    want = pytest.approx(fn.anls(guesses, rights, 0.4))
    by_class, by_folder = metrics.Anls(), evaluate.load(metrics.path_of("anls"))
    assert by_class.compute(predictions=guesses, references=rights, threshold=0.4) == want
    for start in range(0, 20, 8):
        part = slice(start, start + 8)
        by_folder.add_batch(predictions=guesses[part], references=rights[part])
    assert by_folder.compute(threshold=0.4) == want
    scores = by_class.compute(predictions=[None, "a"], references=[[""], ["a"]], per_question=True)
    assert scores == {"anls": 1.0, "n": 2, "scores": [1.0, 1.0]}
    by_class.add(prediction=float("nan"), reference=["a"])
    assert by_class.compute() == {"anls": 0.0, "n": 1}
    with pytest.raises(ValueError, match="Mismatch in the number"):
        by_class.compute(predictions=["a"], references=[["a"], ["b"]])


def test_star_module_reads_json_and_counts_what_is_none():
    gold = {"total": {"__any_of__": ["12.50", "$12.50"]}, "items": ["a", "b"]}
    pred = {"total": "12.50", "items": ["b"]}
    found = metrics.AnlsStar().compute(
        predictions=[json.dumps(pred), "no json"], references=[json.dumps(gold)] * 2, per_document=True
    )
    star = fn.anls_star(pred, from_json_values(gold))
    assert found == {"anls_star": star / 2, "n": 2, "unreadable": 1, "scores": [star, 0.0]}
    with pytest.raises(ValueError, match="Reference 0 is not JSON"):
        metrics.AnlsStar().compute(predictions=["{}"], references=["{"])
