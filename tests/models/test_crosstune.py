import json
import logging

import fresh
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, pipeline

from hf_labels.data.encoders import EmbeddingBackbone, TextEncoder, resolve_backbone
from hf_labels.models.crosstune import CrossTuneConfig, CrossTuneForSequenceClassification
from tiny_text import DESCRIPTIONS, save_backbone, tiny_crosstune, tiny_encoder_model, tiny_tokenizer

TEXTS = ["oily skin and spots on the face", "awake in bed", "bad pain in the head and back one two three four five"]


def _ids(texts, tokenizer=None, **options):
    return (tokenizer or tiny_tokenizer())(texts, padding=True, return_tensors="pt", **options)


def _shake(model, seed=0):
    """Weights as after training: the identity alone hides mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator)
    return model


def test_rows_are_probabilities_in_every_pooling():
    for pooling in ("mask", "mean", "max", "cls", "last"):
        model = _shake(tiny_crosstune(text_pooling=pooling))
        with torch.no_grad():
            probs = model(**_ids(TEXTS)).logits.exp()
        assert probs.shape == (3, 3) and (probs >= 0).all()
        assert torch.allclose(probs.sum(1), torch.ones(3), atol=1e-6)


def test_permuting_labels_permutes_the_probabilities():
    model = _shake(tiny_crosstune())
    before = [{row["label"]: row["score"] for row in found} for found in model.predict(TEXTS, top_k=None)]
    model.set_labels({name: DESCRIPTIONS[name] for name in ("migraine", "acne", "insomnia")})
    assert model.config.id2label == {0: "migraine", 1: "acne", 2: "insomnia"}
    for old, found in zip(before, model.predict(TEXTS, top_k=None), strict=True):
        assert {row["label"]: row["score"] for row in found} == pytest.approx(old, abs=1e-6)


def test_identity_start_is_zero_shot_cosine():
    model = tiny_crosstune(num_heads=1)
    features, labels = model.encoder.encode(TEXTS), model.label_vectors.numpy()
    cosine = features @ labels.T / np.linalg.norm(features, axis=1, keepdims=True) / np.linalg.norm(labels, axis=1)
    with torch.no_grad():
        logits = model(features=torch.tensor(features)).logits.numpy()
    assert (logits.argmax(1) == cosine.argmax(1)).all()
    want = cosine * 16**0.5  # both have length sqrt(D), scores are divided by sqrt(D)
    assert np.allclose(logits - logits.mean(1, keepdims=True), want - want.mean(1, keepdims=True), atol=1e-4)


def test_features_path_equals_input_ids_path():
    for options in ({}, {"text_pooling": "mask"}, {"text_pooling": "last", "template": "one : {text}"}):
        model = _shake(tiny_crosstune(**options))
        with torch.no_grad():
            from_ids = model(**_ids(TEXTS)).logits
            from_features = model(features=torch.tensor(model.encoder.encode(TEXTS, batch_size=1))).logits
        assert torch.allclose(from_ids, from_features, atol=1e-5)


def test_left_padding_and_batch_neighbours_change_nothing():
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "left"
    for pooling in ("mask", "mean", "max", "cls", "last"):
        model = _shake(tiny_crosstune(text_pooling=pooling))
        with torch.no_grad():
            left, right = model(**_ids(TEXTS, tokenizer)).logits, model(**_ids(TEXTS)).logits
            alone = torch.cat([model(**_ids([text])).logits for text in TEXTS])
        assert torch.allclose(left, right, atol=1e-5) and torch.allclose(alone, right, atol=1e-5)


def test_padding_of_a_description_changes_nothing():
    model = tiny_crosstune()
    longer = {**DESCRIPTIONS, "long": " ".join(["pain in the head and back"] * 3)}
    alone = model.label_vectors.clone()
    model.set_labels(longer)
    assert torch.equal(model.label_vectors[:3], alone)


def test_label_vectors_are_maxima_over_the_words_only():
    model = tiny_crosstune(text_pooling="mask")
    assert model.config.label_pooling == "max"  # the paper; "mean" only when texts are mean-pooled
    ids = _ids([DESCRIPTIONS["acne"]])
    hidden = model.backbone(**{k: ids[k] for k in ("input_ids", "attention_mask")}).last_hidden_state[0]
    assert torch.allclose(model.label_vectors[0], hidden[1:-1].max(0).values, atol=1e-6)
    with_special = tiny_crosstune(text_pooling="mask", include_special_tokens=True)
    assert torch.allclose(with_special.label_vectors[0], hidden.max(0).values, atol=1e-6)
    assert tiny_crosstune().config.label_pooling == "mean"


def test_mask_survives_truncation():
    model = tiny_crosstune(text_pooling="mask", max_length=12)
    long, cut = "oily skin " * 30, "oily skin oily skin oily skin"  # 12 - 2 special - 4 of the template
    with torch.no_grad():
        one = model(**_ids([long.strip()])).logits
        assert torch.allclose(one, model(**_ids([cut])).logits, atol=1e-6)
        assert not torch.allclose(one, model(**_ids(["oily skin oily skin oily"])).logits, atol=1e-6)
    ids, mask = model.encoder._dress(**{k: v for k, v in _ids([long.strip()]).items() if k != "token_type_ids"})
    assert ids.shape[1] == 12 and (ids[0] == 4).sum() == 1 and ids[0, -1] == 3


def test_mask_before_the_text_is_the_one_that_is_read():
    model = tiny_crosstune(text_pooling="mask", template="{mask} : {text}")
    ids = _ids([f"[MASK] : {TEXTS[0]} [MASK]"])
    hidden = model.backbone(**{k: ids[k] for k in ("input_ids", "attention_mask")}).last_hidden_state[0]
    assert np.allclose(model.encoder.encode([TEXTS[0] + " [MASK]"])[0], hidden[1].numpy(), atol=1e-5)


def test_loss_and_label_errors():
    model = tiny_crosstune()
    features = torch.randn(3, 16)
    out = model(features=features, labels=torch.tensor([0, 2, -100]))
    want = -(out.logits[0, 0] + out.logits[1, 2]) / 2
    assert torch.allclose(out.loss, want)
    assert len(model(features=features, labels=torch.tensor([0, 2, 1]), return_dict=False)) == 2
    with pytest.raises(ValueError, match=r"\[0, 3\), got 3 at row 2"):
        model(features=features, labels=torch.tensor([0, 2, 3]))
    features[1, 4] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity at row 1"):
        model(features=features)
    with pytest.raises(ValueError, match="exactly one"):
        model()


def test_backbone_is_frozen_in_eval_mode_and_outside_the_weights():
    model = tiny_crosstune().train()
    assert set(model.state_dict()) == {"query.weight", "query.bias", "key.weight", "key.bias", "label_vectors"}
    assert not model.backbone.training and not any(p.requires_grad for p in model.backbone.parameters())
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    model(**_ids(TEXTS), labels=torch.tensor([0, 1, 2])).loss.backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.backbone.state_dict().items())
    assert model.query.weight.grad is not None and not model.key.bias.requires_grad


def test_key_bias_changes_no_probability():
    model = _shake(tiny_crosstune())
    before = model.predict(TEXTS, top_k=None)
    with torch.no_grad():
        model.key.bias += 3
    for old, new in zip(before, model.predict(TEXTS, top_k=None), strict=True):
        assert [row["score"] for row in new] == pytest.approx([row["score"] for row in old], abs=1e-5)


def test_dropout_acts_in_training_only():
    model = tiny_crosstune(dropout=0.5).train()
    features = torch.randn(4, 16)
    torch.manual_seed(0)
    assert not torch.equal(model(features=features).logits, model(features=features).logits)
    assert model.predict(["oily skin"]) == model.predict(["oily skin"]) and model.training


def test_round_trip_in_a_fresh_process_with_auto_and_pipeline(tmp_path):
    path = save_backbone(tmp_path)
    model = CrossTuneForSequenceClassification.from_backbone(
        path, DESCRIPTIONS, text_pooling="mask", num_heads=2, max_length=14
    )
    _shake(model).eval().save_pretrained(tmp_path / "saved")
    files = {file.name: file.stat().st_size for file in (tmp_path / "saved").iterdir()}
    assert set(files) <= {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert files["model.safetensors"] < 6000  # 2 * 16 * 16 + 2 * 16 + 3 * 16 numbers, no backbone
    code = (
        "import sys, json\n"
        "import hf_labels.models.crosstune\n"
        "from transformers import AutoModelForSequenceClassification, pipeline\n"
        "texts = json.loads(sys.argv[2])\n"
        "model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])\n"
        "pipe = pipeline('text-classification', model=sys.argv[1], top_k=None)\n"
        "print(json.dumps([model.predict(texts, top_k=None), pipe(texts), model.key.bias.requires_grad]))\n"
    )
    texts = [*TEXTS, "oily skin " * 40]
    done = fresh.run(["-c", code, tmp_path / "saved", json.dumps(texts)])
    assert done.returncode == 0, done.stderr[-2000:]
    predicted, piped, trainable = json.loads(done.stdout.splitlines()[-1])
    assert not trainable
    for want, one, two in zip(model.predict(texts, top_k=None), predicted, piped, strict=True):
        expected = {row["label"]: row["score"] for row in want}
        assert {row["label"]: row["score"] for row in one} == pytest.approx(expected, abs=1e-6)
        assert {row["label"]: row["score"] for row in two} == pytest.approx(expected, abs=1e-5)


def test_pipeline_of_a_model_in_memory_equals_predict():
    model = _shake(tiny_crosstune(text_pooling="mask"))
    pipe = pipeline("text-classification", model=model, tokenizer=tiny_tokenizer())
    for got, want in zip(pipe(TEXTS), model.predict(TEXTS), strict=True):
        assert got["label"] == want["label"] and got["score"] == pytest.approx(want["score"], abs=1e-5)


def test_missing_backbone_is_named_with_the_repair(tmp_path):
    path = save_backbone(tmp_path)
    model = CrossTuneForSequenceClassification.from_backbone(path, DESCRIPTIONS, num_heads=2)
    model.config.backbone = "nobody/no-such-encoder"
    model.save_pretrained(tmp_path / "saved")
    with pytest.raises(OSError, match="nobody/no-such-encoder.*backbone="):
        CrossTuneForSequenceClassification.from_pretrained(tmp_path / "saved")
    again = CrossTuneForSequenceClassification.from_pretrained(tmp_path / "saved", backbone=path)
    assert again.predict(TEXTS) == model.predict(TEXTS)
    alone = CrossTuneForSequenceClassification.from_pretrained(tmp_path / "saved", load_backbone=False)
    features = model.encoder.encode(TEXTS)
    assert alone.predict([], features=features) == model.predict(TEXTS)
    with pytest.raises(RuntimeError, match="nobody/no-such-encoder.*features="):
        alone.predict(TEXTS)


def test_another_backbone_is_noticed(tmp_path, caplog):
    model = tiny_crosstune()
    model.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, logger="hf_labels"):
        CrossTuneForSequenceClassification.from_pretrained(
            tmp_path, backbone=tiny_encoder_model(seed=1), tokenizer=tiny_tokenizer()
        )
    assert "differ from those this head was trained on" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="hf_labels"):
        CrossTuneForSequenceClassification.from_pretrained(
            tmp_path, backbone=tiny_encoder_model(), tokenizer=tiny_tokenizer()
        )
    assert "differ" not in caplog.text
    with pytest.raises(ValueError, match="gives 4 features, this head takes 16"):
        CrossTuneForSequenceClassification.from_pretrained(tmp_path, backbone=lambda texts: np.ones((len(texts), 4)))


def test_auto_classes_know_the_model(tmp_path):
    model = tiny_crosstune()
    model.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), CrossTuneConfig)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, load_backbone=False)
    assert isinstance(loaded, CrossTuneForSequenceClassification)
    fresh = AutoModelForSequenceClassification.from_config(model.config)
    assert torch.equal(fresh.query.weight, torch.eye(16)) and torch.equal(fresh.label_vectors, torch.zeros(3, 16))


def test_set_labels_with_the_same_descriptions_changes_nothing_and_others_generalise():
    model = _shake(tiny_crosstune())
    before = model.predict(TEXTS, top_k=None)
    model.set_labels(DESCRIPTIONS)
    assert model.predict(TEXTS, top_k=None) == before
    model.set_labels({**DESCRIPTIONS, "obesity": "heavy weight and fat"})
    assert model.config.num_labels == 4 and model(**_ids(TEXTS)).logits.shape == (3, 4)


def test_black_box_gives_features_by_a_call_alone(tmp_path):
    def embed(texts):
        return np.stack([np.cos(np.arange(1, 9) * (len(text) % 7 + 1)) for text in texts])

    model = CrossTuneForSequenceClassification.from_backbone(embed, DESCRIPTIONS, num_heads=2, model_id="service-1")
    assert model.config.hidden_size == 8 and model.config.backbone == "service-1"
    assert np.allclose(model.label_vectors.numpy(), embed(list(DESCRIPTIONS.values())), atol=1e-6)
    want = model.predict(TEXTS)
    model.save_pretrained(tmp_path)
    alone = CrossTuneForSequenceClassification.from_pretrained(tmp_path)  # nothing to load, no error
    assert alone.predict([], features=embed(TEXTS)) == want
    assert CrossTuneForSequenceClassification.from_pretrained(tmp_path, backbone=embed).predict(TEXTS) == want

    class Service:
        model_id = "service-2"

        def embed(self, texts):
            return embed(texts)

    assert (
        CrossTuneForSequenceClassification.from_backbone(Service(), DESCRIPTIONS, num_heads=2).predict(TEXTS) == want
    )
    with pytest.raises(ValueError, match="returned shape"):
        EmbeddingBackbone(lambda texts: np.ones(3)).encode(["a"])
    with pytest.raises(TypeError, match="must be an id"):
        CrossTuneForSequenceClassification.from_backbone(3, DESCRIPTIONS)


def test_predict_looks_like_a_pipeline():
    model = tiny_crosstune()
    assert model.predict([]) == []
    (one,) = model.predict("oily skin")
    assert set(one) == {"label", "score"}
    two = model.predict(TEXTS, top_k=2)
    assert [len(row) for row in two] == [2, 2, 2] and all(row[0]["score"] >= row[1]["score"] for row in two)
    assert sum(row["score"] for row in model.predict("oily skin", top_k=None)[0]) == pytest.approx(1)
    with pytest.raises(ValueError, match="top_k"):
        model.predict(TEXTS, top_k=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_heads": 5}, "num_heads=5 and hidden_size=16"),
        ({"labels": {"acne": "spots"}}, "at least two labels"),
        ({"labels": ["acne", "acne"]}, "twice"),
        ({"labels": {"": "", "acne": "spots"}}, "neither a name nor a description"),
        ({"template": "It was [MASK]"}, "must hold `{text}` once"),
        ({"template": "{text} good", "text_pooling": "mask"}, "needs a tokenizer with a mask token"),
        ({"text_pooling": "median"}, "must be one of mask, mean, max, cls, last"),
        ({"init": "zeros"}, "'identity' or 'xavier'"),
        ({"label_pooling": "min"}, "'max' or 'mean'"),
        ({"dropout": 1.0}, "dropout"),
        ({"label_template": "label"}, "must hold"),
        ({"max_length": 5, "text_pooling": "mask"}, "leaves no room"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_crosstune(**settings)


def test_doubtful_descriptions_warn(caplog):
    with caplog.at_level(logging.WARNING, logger="hf_labels"):
        model = tiny_crosstune(labels={"acne": "bad skin", "spots": "bad skin ", "pain": ""})
    assert "acne, spots" in caplog.text and "never be told apart" in caplog.text
    assert "'pain' has no description" in caplog.text
    assert model.config.label_descriptions["pain"] == "pain"
    probs = model.predict(TEXTS, top_k=None)
    scores = [{row["label"]: row["score"] for row in found} for found in probs]
    assert all(row["acne"] == pytest.approx(row["spots"], abs=1e-6) for row in scores)


def test_description_of_no_token_is_refused():
    model = tiny_crosstune()
    with pytest.raises(ValueError, match="no token"):
        model.set_labels({"acne": "spots", "other": "[CLS]"})


def test_label_space_and_label_template():
    from hf_labels.labels.verbalize import LabelSpace

    space = LabelSpace.from_descriptions(DESCRIPTIONS)
    assert torch.equal(tiny_crosstune(labels=space).label_vectors, tiny_crosstune().label_vectors)
    named = tiny_crosstune(label_template="{name} : {description}")
    by_hand = tiny_crosstune(labels={name: f"{name} : {text}" for name, text in DESCRIPTIONS.items()})
    assert torch.equal(named.label_vectors, by_hand.label_vectors)
    assert named.config.label_descriptions == DESCRIPTIONS


def test_xavier_start_is_not_the_identity_and_seeded():
    torch.manual_seed(0)
    one = tiny_crosstune(init="xavier", backbone=tiny_encoder_model())
    assert not torch.allclose(one.query.weight, torch.eye(16)) and torch.equal(one.query.bias, torch.zeros(16))


def test_set_labels_without_backbone_takes_vectors(tmp_path):
    model = tiny_crosstune()
    model.save_pretrained(tmp_path)
    alone = CrossTuneForSequenceClassification.from_pretrained(tmp_path, load_backbone=False)
    alone.set_labels(["a", "b"], label_vectors=np.eye(2, 16))
    assert alone(features=torch.randn(2, 16)).logits.shape == (2, 2)
    with pytest.raises(ValueError, match=r"\(2, 16\), got \(2, 4\)"):
        alone.set_labels(["a", "b"], label_vectors=np.eye(2, 4))


def test_package_reference_resolves_or_names_the_package():
    assert resolve_backbone("org/model") == "org/model"
    with pytest.raises(OSError, match="no_such_package.*pip install no-such-package"):
        resolve_backbone("package://no_such_package/model")
    with pytest.raises(OSError, match="no folder 'nowhere'"):
        resolve_backbone("package://hf_labels/nowhere")
    with pytest.raises(OSError, match="package://no_such_package/model"):
        TextEncoder.from_pretrained("package://no_such_package/model")


def test_causal_model_reads_the_last_real_token():
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    tokenizer.mask_token = None
    gpt2 = GPT2Model(GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2, n_positions=64))
    encoder = TextEncoder(gpt2, tokenizer)
    assert encoder.pooling == "last"
    hidden = gpt2(**{k: v for k, v in _ids(TEXTS[:1]).items() if k != "token_type_ids"}).last_hidden_state
    assert np.allclose(encoder.encode(TEXTS)[0], hidden[0, -1].detach().numpy(), atol=1e-5)


def test_wide_fields_of_the_config_are_checked():
    with pytest.raises(Exception, match="num_heads"):
        CrossTuneConfig(num_heads="four")


def test_loaded_model_needs_its_tokenizer():
    with pytest.raises(ValueError, match="tokenizer="):
        CrossTuneForSequenceClassification.from_backbone(tiny_encoder_model(), DESCRIPTIONS)
