"""Loads, in a fresh process with an empty cache, what `lp_icp_push.py` has pushed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from checks import check, main, raises

SHARED = Path(os.environ["LOOPBACK_SHARED"])


@check
def the_classifier_comes_back_whole():
    from hf_labels.models.lp_icp import ConformalMultiLabelClassifier

    kept = np.load(SHARED / "lp_icp.npz")
    classifier = ConformalMultiLabelClassifier.from_pretrained("tester/conformal")
    answers = classifier.predict(["w1 w2 w3", "w7"], 0.2)
    np.testing.assert_array_equal([a.credibility for a in answers], kept["p"])
    assert [a.size for a in answers] == kept["sizes"].tolist()


@check
def the_calibration_comes_back_alone():
    from hf_labels.labels.lp_icp import LabelPowersetICP

    for name, rows in (("tester/run", 24), ("tester/plain", 9), ("tester/only-icp", 9)):
        assert LabelPowersetICP.from_pretrained(name).num_calibration == rows


@check
def a_model_without_calibration_is_an_error():
    from huggingface_hub.errors import RepositoryNotFoundError

    from hf_labels.labels.lp_icp import LabelPowersetICP

    raises(RepositoryNotFoundError, LabelPowersetICP.from_pretrained, "tester/nothing-here")
    error = raises(FileNotFoundError, LabelPowersetICP.from_pretrained, "tester/not-calibrated")
    assert "nothing was calibrated for this model" in str(error)


if __name__ == "__main__":
    main()
