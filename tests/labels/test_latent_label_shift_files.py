"""A fit in a folder, and the classes as columns of a data set."""

import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset
from lls_toys import draw

from hf_labels.labels.latent_label_shift import LatentLabelShift

PROBS, DOMAINS, LABELS = draw(noise=0.2)


def test_round_trip_is_exact(tmp_path):
    lls = LatentLabelShift(3, 7, solver="nnls", check="warn", restarts=4, seed=5)
    lls.fit(
        np.log(PROBS), DOMAINS, from_logits=True, train_counts=[1, 2, 3, 4], domain_names=["a", "b | c", "$x", "é"]
    )
    again = LatentLabelShift.from_pretrained(lls.save_pretrained(tmp_path / "new" / "lls"))
    for name in ("class_prior", "cluster_given_class", "domain_given_class", "domain_weights", "cluster_centres"):
        np.testing.assert_array_equal(getattr(again, name), getattr(lls, name))
    for name in ("num_classes", "num_clusters", "solver", "check", "restarts", "seed", "from_logits", "domain_names"):
        assert getattr(again, name) == getattr(lls, name), name
    assert again.report == lls.report
    one, two = (tool.predict_proba(np.log(PROBS), DOMAINS) for tool in (lls, again))
    np.testing.assert_array_equal(one, two)


def test_one_class_and_refused_checks_are_kept_too(tmp_path):
    lls = LatentLabelShift(1).fit(PROBS, DOMAINS)
    again = LatentLabelShift.from_pretrained(lls.save_pretrained(tmp_path))
    assert np.isnan(again.report.rank_p_value) and again.domain_weights is None
    assert "NaN" not in (tmp_path / "latent_label_shift.json").read_text()


def test_files_that_are_not_there_or_do_not_fit_are_named(tmp_path):
    with pytest.raises(RuntimeError, match="not fitted"):
        LatentLabelShift(3).save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="latent_label_shift.json.*no classes were found"):
        LatentLabelShift.from_pretrained(tmp_path)
    LatentLabelShift(3).fit(PROBS, DOMAINS).save_pretrained(tmp_path)
    facts = json.loads((tmp_path / "latent_label_shift.json").read_text())
    changes = (
        ({"num_domains": 7}, r"shape \(3, 4\).*says \(3, 7\)"),
        ({"format": 9}, "format 9, this version reads 1"),
    )
    for change, message in changes:
        (tmp_path / "latent_label_shift.json").write_text(json.dumps(facts | change))
        with pytest.raises(ValueError, match=message):
            LatentLabelShift.from_pretrained(tmp_path)


def test_classes_become_columns():
    lls = LatentLabelShift(3).fit(PROBS, DOMAINS)
    data = Dataset.from_dict({"text": [str(i) for i in range(600)], "domain": DOMAINS})
    data = data.cast_column("domain", ClassLabel(names=list("abcd")))
    out = lls.label(data, PROBS)
    want = lls.predict_proba(PROBS, DOMAINS)
    np.testing.assert_allclose(out["soft_labels"][:], want, atol=1e-6)
    assert out["labels"][:] == want.argmax(1).tolist()
    assert out.features["labels"].names == ["class_0", "class_1", "class_2"] and out["text"][3] == "3"
    unknown = lls.label(data, PROBS, None, prefix="found_")
    np.testing.assert_allclose(unknown["found_soft_labels"][:], lls.posterior(PROBS), atol=1e-6)
    with pytest.raises(ValueError, match="Column `labels` is there already.*prefix"):
        lls.label(out, PROBS)
    with pytest.raises(KeyError, match="`site` is missing"):
        lls.label(data, PROBS, "site")
    with pytest.raises(ValueError, match="600 rows, there are 5 rows"):
        lls.label(data, PROBS[:5], None)
    with pytest.raises(ValueError, match="gives no probabilities"):
        LatentLabelShift(3, solver="pinv").fit(PROBS, DOMAINS).label(data, PROBS)
