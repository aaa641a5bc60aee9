"""`SourceBank`: features once, heads from labelled rows, one store of mixed soft labels; sources of every kind."""

import numpy as np
import pytest
import torch
from datasets import Dataset, Image
from distill_weighted_toys import NAMES, images, noise, source, student
from PIL import Image as Pictures

import toys
from hf_labels.data.distill_weighted import Source, SourceBank
from hf_labels.labels.linear_head import fit_linear_head
from hf_labels.labels.task_similarity import METRICS, task_similarity
from hf_labels.losses.distill_weighted import source_weights

TEXT = Dataset.from_dict({"text": ["one", "two", "three"], "labels": [0, 1, 0]})
LABELED, UNLABELED = images(24), images(18, first=50, seed=1).remove_columns("labels")


def bank(*sources, **options):
    return SourceBank(list(sources) or [source(), noise()], **options)


@pytest.mark.parametrize("metric", ["parc", "probe_accuracy", "knn", "hscore"])
def test_similarities_are_those_of_the_features_and_tell_good_from_bad(metric):
    found = bank().similarities(LABELED, metric)
    features = source().encode([np.asarray(x, np.float32) for x in LABELED["pixel_values"]])["features"]
    assert found["halves"] == pytest.approx(task_similarity(features, LABELED["labels"][:], metric))
    assert found["halves"] > found["noise"] and list(found) == ["halves", "noise"]


def test_metrics_of_the_sources_own_classes():
    assert {"leep", "nce"} <= set(METRICS)
    for metric in ("leep", "nce"):
        assert -2 < bank(source()).similarities(LABELED, metric)["halves"] < 0
    with pytest.raises(ValueError, match="Source `noise`: `leep` needs `source_probs`"):
        bank().similarities(LABELED, "leep")


def test_the_probe_is_a_part_of_the_labelled_rows():
    read = []

    def encode(items):
        read.append(len(items))
        return source().encode(items)

    bank(Source("counted", encode)).similarities(LABELED, probe_size=9)
    assert read == [9]
    some = LABELED.remove_columns("labels").add_column("labels", [0, 1, -1] * 8)
    bank(Source("counted", encode)).similarities(some)
    assert read == [9, 16]


@pytest.mark.parametrize("power", [0, 1, float("inf")])
def test_store_holds_the_weighted_mixture_of_the_heads(power):
    shelf = bank()
    near = shelf.similarities(LABELED)
    weights = source_weights(near, power)
    store = shelf.pseudo_labels(LABELED, UNLABELED, weights, similarities=near, power=power)
    rows = np.concatenate([LABELED["index"][:], UNLABELED["index"][:]])
    want = np.zeros((42, 3))
    for name, made in (("halves", source()), ("noise", noise())):
        known, rest = (
            made.encode([np.asarray(x, np.float32) for x in part["pixel_values"]])["features"]
            for part in (LABELED, UNLABELED)
        )
        head = fit_linear_head(known, LABELED["labels"][:])
        want += weights[name] * np.concatenate([head.probs(known), head.probs(rest)])
    torch.testing.assert_close(store.decode(store.lookup(rows)).double(), torch.tensor(want), rtol=0, atol=1e-3)
    assert store.info.id2label == dict(enumerate(NAMES))
    facts = store.info.extra["distill_sources"]
    assert facts["power"] == str(power) and [s["id"] for s in facts["sources"]] == ["halves", "noise"]
    assert facts["sources"][0] == {"id": "halves", "revision": None} | {
        "similarity": near["halves"],
        "weight": weights["halves"],
    }


def test_sources_without_weight_do_not_run(tmp_path):
    def broken(items):
        raise RuntimeError("was run")

    shelf = bank(source(), Source("broken", broken))
    store = shelf.pseudo_labels(
        LABELED, None, {"halves": 1.0, "broken": 0.0}, kind="topk", k=2, folder=tmp_path / "store"
    )
    assert store.info.kind == "topk" and sorted(store.example_ids) == LABELED["index"][:]
    assert (tmp_path / "store").is_dir()


def test_a_class_without_a_label_gets_probability_0(caplog):
    shelf = bank(source())
    two = LABELED.filter(lambda row: row["labels"] != 2, load_from_cache_file=False)
    store = shelf.pseudo_labels(two, UNLABELED, {"halves": 1.0})
    assert (store.decode(store.lookup(UNLABELED["index"][:]))[:, 2] == 0).all()
    assert "No labelled row of class 2" in caplog.text


def test_rows_are_cached_by_item_and_source(tmp_path):
    model, calls = toys.tiny_vit(), []
    model.register_forward_pre_hook(lambda *args: calls.append(1))
    for name in ("vit", "renamed"):
        shelf = SourceBank([Source.from_model(model, name=name, batch_size=5)], cache_dir=tmp_path)
        shelf.pseudo_labels(LABELED, UNLABELED, {name: 1.0})
        assert len(calls) == 9  # 24 and 18 rows by 5, each once for both banks
    other = SourceBank([Source.from_model(toys.tiny_vit(seed=1), name="vit")], cache_dir=tmp_path)
    assert not np.allclose(other.answers(LABELED, "vit")["features"], shelf.answers(LABELED, "renamed")["features"])


def test_sources_see_rows_as_stored_not_as_the_student_sees_them():
    lazy = LABELED.with_transform(lambda batch: {"pixel_values": [np.zeros((1, 8, 8))] * len(batch["index"])})
    assert bank().similarities(lazy) == bank().similarities(LABELED)
    torched = LABELED.with_format("torch")
    assert bank().similarities(torched) == bank().similarities(LABELED)


def processor_of(side=8, **more):
    from transformers import ViTImageProcessorPil

    return ViTImageProcessorPil(size={"height": side, "width": side}, **more)


def pictures(rows=6):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 255, (10, 9) + ((3,) if n % 2 else ()), dtype=np.uint8) for n in range(rows)]
    data = Dataset.from_dict({"image": [Pictures.fromarray(a) for a in arrays], "labels": [0, 1] * (rows // 2)})
    return data.cast_column("image", Image())


def test_classifiers_and_backbones_from_a_folder(tmp_path):
    from transformers import ResNetConfig, ResNetForImageClassification, ResNetModel, ViTConfig, ViTModel

    sizes = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}
    torch.manual_seed(0)
    classifier = ResNetForImageClassification(ResNetConfig(**sizes, num_labels=5))
    vit = {"image_size": 8, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    models = {
        "classifier": classifier,
        "backbone": ResNetModel(ResNetConfig(**sizes)),
        "transformer": ViTModel(ViTConfig(**vit, intermediate_size=32), add_pooling_layer=False),
    }
    data = pictures()
    pixels = processor_of()([image.convert("RGB") for image in data["image"]], return_tensors="pt")["pixel_values"]
    want = {}
    with torch.no_grad():
        for name, model in models.items():
            model.save_pretrained(tmp_path / name)
            processor_of().save_pretrained(tmp_path / name)
            out = (model.resnet if name == "classifier" else model).eval()(pixels)
            want[name] = out.last_hidden_state.mean(1) if name == "transformer" else out.pooler_output.flatten(1)
        probs = classifier.eval()(pixels).logits.softmax(-1)
    shelf = SourceBank([str(tmp_path / name) for name in models], cache_dir=tmp_path / "cache")
    for name, values in want.items():
        found = shelf.answers(data, str(tmp_path / name))
        np.testing.assert_allclose(found["features"], values.numpy(), atol=1e-5)
        assert ("probs" in found) == (name == "classifier")
    np.testing.assert_allclose(shelf.answers(data, str(tmp_path / "classifier"))["probs"], probs.numpy(), atol=1e-5)


def test_text_encoders_are_sources_and_padding_does_not_count(tmp_path):
    from transformers import BertModel

    torch.manual_seed(0)
    plain = BertModel(toys.bert_config(), add_pooling_layer=False).eval()
    tokenizer = toys.tiny_tokenizer()
    for name, model in (("plain", plain), ("classifier", toys.tiny_bert())):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    texts = [f"{' '.join(['w1', 'w2', 'w3'][: 1 + n % 3])} w{4 + n}" for n in range(6)]
    data = Dataset.from_dict({"text": texts, "labels": [0, 1] * 3})
    shelf = SourceBank([str(tmp_path / "plain"), str(tmp_path / "classifier")], cache_dir=tmp_path / "cache")
    found = shelf.answers(data, str(tmp_path / "plain"))["features"]
    with torch.no_grad():
        for text, row in zip(texts, found, strict=True):
            alone = plain(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
            np.testing.assert_allclose(row, alone.numpy(), atol=1e-5)
    assert shelf.answers(data, str(tmp_path / "classifier"))["probs"].shape == (6, 3)
    assert set(shelf.similarities(data, "knn")) == set(shelf.sources)


def test_heads_that_score_positions_give_the_mean_of_what_they_see(tmp_path):
    from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedConfig

    class Tiny(torch.nn.Module):
        config = PreTrainedConfig(num_labels=3)
        num_labels = 3

        def __init__(self):
            super().__init__()
            self.classifier = torch.nn.Conv2d(1, 3, 1)

        def forward(self, pixel_values):
            return PreTrainedConfig(logits=self.classifier(pixel_values).mean((2, 3)))

    Tiny.__name__ = "TinyForImageClassification"
    found = SourceBank([Source.from_model(Tiny(), name="conv")], cache_dir=tmp_path).answers(LABELED, "conv")
    want = np.asarray(LABELED["pixel_values"]).mean((2, 3))
    np.testing.assert_allclose(found["features"], want, atol=1e-6)
    assert found["probs"].shape == (24, 3)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": toys.VOCAB, "pad_token_id": 0}
    model, tokenizer = GPT2ForSequenceClassification(GPT2Config(**sizes)).eval(), toys.tiny_tokenizer()
    texts = ["w1 w2 w3", "w4"]
    source = Source.from_model(model, tokenizer, name="gpt")
    with torch.no_grad():
        for text, row in zip(texts, source.encode(texts)["features"], strict=True):
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            np.testing.assert_allclose(row, model.transformer(ids).last_hidden_state[0].mean(0).numpy(), atol=1e-5)


def nan_source():
    def encode(items):
        rows = source().encode(items)["features"].copy()
        rows[5] = np.nan
        return {"features": rows}

    return Source("cracked", encode)


def constant():
    return Source("constant", lambda items: np.ones((len(items), 4)))


@pytest.mark.parametrize(
    "use, error, message",
    [
        (lambda: SourceBank([]), ValueError, "The bank is empty"),
        (lambda: bank(source("a"), noise("a")), ValueError, "Two sources are called `a`"),
        (lambda: bank(nan_source()).similarities(LABELED), ValueError, "Source `cracked`: .*NaN or infinity at row 5"),
        (lambda: bank(constant()).similarities(LABELED), ValueError, "Source `constant` has the same features"),
        (lambda: bank(constant()).fit_heads(LABELED), ValueError, "Source `constant` has the same features"),
        (lambda: bank().similarities(LABELED.select(range(2))), ValueError, "at least 3 probe rows"),
        (lambda: bank().similarities(LABELED.select([0, 3, 6])), ValueError, r"1 class\(es\) only \(id 0"),
        (lambda: bank().similarities(LABELED, num_classes=2), ValueError, "ClassLabel of 3 names, but num_labels=2"),
        (lambda: bank().probs(LABELED, "halves"), ValueError, "`halves` has no head yet: call `fit_heads` first"),
        (lambda: bank().answers(LABELED.select([]), "halves"), ValueError, "The data set is empty"),
        (lambda: bank(Source.from_model(toys.tiny_bert(), name="bert")).similarities(TEXT), ValueError, "tokenizer"),
        (lambda: bank(column="photo").similarities(LABELED), KeyError, "photo"),
        (lambda: bank().pseudo_labels(LABELED, UNLABELED, {"resnet": 1.0}), ValueError, "no source `resnet`"),
        (lambda: bank().pseudo_labels(LABELED, UNLABELED, {"halves": 0.7}), ValueError, "sum to 1"),
        (lambda: bank().pseudo_labels(LABELED, UNLABELED, {}), ValueError, "sum to 1"),
        (
            lambda: bank().pseudo_labels(LABELED, images(3).remove_columns("labels"), {"halves": 1.0}),
            ValueError,
            "`index` 0 occurs twice",
        ),
        (
            lambda: bank().pseudo_labels(LABELED, UNLABELED.remove_columns("index"), {"halves": 1.0}),
            KeyError,
            "index",
        ),
        (lambda: SourceBank(["no/such-folder-or-model"]), OSError, "find"),
    ],
)
def test_bad_input_is_named(use, error, message):
    with pytest.raises(error, match=message):
        use()


def test_soft_labels_and_student_must_have_the_same_classes():
    store = bank().pseudo_labels(LABELED, UNLABELED, {"halves": 1.0})
    store.check_model(student().config)
    with pytest.raises(ValueError, match="4"):
        store.check_model(toys.tiny_vit(num_labels=4).config)
