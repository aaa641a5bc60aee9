"""A real tiny classifier with its calibration: predicted from raw inputs, kept in one folder."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from hf_labels.labels.lp_icp import LabelPowersetICP
from hf_labels.models.lp_icp import ConformalMultiLabelClassifier
from tiny_text import WORDS, tiny_tokenizer

NAMES = {0: "skin", 1: "sleep", 2: "head", 3: "food"}


def bert(**changes):
    torch.manual_seed(0)
    settings = {"vocab_size": len(WORDS) + 5, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings |= {"intermediate_size": 32, "initializer_range": 0.5, "id2label": NAMES}
    settings |= {"label2id": {name: i for i, name in NAMES.items()}, "problem_type": "multi_label_classification"}
    return BertForSequenceClassification(BertConfig(**settings | changes))


def rows(number=30, seed=0):
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, rng.integers(3, 9))) for _ in range(number)]
    return Dataset.from_dict({"text": texts, "labels": rng.integers(0, 2, (number, 4)).tolist()})


def test_it_is_the_predictor_on_the_models_logits(tmp_path):
    model, tokenizer, data, new = bert(), tiny_tokenizer(), rows(), rows(9, 1)
    classifier = ConformalMultiLabelClassifier(model.train(), tokenizer).calibrate(data, batch_size=7)
    assert model.training and classifier.icp.names == tuple(NAMES.values())
    encoded = [
        dict(tokenizer(text)) | {"labels": [float(x) for x in row]}
        for text, row in zip(data["text"], data["labels"], strict=True)
    ]
    trainer = Trainer(
        model,
        TrainingArguments(tmp_path, use_cpu=True, report_to="none", per_device_eval_batch_size=30),
        processing_class=tokenizer,
    )
    by_trainer = LabelPowersetICP().calibrate(trainer.predict(encoded), from_logits=True)
    np.testing.assert_allclose(classifier.icp.scores, by_trainer.scores, rtol=1e-5)
    answers = classifier.predict(new["text"][:], 0.2, batch_size=2)
    want = classifier.icp.predict(classifier.logits(new["text"][:]), 0.2)
    assert [a.size for a in answers] == [a.size for a in want] and len(answers) == 9
    assert classifier.score(new, epsilons=[0.2])[0]["mean_size"] == np.mean([a.size for a in answers])
    assert classifier.logits([]).shape == (0, 4)


def test_one_folder_holds_all(tmp_path):
    classifier = ConformalMultiLabelClassifier(bert(), tiny_tokenizer()).calibrate(rows(), d=1)
    classifier.save_pretrained(tmp_path / "all")
    again = ConformalMultiLabelClassifier.from_pretrained(tmp_path / "all")
    texts = rows(5, 2)["text"][:]
    assert [a.ranked(9) for a in again.predict(texts, 0.3)] == [a.ranked(9) for a in classifier.predict(texts, 0.3)]
    assert again.icp.d == 1
    (tmp_path / "all" / "lp_icp.json").unlink()
    with pytest.raises(FileNotFoundError, match="nothing was calibrated"):
        ConformalMultiLabelClassifier.from_pretrained(tmp_path / "all")


def test_images_work_too(tmp_path):
    from PIL import Image
    from transformers import ViTImageProcessorPil

    torch.manual_seed(0)
    config = ViTConfig(image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    config.update({"intermediate_size": 32, "num_labels": 3, "problem_type": "multi_label_classification"})
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)) for _ in range(12)]
    data = Dataset.from_dict({"image": images, "labels": rng.integers(0, 2, (12, 3)).tolist()})
    classifier = ConformalMultiLabelClassifier(ViTForImageClassification(config), processor)
    classifier.calibrate(data, "image").save_pretrained(tmp_path)
    again = ConformalMultiLabelClassifier.from_pretrained(tmp_path)
    assert [a.size for a in again.predict(images, 0.3)] == [a.size for a in classifier.predict(images, 0.3)]


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="'single_label_classification', expected 'multi_label_classification'"):
        ConformalMultiLabelClassifier(bert(problem_type="single_label_classification"), tiny_tokenizer())
    icp = LabelPowersetICP().calibrate([[0.1, 0.2]], [[0, 1]])
    with pytest.raises(ValueError, match="calibrated for 2 labels"):
        ConformalMultiLabelClassifier(bert(), tiny_tokenizer(), icp)
    classifier = ConformalMultiLabelClassifier(bert(), tiny_tokenizer())
    for call in (lambda: classifier.predict(["a"]), lambda: classifier.score(rows()), lambda: classifier.icp):
        with pytest.raises(RuntimeError, match="not calibrated"):
            call()
    with pytest.raises(KeyError, match="`tags` is missing"):
        classifier.calibrate(rows(), label_column="tags")
    flat = Dataset.from_dict({"text": ["a"], "labels": [1]})
    with pytest.raises(ValueError, match="`labels` holds one value per row"):
        classifier.calibrate(flat)
