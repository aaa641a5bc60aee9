"""The light classifier: equals scikit-learn, drops what must not train, saves and loads, tells its errors."""

import datasets
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoModelForSequenceClassification

from hf_labels.models.tnt_llm import TaxonomyClassifier, TaxonomyClassifierConfig

NAMES = ["skin", "sugar", "mood", "Other"]
RNG = np.random.default_rng(0)
CENTERS = RNG.normal(size=(3, 8)) * 2


def vectors(texts):
    """A stand-in encoder: the first word says where the text lies."""
    rows = []
    for text in texts:
        word, _, number = text.partition(" ")
        noise = np.random.default_rng(int(number or 0)).normal(size=8)
        rows.append(CENTERS[["skin", "sugar", "mood"].index(word)] + noise if word in NAMES else noise)
    return np.array(rows, dtype=np.float32)


def labelled(count=90):
    labels = np.arange(count) % 3
    texts = [f"{NAMES[label]} {i}" for i, label in enumerate(labels)] + ["rain 1", "rain 2"]
    sets = np.eye(3, dtype=int)[labels]
    sets[::7, 0] = 1
    data = datasets.Dataset.from_dict(
        {"text": texts, "label": [*labels.tolist(), 3, -1], "labels": [*sets.tolist(), [0] * 3, [0] * 3]}
    )
    return data.cast_column("label", datasets.ClassLabel(names=NAMES))


def test_linear_head_equals_scikit_learn():
    data = labelled()
    model = TaxonomyClassifier.train_on(data, vectors, strength=1.0)
    x, y = vectors(data["text"][:90]), np.array(data["label"][:90])
    want = LogisticRegression(C=1.0, max_iter=1000).fit(x.astype(np.float64), y)
    got = model(features=torch.from_numpy(x)).logits.softmax(-1).detach().numpy()
    np.testing.assert_allclose(got, want.predict_proba(x), atol=1e-5)
    assert model.config.id2label == {0: "skin", 1: "sugar", 2: "mood"}
    assert model.predict(["skin 5", "sugar 9"])[1]["label"] == "sugar" and model.predict([]) == []


def test_fallback_is_a_class_on_demand_only():
    data = labelled()
    model = TaxonomyClassifier.train_on(data, vectors, keep_fallback=True, strength=1.0)
    assert model.config.id2label[3] == "Other" and model.classifier.out_features == 4


def test_several_labels_and_a_hidden_layer():
    data = labelled()
    several = TaxonomyClassifier.train_on(data, vectors, multi_label=True)
    assert several.config.problem_type == "multi_label_classification"
    found = several.predict(["sugar 3", "mood 4"])
    assert [{one["label"] for one in row} >= {name} for row, name in zip(found, ("sugar", "mood"), strict=True)] == [
        True
    ] * 2
    x = torch.from_numpy(vectors(data["text"][:90]))
    targets = torch.tensor(data["labels"][:90]).float()
    loss = several(features=x, labels=targets).loss
    torch.testing.assert_close(
        loss, torch.nn.functional.binary_cross_entropy_with_logits(several(features=x).logits, targets)
    )
    deep = TaxonomyClassifier.train_on(data, vectors, mlp_size=16)
    right = [one["label"] for one in deep.predict(data["text"][:90])]
    assert np.mean([a == NAMES[b] for a, b in zip(right, data["label"][:90], strict=True)]) > 0.9
    assert deep.hidden.weight.shape == (16, 8)


def test_two_labels_and_labels_without_rows(caplog):
    data = labelled().filter(lambda row: row["label"] in (0, 2))
    model = TaxonomyClassifier.train_on(data, vectors, strength=1.0)
    found = {one["label"] for one in model.predict(data["text"][:])}
    assert found == {"skin", "mood"} and "1 of 3 labels have no row" in caplog.text
    x, y = vectors(data["text"][:]), np.array(data["label"][:])
    want = LogisticRegression(C=1.0, max_iter=1000).fit(x.astype(np.float64), y).predict_proba(x)
    got = model(features=torch.from_numpy(x)).logits.softmax(-1).detach().numpy()
    np.testing.assert_allclose(got[:, [0, 2]], want, atol=1e-5)


def test_saved_head_loads_with_a_given_encoder(tmp_path):
    model = TaxonomyClassifier.train_on(labelled(), vectors)
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path, load_backbone=False)
    assert isinstance(again, TaxonomyClassifier)
    with pytest.raises(RuntimeError, match="has no backbone loaded"):
        again.predict(["skin 1"])
    whole = TaxonomyClassifier.from_pretrained(tmp_path, backbone=vectors)
    assert whole.predict(["skin 1", "mood 2"]) == model.predict(["skin 1", "mood 2"])
    with pytest.raises(ValueError, match="gives 2 features, this head takes 8"):
        TaxonomyClassifier.from_pretrained(tmp_path, backbone=lambda texts: np.zeros((len(texts), 2)))


def test_standard_losses_and_missing_labels():
    model = TaxonomyClassifier(TaxonomyClassifierConfig(hidden_size=4, num_labels=3))
    x = torch.randn(2, 4)
    loss = model(features=x, labels=torch.tensor([1, -100])).loss
    torch.testing.assert_close(
        loss, torch.nn.functional.cross_entropy(model(features=x).logits[:1], torch.tensor([1]))
    )
    assert len(model(features=x, return_dict=False)) == 1
    with pytest.raises(ValueError, match="exactly one"):
        model()


def test_bad_data_is_named():
    data = labelled()
    with pytest.raises(KeyError, match="body"):
        TaxonomyClassifier.train_on(data, vectors, text_column="body")
    with pytest.raises(ValueError, match=r"Only one label \(skin\) is left"):
        TaxonomyClassifier.train_on(data.filter(lambda row: row["label"] in (0, 3)), vectors)
    plain = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    with pytest.raises(ValueError, match="has no names"):
        TaxonomyClassifier.train_on(plain, vectors)
