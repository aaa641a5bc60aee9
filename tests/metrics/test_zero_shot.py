"""Zero-shot accuracy and F1 against scikit-learn, and their modules."""

import evaluate
import numpy as np
import pytest
from sklearn.metrics import f1_score

import hf_labels.metrics as metrics
from hf_labels.metrics.functional import harmonic_mean, zero_shot_accuracy, zero_shot_f1

NAMES = ["joy", "anger", "fear", "love"]
RNG = np.random.default_rng(0)
GOLD = [NAMES[i] for i in RNG.integers(4, size=80)]
GUESS = [gold if RNG.random() < 0.5 else NAMES[RNG.integers(4)] for gold in GOLD]
SEEN = ["joy", "fear"]


def test_all_f1_is_the_weighted_f1_of_scikit_learn():
    found = zero_shot_f1(GUESS, GOLD, SEEN)
    assert found["all_f1"] == pytest.approx(f1_score(GOLD, GUESS, average="weighted"), abs=1e-6)
    assert found["micro_f1"] == pytest.approx(f1_score(GOLD, GUESS, average="micro"))
    assert found["macro_f1"] == pytest.approx(f1_score(GOLD, GUESS, average="macro"))
    each = dict(zip(NAMES, f1_score(GOLD, GUESS, labels=NAMES, average=None), strict=True))
    for key, group in (("seen_f1", SEEN), ("unseen_f1", ["anger", "love"])):
        counts = [GOLD.count(name) for name in group]
        want = sum(each[name] * count for name, count in zip(group, counts, strict=True)) / (1e-6 + sum(counts))
        assert found[key] == pytest.approx(want, abs=1e-12)
    assert found["n_seen"] + found["n_unseen"] == 80 and found["none_rate"] == 0


def test_multi_label_f1_is_that_of_scikit_learn():
    gold = [[NAMES[i] for i in range(4) if RNG.random() < 0.4] for _ in range(50)]
    guess = [[NAMES[i] for i in range(4) if RNG.random() < 0.4] for _ in range(50)]
    found = zero_shot_f1(guess, gold, SEEN, labels=NAMES, none_label="out-of-domain")
    columns = [*NAMES, "out-of-domain"]
    hot = [[[name in (row or ["out-of-domain"]) for name in columns] for row in side] for side in (gold, guess)]
    assert found["all_f1"] == pytest.approx(f1_score(*map(np.array, hot), average="weighted"), abs=1e-6)
    assert found["micro_f1"] == pytest.approx(f1_score(*map(np.array, hot), average="micro"))
    assert found["none_rate"] == pytest.approx(np.mean([not row for row in guess]))


def test_accuracy_of_both_groups():
    found = zero_shot_accuracy(GUESS, GOLD, SEEN)
    for key, group in (("seen", SEEN), ("unseen", ["anger", "love"])):
        rows = [(a, b) for a, b in zip(GUESS, GOLD, strict=True) if b in group]
        assert found[f"{key}_accuracy"] == pytest.approx(sum(a == b for a, b in rows) / (1e-6 + len(rows)))
        assert found[f"n_{key}"] == len(rows)
    assert found["accuracy"] == np.mean([a == b for a, b in zip(GUESS, GOLD, strict=True)])


def test_the_harmonic_mean_lies_between_least_and_mean():
    for seen, unseen in RNG.random((50, 2)):
        assert min(seen, unseen) - 1e-12 <= harmonic_mean(seen, unseen) <= (seen + unseen) / 2 + 1e-12
    assert harmonic_mean(0.0, 0.0) == 0 == harmonic_mean(0.7, 0.0)


@pytest.mark.parametrize("function", [zero_shot_accuracy, zero_shot_f1])
def test_a_group_without_texts_scores_zero_and_says_so(function):
    found = function(GUESS, GOLD, [])
    key = "seen_accuracy" if function is zero_shot_accuracy else "seen_f1"
    assert found[key] == 0.0 and found["n_seen"] == 0 and found["harmonic_mean"] == 0
    assert function(GUESS, GOLD, NAMES)["n_unseen"] == 0


def test_intervals_hold_the_score_and_narrow_with_more_texts():
    found = zero_shot_f1(GUESS, GOLD, SEEN, bootstrap=200)
    widths = []
    for guess, gold in ((GUESS, GOLD), (GUESS * 9, GOLD * 9)):
        found = zero_shot_f1(guess, gold, SEEN, bootstrap=200)
        for key in ("seen_f1", "unseen_f1", "all_f1", "harmonic_mean"):
            assert found[f"{key}_low"] <= found[key] <= found[f"{key}_high"]
        widths.append(found["all_f1_high"] - found["all_f1_low"])
    assert widths[1] < widths[0] / 2
    assert zero_shot_f1(GUESS, GOLD, SEEN, bootstrap=20, seed=1) == zero_shot_f1(
        GUESS, GOLD, SEEN, bootstrap=20, seed=1
    )


@pytest.mark.parametrize("function", [zero_shot_accuracy, zero_shot_f1])
@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((["a"], ["a", "b"]), {}, "1 predictions and 2 references"),
        (([], []), {}, "nothing to score"),
        ((["a", "a"], ["a", "c"]), {"labels": ["a", "b"]}, "'c' at row 1 is not among `labels`: a, b"),
        ((["a"], ["a"], ["z"]), {"labels": ["a", "b"]}, "Seen label 'z'"),
    ],
)
def test_bad_input_is_named(function, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments, **options)


def test_more_bad_input():
    with pytest.raises(ValueError, match="2 labels at row 0"):
        zero_shot_accuracy([["a", "b"]], [["a"]])
    for options in ({"bootstrap": -1}, {"confidence": 1.0}):
        with pytest.raises(ValueError, match="bootstrap"):
            zero_shot_f1(["a"], ["a"], **options)
    assert zero_shot_f1(["a"], ["none"], labels=["a"], none_label="none")["unseen_f1"] == 0  # allowed


@pytest.mark.parametrize("name", ["zero_shot_accuracy", "zero_shot_f1"])
def test_modules_take_names_and_ids_by_class_and_by_folder(name, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path))
    function = zero_shot_f1 if name == "zero_shot_f1" else zero_shot_accuracy
    ids = [[NAMES.index(label) for label in side] for side in (GUESS, GOLD)]
    forms = [((GUESS, GOLD), SEEN), (ids, [0, 2]), ((["3", *GUESS], ["3", *GOLD]), ["3"])]
    if name == "zero_shot_f1":
        lists = [[[label] if row % 7 else [] for row, label in enumerate(side)] for side in (GUESS, GOLD)]
        forms += [(lists, SEEN), (([None, "joy"], ["fear", "joy"]), SEEN), (([[2], []], [[], [1, 2]]), [2])]
    for module in (getattr(metrics, metrics.MODULES[name])(), evaluate.load(metrics.path_of(name))):
        for (guess, gold), seen in forms:
            got = module.compute(predictions=guess, references=gold, seen_labels=seen, none_label="none")
            assert got == pytest.approx(function(guess, gold, seen, none_label="none"))
