"""The classifier of latent classes: equal to the tool, whole after loading, usable in a pipeline."""

import numpy as np
import pytest
import torch
from lls_toys import MIXTURES, draw
from transformers import AutoModelForImageClassification, BertModel, pipeline

import toys
from hf_labels.labels.latent_label_shift import LatentLabelShift
from hf_labels.models.latent_label_shift import LLSConfig, LLSForClassification
from tiny_text import tiny_tokenizer

PROBS, DOMAINS, _ = draw(noise=0.3)
LLS = LatentLabelShift(3).fit(np.log(PROBS), DOMAINS, from_logits=True, train_counts=[3, 1, 2, 1])
PIXELS = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
WHERE = torch.arange(40) % 5 - 1


def made(**options):
    return LLSForClassification.from_discriminator(toys.tiny_vit(4).eval(), LLS, **options)


@torch.no_grad()
def test_logits_are_the_tools_posterior():
    model, stock = made(), toys.tiny_vit(4).eval()
    logits = stock(PIXELS).logits * 20
    stock.classifier.weight.mul_(20)
    stock.classifier.bias.mul_(20)
    model = LLSForClassification.from_discriminator(stock, LLS)
    output = model(pixel_values=PIXELS, domain=WHERE)
    torch.testing.assert_close(output.domain_logits, logits, rtol=1e-4, atol=1e-4)
    want = LLS.predict_proba(logits.numpy(), WHERE.numpy())
    np.testing.assert_allclose(output.logits.exp().numpy(), want, atol=1e-5)
    np.testing.assert_allclose(model(PIXELS).logits.exp().numpy(), LLS.posterior(logits.numpy()), atol=1e-5)
    assert (want == 0).any() and output.logits.isfinite().all()
    labels = torch.tensor(want.argmax(1))
    labels[3] = -100
    loss = model(PIXELS, domain=WHERE, labels=labels).loss
    known = labels >= 0
    assert loss.item() == pytest.approx(-output.logits[known, labels[known]].mean().item(), rel=1e-5)
    assert model(PIXELS, return_dict=False)[0].shape == (40, 3)


@torch.no_grad()
def test_saved_model_is_whole(tmp_path):
    model = made(class_names=["cat", "dog", "owl"])
    model.save_pretrained(tmp_path)
    for loader in (LLSForClassification, AutoModelForImageClassification):
        again = loader.from_pretrained(tmp_path)
        assert again.config.id2label == {0: "cat", 1: "dog", 2: "owl"} and again.config.num_domains == 4
        torch.testing.assert_close(again(PIXELS, domain=WHERE).logits, model(PIXELS, domain=WHERE).logits)
        torch.testing.assert_close(again.domain_weights, model.domain_weights)
    np.testing.assert_array_equal(LatentLabelShift.from_pretrained(tmp_path).class_prior, LLS.class_prior)
    half = LLSForClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    near = half(PIXELS.bfloat16(), domain=WHERE).logits.exp()
    assert (near - model(PIXELS, domain=WHERE).logits.exp()).abs().max() < 0.1


@torch.no_grad()
def test_fresh_config_is_a_classifier_of_domains():
    inner = toys.tiny_vit(4).config.to_dict()
    model = LLSForClassification(LLSConfig(discriminator_config=inner, num_labels=2)).eval()
    probs = model(PIXELS).domain_logits.softmax(-1)
    want = torch.stack([probs[:, 0] + probs[:, 2], probs[:, 1] + probs[:, 3]], 1)
    torch.testing.assert_close(model(PIXELS).logits.exp(), want)


def test_text_pipeline_gives_probabilities_under_equal_domains(tmp_path):
    model = LLSForClassification.from_discriminator(toys.tiny_bert(4), LLS)
    assert model.config.modality == "text" and model.task == "text-classification"
    tokenizer = tiny_tokenizer()
    texts = ["head", "skin pain"]
    found = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)(texts)
    with torch.no_grad():
        want = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.exp()
    for row, probs in zip(found, want, strict=True):
        assert {one["label"]: pytest.approx(one["score"], abs=1e-5) for one in row} == {
            f"class_{i}": p.item() for i, p in enumerate(probs)
        }


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="discriminator has 3 labels, the tool 4 domains"):
        LLSForClassification.from_discriminator(toys.tiny_vit(3), LLS)
    with pytest.raises(ValueError, match="2 `class_names` for 3 classes"):
        made(class_names=["a", "b"])
    with pytest.raises(ValueError, match="computes `solver='clip'`, the tool has 'nnls'"):
        tool = LatentLabelShift(3, solver="nnls").fit(PROBS, DOMAINS)
        LLSForClassification.from_discriminator(toys.tiny_vit(4), tool)
    with pytest.raises(ValueError, match="`modality` must be one of text, image, audio"):
        LLSConfig(modality="smell")
    with pytest.raises(ValueError, match="5 classes cannot be told apart by 4 domains"):
        LLSConfig(discriminator_config=toys.tiny_vit(4).config.to_dict(), num_labels=5)
    with pytest.raises(TypeError, match="BertModel is no stock classifier"):
        bert = BertModel(toys.bert_config(4))
        LLSForClassification.from_discriminator(bert, LLS)
    model = made()
    for bad in (4, -2):
        with pytest.raises(ValueError, match=rf"ids in \[0, 4\), or -1 for an unknown one, got {bad}"):
            model(PIXELS[:2], domain=torch.tensor([0, bad]))
    with pytest.raises(ValueError, match=r"tool has shape \(4, 2\)"):
        model.set_mixtures(LatentLabelShift(2, check="ignore").fit_matrix(np.full((5, 3), 1 / 5) @ MIXTURES))
    model.lls = None
    with pytest.raises(RuntimeError, match="no tool beside it"):
        model.push_to_hub("me/model")
