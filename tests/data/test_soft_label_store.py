"""The store as a whole: every kind, look-ups, byte accounting, bad input."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hf_labels.data import SoftLabelStore, StoreInfo, label_storage_report
from hf_labels.data.soft_label_codec import BOUNDS
from hf_labels.losses.label_pooling import label_pooling

NAMES = {number: f"class {number}" for number in range(10)}
KINDS = [
    dict(kind="hard"),
    dict(kind="smoothing", codec="u8_log"),
    dict(kind="topk", k=3),
    dict(kind="topk", k=3, codec="u8_linear"),
    dict(kind="topk", k=4, residual="renorm", codec="u8_log"),
    dict(kind="topk", k=10, codec="float32"),
    dict(kind="topk", k=3, residual="zero_logit", temperature=2.0),
    dict(kind="dense"),
    dict(kind="dense", codec="u8_linear"),
    dict(kind="dense", value_space="logit", temperature=2.0, codec="float32"),
]


def _logits(rows=8, classes=10, seed=0):
    return 2 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))


def _store(folder=None, rows=8, views=1, **info):
    settings = {"kind": "topk", "num_labels": 10, **info}
    ids = np.repeat([100 + 3 * n for n in range(rows // views)], views).tolist()
    numbers = list(range(views)) * (rows // views)
    return SoftLabelStore.from_arrays(
        StoreInfo(**settings), folder, example_ids=ids, views=numbers, logits=_logits(rows, settings["num_labels"])
    )


def _wanted(info, logits):
    """The distribution that the kind keeps, in float64, from its definition."""
    probs = (logits.double() / info.temperature).softmax(-1)
    if info.kind == "dense":
        return probs
    order = logits.argsort(-1, descending=True)[:, : info.k]
    stored = torch.zeros_like(probs, dtype=torch.bool).scatter_(1, order, True)
    if info.kind == "hard":
        return stored.double()
    if info.residual == "zero_logit":
        return (torch.where(stored, logits.double(), 0.0) / info.temperature).softmax(-1)
    kept = torch.where(stored, probs, 0.0)
    total = kept.sum(-1, keepdim=True)
    if info.residual == "renorm":
        return kept / total
    return torch.where(stored, probs, (1 - total) / max(10 - info.k, 1))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
@pytest.mark.parametrize("on_disk", [True, False])
def test_every_kind_comes_back_within_its_codec(kind, on_disk, tmp_path):
    store = _store(tmp_path / "store" if on_disk else None, **kind)
    rows = store.lookup([100 + 3 * n for n in range(8)])
    probs, want = store.decode(rows), _wanted(store.info, _logits())
    torch.testing.assert_close(probs.sum(-1), torch.ones(8), rtol=0, atol=1e-6)
    absolute, relative = BOUNDS[store.info.codec]
    loose = 0.02 if store.info.value_space == "logit" and store.info.codec == "float16" else 0
    slack = 6 * store.info.num_labels * absolute + 3 * relative + loose + 1e-6
    assert (probs - want).abs().max() <= slack
    top = probs.gather(1, _logits().argmax(1)[:, None])[:, 0]
    assert torch.equal(top, probs.amax(1))
    logits = _logits(seed=4).requires_grad_()
    dense = F.cross_entropy(logits, probs)
    if store.info.kind != "dense":
        sparse = store.sparse_cross_entropy(logits, rows)
        torch.testing.assert_close(sparse, dense, rtol=0, atol=2e-6)
        grads = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (sparse, dense)]
        torch.testing.assert_close(*grads, rtol=0, atol=1e-6)
    torch.testing.assert_close(store.targets(rows).loss(logits), dense, rtol=0, atol=2e-6)


def test_smoothing_is_top_one_with_the_rest_spread():
    one, smoothed = (_store(kind=kind, k=1, codec="float32") for kind in ("topk", "smoothing"))
    ids = [100, 103, 112]
    assert torch.equal(one.decode(one.lookup(ids)), smoothed.decode(smoothed.lookup(ids)))


def test_order_of_rows_does_not_matter():
    logits, order = _logits(), torch.randperm(8, generator=torch.Generator().manual_seed(0))
    info = StoreInfo("topk", 10)
    mixed = SoftLabelStore.from_arrays(info, example_ids=order.tolist(), logits=logits[order])
    plain = SoftLabelStore.from_arrays(StoreInfo("topk", 10), example_ids=list(range(8)), logits=logits)
    assert torch.equal(mixed.decode(mixed.lookup(range(8))), plain.decode(plain.lookup(range(8))))


def test_more_than_65536_classes():
    logits = torch.zeros(2, 70_000)
    logits[0, 69_999] = logits[1, 65_536] = 9.0
    store = SoftLabelStore.from_arrays(StoreInfo("topk", 70_000, k=2), example_ids=[0, 1], logits=logits)
    rows = store.lookup([0, 1])
    assert rows["topk_ids"].dtype == np.uint32 and rows["topk_ids"][:, 0].tolist() == [69_999, 65_536]


def test_views_and_text_keys(tmp_path):
    info = StoreInfo("topk", 10, k=2, id_type="string", has_labels=True)
    keys = ["b/1", "b/1", "a", "ä", "b/1"]
    store = SoftLabelStore.from_arrays(
        info, tmp_path / "store", example_ids=keys, views=[0, 2, 0, 5, 7], logits=_logits(5), labels=[1, 1, 2, -1, 1]
    )
    assert store.example_ids.tolist() == ["a", "b/1", "ä"] and store.views_of("b/1").tolist() == [0, 2, 7]
    assert store.lookup(["ä", "b/1"], [5, 2])["label"].tolist() == [-1, 1]
    assert store.row_numbers(["b/1", "ä", "b/1"], [7, 5, 0]).tolist() == [4, 3, 0]
    assert store.lookup(["a", "ä"])["view"].tolist() == [0, 5]
    assert store.info.views_per_example == 8
    with pytest.raises(ValueError, match=r"Example 'b/1' has no view 1; it has 0, 2, 7"):
        store.lookup(["a", "b/1"], [0, 1])
    with pytest.raises(ValueError, match="Example 'b/1' has several views"):
        store.lookup(["b/1"])
    with pytest.raises(KeyError, match="no soft label for example 'c'"):
        store.lookup(["a", "c"], [0, 0])
    with pytest.raises(KeyError, match="keys of the store are texts, got 3"):
        store.lookup([3])
    with pytest.raises(ValueError, match=r"`views` must have shape \(1,\)"):
        store.lookup(["a"], [0, 1])


@pytest.mark.parametrize("codec", ["float32", "float16"])
def test_label_maps_are_pooled(codec, tmp_path):
    rng = torch.Generator().manual_seed(0)
    values, ids = (3 * torch.randn(4, 10, 5, 7, generator=rng)).topk(3, dim=1)
    info = StoreInfo("map", 10, k=3, map_shape=(5, 7), codec=codec)
    from hf_labels.data import SoftLabelWriter

    with SoftLabelWriter(tmp_path / "maps", info) as writer:
        writer.add_maps(range(4), ids, values)
    store = SoftLabelStore.from_pretrained(tmp_path / "maps")
    rows = store.lookup([2, 0])
    assert rows["map_ids"].shape == (2, 3, 5, 7)
    crops = torch.tensor([[0.25, 0.5, 0.5, 0.25], [0.0, 0.0, 1.0, 1.0]])
    boxes = torch.tensor([[0.5, 0.25, 0.75, 0.75], [0.0, 0.0, 1.0, 1.0]])
    want = label_pooling(values[[2, 0]], ids[[2, 0]], boxes, 10)
    torch.testing.assert_close(store.decode(rows, crops), want, rtol=0, atol=1e-6 if codec == "float32" else 1e-3)
    torch.testing.assert_close(store({"index": torch.tensor([2, 0]), "crop": crops}).probs, store.decode(rows, crops))
    report = store.nbytes_report()
    assert report["bytes_per_label"] == 3 * 35 * (2 + info.value_dtype.itemsize)
    with pytest.raises(ValueError, match="no sparse form"):
        store.sparse(rows)
    with pytest.raises(ValueError, match=r"Maps of this store are .*\(5, 7\)"):
        SoftLabelWriter(None, info).add_maps([0], ids[:1, :, :, :5], values[:1, :, :, :5])


# (kind, bytes of one label) for 1000 classes: the table of the format
BYTES = [
    (dict(kind="hard"), 2),
    (dict(kind="smoothing"), 4),
    (dict(kind="topk", k=5), 20),
    (dict(kind="topk", k=5, codec="u8_log"), 15),
    (dict(kind="topk", k=10), 40),
    (dict(kind="dense"), 2000),
    (dict(kind="dense", codec="float32"), 4000),
]


@pytest.mark.parametrize(("kind", "size"), BYTES)
def test_bytes_are_those_of_the_table(kind, size, tmp_path):
    info = StoreInfo(num_labels=1000, has_crops=True, **kind)
    rows = 40
    crops = np.tile([0.1, 0.2, 0.5, 0.5], (rows, 1))
    store = SoftLabelStore.from_arrays(
        info, tmp_path / "s", example_ids=range(rows), logits=_logits(rows, 1000), crops=crops, flips=[True] * rows
    )
    report = label_storage_report(store)
    assert info.bytes_per_label == report["bytes_per_label"] == size and report["bytes_per_row"] == size + 17
    assert report["dense_float16_bytes"] == rows * 2000 and report["dense_over_labels"] == 2000 / size
    on_disk = sum(path.stat().st_size for path in (tmp_path / "s").rglob("*") if path.is_file())
    assert report["file_bytes"] == on_disk and (report["rows"], report["examples"]) == (rows, rows)
    assert json.loads((tmp_path / "s" / "soft_label_store.json").read_text())["bytes_per_label"] == size


def test_map_of_relabel_costs_4500_bytes_and_a_projector_its_files(tmp_path):
    assert StoreInfo("map", 1000, k=5, map_shape=(15, 15)).bytes_per_label == 4500
    store = SoftLabelStore.from_projector("me/projector", 10, revision="abc", prompts=["a photo of a {}"])
    (tmp_path / "adapter.bin").write_bytes(b"x" * 1234)
    assert store.nbytes_report(projector_path=tmp_path)["file_bytes"] == 1234
    store.save_pretrained(tmp_path / "saved")
    again = SoftLabelStore.from_pretrained(tmp_path / "saved")
    assert again.info.projector == {"repo_id": "me/projector", "revision": "abc", "prompts": ["a photo of a {}"]}
    assert len(again) == 0 and again.rows is None
    with pytest.raises(ValueError, match="Pass `projector_path`"):
        store.nbytes_report()
    with pytest.raises(ValueError, match="has no rows"):
        again.lookup([0])
    with pytest.raises(ValueError, match="Only kind `projector`"):
        _store().attach(torch.nn.Linear(1, 1))


def test_reading_streamed_equals_reading_by_number(tmp_path):
    store = _store(tmp_path / "s", rows=50, views=5, k=3)
    streamed = SoftLabelStore.from_pretrained(tmp_path / "s", streaming=True)
    parts = [streamed.decode(rows) for rows in streamed.iter_batches(16)]
    assert torch.equal(torch.cat(parts), torch.cat([store.decode(rows) for rows in store.iter_batches(7)]))
    with pytest.raises(ValueError, match="no random access"):
        streamed.lookup([100], [0])


def test_files_are_memory_mapped(tmp_path):
    store = _store(tmp_path / "s", rows=50, views=5, k=3)
    column = store.reader.column("topk_values")
    assert not column.flags.owndata and not column.flags.writeable and store.rows.cache_files


def test_filter_keeps_rows_as_they_are(tmp_path):
    store = _store(tmp_path / "s", rows=20, views=4, k=3)
    kept = store.filter(lambda rows: rows["view"] != 2, tmp_path / "kept")
    assert kept.views_of(103).tolist() == [0, 1, 3]
    assert torch.equal(kept.decode(kept.lookup([103], [3])), store.decode(store.lookup([103], [3])))
    with pytest.raises(ValueError, match="There are no rows"):
        store.filter(lambda rows: rows["view"] > 9)


def test_saving_copies_the_same_bytes(tmp_path):
    store = _store(tmp_path / "s", rows=20, views=4, k=3)
    store.save_pretrained(tmp_path / "copy")
    for path in (tmp_path / "s").rglob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "copy" / path.relative_to(tmp_path / "s")).read_bytes()
    with pytest.raises(FileExistsError, match="holds rows of a store"):
        _store(rows=20).save_pretrained(tmp_path / "copy")
    memory = _store(rows=20, views=4, k=3)
    memory.save_pretrained(tmp_path / "memory")
    again = SoftLabelStore.from_pretrained(tmp_path / "memory")
    assert torch.equal(again.decode(again.lookup([103], [3])), store.decode(store.lookup([103], [3])))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(kind="soft"), "`kind` must be one of hard, smoothing, topk"),
        (dict(codec="float8"), "`codec` must be one of float32, float16"),
        (dict(residual="drop"), "`residual` must be one of smooth, renorm"),
        (dict(k=11), r"`k` must be in \[1, 10\]"),
        (dict(k=0), "`k` must be"),
        (dict(num_labels=1), "`num_labels` must be at least 2"),
        (dict(temperature=0.0), "`temperature` must be above 0"),
        (dict(residual="zero_logit", codec="u8_log"), "stores probabilities only"),
        (dict(residual="zero_logit", value_space="prob"), "do not go together"),
        (dict(residual="none"), "needs a residual rule"),
        (dict(kind="map"), "needs `map_shape`"),
        (dict(kind="projector"), "needs `projector="),
        (dict(id_type="float"), "`id_type`"),
        (dict(views_per_example=0), "`views_per_example`"),
        (dict(format_version=2), "Update hf_labels"),
    ],
)
def test_bad_settings_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        StoreInfo(**{"kind": "topk", "num_labels": 10, **wrong})


def test_side_car_is_needed_and_checked(tmp_path):
    store = _store(tmp_path / "s", id2label=NAMES)
    side = tmp_path / "s" / "soft_label_store.json"
    text = side.read_text()
    assert SoftLabelStore.from_pretrained(tmp_path / "s").info == store.info
    for wrong, message in (
        (text[:30], "is no JSON"),
        (json.dumps({"kind": "topk"}), "lacks `num_labels`"),
        (json.dumps(json.loads(text) | {"colour": 1}), "unknown field `colour`"),
    ):
        side.write_text(wrong)
        with pytest.raises(ValueError, match=message):
            SoftLabelStore.from_pretrained(tmp_path / "s")
    side.unlink()
    with pytest.raises(FileNotFoundError, match="Rows cannot be decoded without it"):
        SoftLabelStore.from_pretrained(tmp_path / "s")
    side.write_text(text)
    for path in (tmp_path / "s" / "data").glob("*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="but no rows"):
        SoftLabelStore.from_pretrained(tmp_path / "s")


def test_ids_out_of_range_are_refused_when_read(tmp_path):
    _store(tmp_path / "s", k=3)
    side = tmp_path / "s" / "soft_label_store.json"
    side.write_text(json.dumps(json.loads(side.read_text()) | {"num_labels": 5}))
    with pytest.raises(ValueError, match=r"class id outside \[0, 5\)"):
        SoftLabelStore.from_pretrained(tmp_path / "s")


def test_classes_of_a_model_are_compared():
    from toys import tiny_vit

    store, model = _store(id2label=NAMES), tiny_vit(10)
    with pytest.raises(ValueError, match="Class 0 is 'class 0' in the store and 'LABEL_0' in the model"):
        store.check_model(model.config)
    model.config.id2label = dict(NAMES)
    store.check_model(model.config)
    with pytest.raises(ValueError, match="The store has 10 classes, the model 3"):
        store.check_model(tiny_vit(3).config)
    with pytest.raises(KeyError, match="example 1 "):
        store.check_examples([100, 1])
