import logging
import multiprocessing

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from hf_labels.data.features import FeatureCache, add_features, cache_root, check_finite, item_hash, weights_hash


class Encoder:
    """Length and first letter of each text; counts what it is asked."""

    def __init__(self, fail_after=None):
        self.calls: list[list[str]] = []
        self.fail_after = fail_after

    def __call__(self, texts):
        if self.fail_after is not None and len(self.calls) >= self.fail_after:
            raise RuntimeError("power cut")
        self.calls.append(list(texts))
        return np.array([[len(text), ord(text[0]) if text else 0] for text in texts], dtype=np.float32)

    @property
    def seen(self):
        return sorted(text for call in self.calls for text in call)


TEXTS = ["alpha", "be", "gamma ray", "d", "epsilon"]
WANT = Encoder()(TEXTS)


def test_rows_are_right_in_order_and_computed_once(tmp_path):
    encode = Encoder()
    cache = FeatureCache({"model": "a"}, tmp_path)
    assert np.array_equal(cache.get(TEXTS, encode, chunk_size=2)["features"], WANT)
    assert [len(call) for call in encode.calls] == [2, 2, 1]
    order = [3, 1, 3, 0]
    got = FeatureCache({"model": "a"}, tmp_path).get([TEXTS[i] for i in order], encode)["features"]
    assert np.array_equal(got, WANT[order]) and len(encode.calls) == 3
    FeatureCache({"model": "a"}, tmp_path).get([*TEXTS, "new", "new"], encode)
    assert encode.calls[3:] == [["new"]]


def test_everything_in_the_key_counts(tmp_path):
    encode = Encoder()
    for key in ({"model": "a"}, {"model": "b"}, {"model": "a", "max_length": 8}):
        FeatureCache(key, tmp_path).get(TEXTS, encode)
    FeatureCache({"max_length": 8, "model": "a"}, tmp_path).get(TEXTS, encode)  # the order of the key does not
    assert len(encode.calls) == 3


def test_interrupted_run_goes_on_where_it_stopped(tmp_path):
    broken = Encoder(fail_after=2)
    with pytest.raises(RuntimeError, match="power cut"):
        FeatureCache({"model": "a"}, tmp_path).get(TEXTS, broken, chunk_size=2)
    encode = Encoder()
    got = FeatureCache({"model": "a"}, tmp_path).get(TEXTS, encode, chunk_size=2)["features"]
    assert np.array_equal(got, WANT)
    assert sorted(broken.seen + encode.seen) == sorted(TEXTS) and len(encode.seen) == 1


def test_damaged_file_is_set_aside_and_computed_again(tmp_path, caplog):
    FeatureCache({"model": "a"}, tmp_path).get(TEXTS, Encoder(), chunk_size=3)
    path = sorted(tmp_path.glob("*/rows-*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:40])
    encode = Encoder()
    with caplog.at_level(logging.WARNING, logger="hf_labels"):
        assert np.array_equal(FeatureCache({"model": "a"}, tmp_path).get(TEXTS, encode)["features"], WANT)
    assert 0 < len(encode.seen) < 5 and "set aside" in caplog.text
    assert list(tmp_path.glob("*/*.bad"))
    FeatureCache({"model": "a"}, tmp_path).get(TEXTS, encode)
    assert len(encode.calls) == 1


def test_no_key_means_no_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LABELS_CACHE", str(tmp_path))
    encode = Encoder()
    cache = FeatureCache(None)
    cache.get(TEXTS, encode)
    cache.get(TEXTS, encode)
    assert len(encode.calls) == 2 and not list(tmp_path.iterdir())


def test_full_disk_keeps_the_rows_in_memory(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    cache = FeatureCache({"model": "a"}, tmp_path / "file")
    with caplog.at_level(logging.WARNING, logger="hf_labels"):
        assert np.array_equal(cache.get(TEXTS, Encoder())["features"], WANT)
    assert "kept in memory only" in caplog.text


def test_several_outputs_and_shapes(tmp_path):
    def encode(texts):
        return {
            "features": np.ones((len(texts), 2, 3), np.float16),
            "logits": np.arange(len(texts) * 4.0).reshape(-1, 4),
        }

    first = FeatureCache({"m": 1}, tmp_path).get(["a", "b"], encode)
    again = FeatureCache({"m": 1}, tmp_path).get(["b", "a"], None)
    assert first["features"].shape == (2, 2, 3) and first["features"].dtype == np.float16
    assert np.array_equal(again["logits"], first["logits"][::-1])


def test_wrong_answers_of_an_encoder_are_named(tmp_path):
    with pytest.raises(ValueError, match="given 2 items and returned 1 rows of `features`"):
        FeatureCache({"m": 1}, tmp_path).get(["a", "b"], lambda texts: np.ones((1, 2)))
    with pytest.raises(ValueError, match="NaN or infinity at row 1"):
        FeatureCache({"m": 1}, tmp_path).get(["a", "b"], lambda texts: np.array([[1.0], [np.nan]]))
    assert not list(tmp_path.glob("*/rows-*"))
    with pytest.raises(ValueError, match="chunk_size"):
        FeatureCache({"m": 1}, tmp_path).get(["a"], Encoder(), chunk_size=0)
    assert FeatureCache({"m": 1}, tmp_path).get([], Encoder()) == {}


def test_items_of_all_kinds_have_their_own_names():
    image = Image.new("L", (2, 3), 7)
    items = ["a", b"a", np.zeros(2), np.zeros(2, np.float32), np.zeros((2, 1)), image, image.resize((3, 2))]
    hashes = [item_hash(item) for item in items]
    assert len(set(hashes)) == len(items) and item_hash(image.copy()) == hashes[5]
    assert item_hash("\ud800") != item_hash("?")
    with pytest.raises(TypeError, match="got int"):
        item_hash(3)


def _write(folder):
    FeatureCache({"m": 1}, folder).get([f"text {i}" for i in range(40)], Encoder(), chunk_size=7)


def test_two_processes_may_write_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write, args=(tmp_path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    texts = [f"text {i}" for i in range(40)]
    encode = Encoder()
    got = FeatureCache({"m": 1}, tmp_path).get(texts, encode)["features"]
    assert not encode.calls and np.array_equal(got, Encoder()(texts))


def test_weights_hash_follows_the_numbers_and_not_the_folder():
    torch.manual_seed(0)
    one = torch.nn.Linear(3, 2)
    two = torch.nn.Linear(3, 2)
    two.load_state_dict(one.state_dict())
    assert weights_hash(one) == weights_hash(two) == weights_hash(one.state_dict())
    with torch.no_grad():
        two.bias[1] += 1e-6
    assert weights_hash(one) != weights_hash(two)
    half = {name: tensor.bfloat16() for name, tensor in one.state_dict().items()}
    assert weights_hash(half) not in (weights_hash(one), weights_hash({k: v.half() for k, v in half.items()}))
    assert weights_hash({"a": torch.ones(2, 3)}) != weights_hash({"a": torch.ones(3, 2)})


def test_columns_of_a_data_set(tmp_path):
    data = Dataset.from_dict({"text": TEXTS, "labels": [0, 1, 0, 1, 0]}).select([4, 2, 0])
    got = add_features(data, Encoder(), {"m": 1}, cache_dir=tmp_path)
    assert got.column_names == ["text", "labels", "features"]
    assert np.array_equal(np.array(got["features"][:]), WANT[[4, 2, 0]])
    assert got.features["features"].length == 2
    twice = add_features(got, lambda t: -Encoder()(t), {"m": 2}, cache_dir=tmp_path)
    assert np.array_equal(np.array(twice["features"][:]), -WANT[[4, 2, 0]])
    named = add_features(data, Encoder(), {"m": 1}, cache_dir=tmp_path, names={"features": "teacher"})
    assert "teacher" in named.column_names
    with pytest.raises(KeyError, match="`review` is missing; the data set has: text, labels"):
        add_features(data, Encoder(), None, column="review")


def test_check_finite_names_the_first_row():
    check_finite(np.zeros((0, 3)))
    check_finite(torch.zeros(2, 3, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=r"`rows` holds NaN or infinity at row 1 \(2 of 3 rows\)"):
        check_finite(torch.tensor([[1.0], [torch.inf], [torch.nan]]), "rows")


def test_cache_root_can_be_set(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_LABELS_CACHE", str(tmp_path / "x"))
    assert cache_root() == tmp_path / "x" and not cache_root().exists()
    monkeypatch.delenv("HF_LABELS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "hf_labels"
