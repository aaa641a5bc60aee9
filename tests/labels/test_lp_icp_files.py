"""A calibration in a folder, and predictions as columns."""

import json

import numpy as np
import pytest
from datasets import Dataset

from hf_labels.labels.lp_icp import LabelPowersetICP
from hf_labels.labels.lp_icp_files import annotate
from hf_labels.metrics.functional.conformal import conformal_sets

RNG = np.random.default_rng(0)
PROBS = RNG.random((40, 3))
TRUTH = (RNG.random((40, 3)) < PROBS).astype(int)
NAMES = ["a", "b | c", "$x$\n"]


def test_round_trip_is_exact(tmp_path):
    icp = LabelPowersetICP(d=1.5, names=NAMES, max_sets=77).calibrate(PROBS * 4 - 2, TRUTH, from_logits=True)
    again = LabelPowersetICP.from_pretrained(icp.save_pretrained(tmp_path / "new" / "icp"))
    np.testing.assert_array_equal(icp.scores, again.scores)
    assert again.scores.dtype == np.float64 and again.names == tuple(NAMES)
    assert (again.d, again.max_sets, again.from_logits, again.num_labels) == (1.5, 77, True, 3)
    one, two = icp.predict(PROBS * 9 - 4, 0.2), again.predict(PROBS * 9 - 4, 0.2)
    assert [a.label_sets() for a in one] == [a.label_sets() for a in two]
    assert [a.confidence for a in one] == [a.confidence for a in two]


def test_files_that_are_not_there_or_do_not_fit_are_named(tmp_path):
    with pytest.raises(RuntimeError, match="not calibrated"):
        LabelPowersetICP().save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="lp_icp.json.*nothing was calibrated"):
        LabelPowersetICP.from_pretrained(tmp_path)
    LabelPowersetICP().calibrate(PROBS, TRUTH).save_pretrained(tmp_path)
    facts = json.loads((tmp_path / "lp_icp.json").read_text())
    for change, message in (({"q": 7}, "40 scores.*says 7"), ({"format": 9}, "format 9, this version reads 1")):
        (tmp_path / "lp_icp.json").write_text(json.dumps(facts | change))
        with pytest.raises(ValueError, match=message):
            LabelPowersetICP.from_pretrained(tmp_path)


@pytest.mark.parametrize("names", [NAMES, None])
def test_predictions_become_columns(names):
    icp = LabelPowersetICP(names=names).calibrate(PROBS[:30], TRUTH[:30])
    answers = icp.predict(PROBS[30:], 0.1)
    out = annotate(Dataset.from_dict({"text": [str(i) for i in range(10)]}), answers, max_sets=2)
    for row, answer in zip(out, answers, strict=True):
        assert row["label_sets"] == answer.label_sets(2) and row["set_size"] == str(answer.size)
        assert row["required"] == answer.required and row["uncertain"] == answer.uncertain
        assert row["credibility"] == answer.credibility and row["forced"] == answer.forced
    sizes = [answer.size for answer in answers]
    assert conformal_sets(out["set_size"][:], [False] * 10, 0.1)["mean_size"] == np.mean(sizes)
    with pytest.raises(ValueError, match="has 3 rows, there are 10 predictions"):
        annotate(Dataset.from_dict({"text": ["a"] * 3}), answers)


def test_huge_sizes_are_kept_exactly():
    icp = LabelPowersetICP().calibrate(np.full((2, 70), 0.5), np.zeros((2, 70)))
    out = annotate(Dataset.from_dict({"i": [0]}), icp.predict(np.full((1, 70), 0.2), 0.1), max_sets=1)
    assert int(out["set_size"][0]) == 2**70
