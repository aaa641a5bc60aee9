"""The pair encoder: its features by hand, its start as a cosine, pairs of any tokenizer, saving, and its errors."""

import numpy as np
import pytest
import torch
from tokenizers import processors
from torch.nn.functional import cosine_similarity
from transformers import AutoModelForSequenceClassification, pipeline
from zero_shot_toys import HYPOTHESES, pair_encoder, tiny_tokenizer

from hf_labels.data.encoders import TextEncoder
from hf_labels.losses.zero_shot_tc import entailment_loss
from hf_labels.models.zero_shot_tc import HypothesisZeroShotPipeline
from hf_labels.models.zero_shot_tc_pairs import PairEncoderConfig, PairEncoderForSequenceClassification

PREMISES = ["oily skin and spots", "awake in bed at night one two three", "the head hurts"]
CLAIMS = ["it was acne .", "it was acne .", "the head hurts bad"]


def vectors(model, texts):
    return torch.from_numpy(TextEncoder(model.encoder, tiny_tokenizer(), pooling="mean").encode(texts))


def batch(tokenizer, **settings):
    return tokenizer(PREMISES, CLAIMS, padding=True, return_tensors="pt", **settings)


@torch.no_grad()
def test_untrained_scores_are_the_cosine(tmp_path):
    model = pair_encoder(tmp_path, initial_scale=8.0, initial_threshold=0.5)
    logits = model(**batch(tiny_tokenizer())).logits
    cosine = cosine_similarity(vectors(model, PREMISES), vectors(model, CLAIMS))
    torch.testing.assert_close(logits[:, 0] - logits[:, 1], 8.0 * (cosine - 0.5), atol=1e-5, rtol=0)


@torch.no_grad()
def test_features_equal_those_written_by_hand(tmp_path):
    model = pair_encoder(tmp_path)
    torch.nn.init.normal_(model.head.weight)
    u, v = (x / x.norm(dim=1, keepdim=True) for x in (vectors(model, PREMISES), vectors(model, CLAIMS)))
    rows = torch.cat([u * v, (u - v).abs(), 5 * (u * v).sum(1, keepdim=True)], 1)
    want = rows @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(**batch(tiny_tokenizer())).logits, want, atol=1e-5, rtol=0)
    given = {"premise_features": 3 * vectors(model, PREMISES), "hypothesis_features": vectors(model, CLAIMS)}
    torch.testing.assert_close(model(**given).logits, want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_padding_side_token_types_and_doubled_separators_do_not_matter(tmp_path):
    model = pair_encoder(tmp_path)
    want = model(**batch(tiny_tokenizer())).logits
    left = tiny_tokenizer()
    left.padding_side = "left"
    torch.testing.assert_close(model(**batch(left)).logits, want, atol=1e-6, rtol=0)
    without = batch(tiny_tokenizer(), return_token_type_ids=False)
    assert "token_type_ids" not in without
    torch.testing.assert_close(model(**without).logits, want, atol=1e-6, rtol=0)
    roberta = tiny_tokenizer()
    roberta._tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    pairs = batch(roberta)
    assert (pairs["input_ids"][0] == 3).sum() == 3  # one and two between, one at the end
    torch.testing.assert_close(model(**pairs).logits, want, atol=1e-6, rtol=0)


def test_equal_texts_of_a_batch_are_encoded_once(tmp_path):
    model, calls = pair_encoder(tmp_path), []
    forward = model.encoder.forward
    model.encoder.forward = lambda **inputs: calls.append(len(inputs["input_ids"])) or forward(**inputs)
    model(**batch(tiny_tokenizer()))
    assert calls == [5]  # three premises and two claims


def test_a_frozen_encoder_gets_no_gradient_and_no_dropout(tmp_path):
    labels = torch.tensor([0, 1, -100])
    for frozen in (True, False):
        model = pair_encoder(tmp_path, freeze_encoder=frozen).train()
        assert model.encoder.training is not frozen and model.head.training
        output = model(**batch(tiny_tokenizer()), labels=labels)
        torch.testing.assert_close(output.loss, entailment_loss(output.logits, labels))
        output.loss.backward()
        moved = {name for name, p in model.named_parameters() if p.grad is not None}
        assert {"head.weight", "head.bias"} <= moved and (len(moved) == 2) is frozen


@torch.no_grad()
def test_saved_and_loaded_by_the_auto_class_and_both_pipelines(tmp_path):
    model = pair_encoder(tmp_path)
    torch.nn.init.normal_(model.head.weight)
    model.save_pretrained(tmp_path / "saved")
    tiny_tokenizer().save_pretrained(tmp_path / "saved")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    assert type(again) is PairEncoderForSequenceClassification and again.config.label2id["entailment"] == 0
    torch.testing.assert_close(again(**batch(tiny_tokenizer())).logits, model(**batch(tiny_tokenizer())).logits)
    stock = pipeline("zero-shot-classification", model=str(tmp_path / "saved"))
    ours = HypothesisZeroShotPipeline(model=again, tokenizer=tiny_tokenizer())
    settings = {"hypothesis_template": "it was {} .", "batch_size": 4}
    one, two = (
        pipe(PREMISES, list(HYPOTHESES), **settings)
        for pipe in (stock, lambda *a, **k: ours(*a, score="pipeline", **k))
    )
    for row, other in zip(one, two, strict=True):
        np.testing.assert_allclose(row["scores"], other["scores"], atol=1e-5)
    assert model(**batch(tiny_tokenizer()), return_dict=False)[0].shape == (3, 2)


def test_bad_input_is_named(tmp_path):
    model = pair_encoder(tmp_path)
    for inputs, message in (
        ({}, "Give `input_ids` of pairs"),
        ({"premise_features": torch.zeros(1, 16)}, "Give `input_ids`"),
        (dict(tiny_tokenizer()(PREMISES[:1], return_tensors="pt")), "holds one text only"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**inputs)
    with pytest.raises(OSError, match="`nowhere/nothing` cannot be loaded"):
        PairEncoderForSequenceClassification.from_backbone("nowhere/nothing")
    bare = tiny_tokenizer()
    bare.sep_token = None
    with pytest.raises(ValueError, match="no `sep_token`"):
        PairEncoderForSequenceClassification.from_backbone(str(tmp_path / "backbone"), bare)
    for settings, message in (
        ({"initial_scale": 0.0}, "above 0, got 0"),
        ({"id2label": {0: "no", 1: "entailment"}}, "Class 0 of a pair encoder is entailment"),
    ):
        with pytest.raises(ValueError, match=message):
            PairEncoderConfig(**settings)
