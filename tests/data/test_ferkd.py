"""Calibrated stores: offline and online agree, what is dropped and kept, SelfMix after calibration, bad input."""

import logging

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from hf_labels.data import RandomResizedCrop, SoftLabelCollator, SoftLabelStore, StoreInfo
from hf_labels.data.ferkd import FerKDCalibrator, calibration_report
from hf_labels.data.ferkd_collator import FerKDCollator
from hf_labels.mixing import SelfMix

C = 5


def images(count=8):
    """The first pixels of each image tell the class and the image, so that mixing two images would show."""
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)) for _ in range(count)]
    rows = {"image": pictures, "index": [3 * n for n in range(count)], "labels": [n % C for n in range(count)]}
    return Dataset.from_dict(rows)


def teacher(inputs):
    """Unsure of some views and sure of others, by their pixels."""
    pixels = inputs["pixel_values"].flatten(1)
    scores = torch.stack([torch.sin(91 * (n + 1) * pixels.mean(1) + pixels[:, n]) for n in range(C)], 1)
    return 9 * pixels[:, :1] * scores


def build(data, views=6, **options):
    settings = dict(views=views, crop=RandomResizedCrop(8, (0.2, 1)), codec="float32", k=3)
    return SoftLabelStore.build(teacher, data, **settings | options)


CALIBRATOR = FerKDCalibrator(0.3, 0.5, 0.95, 0.1)
KINDS = [
    dict(k=3, codec="float16"),
    dict(k=C, codec="float32"),
    dict(k=2, residual="renorm"),
    dict(k=3, residual="zero_logit"),
    dict(kind="dense"),
    dict(kind="smoothing"),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_offline_equals_online(kind, tmp_path):
    data = images()
    store = build(data, **kind)
    smaller = CALIBRATOR.apply(store, folder=tmp_path / "small")
    online = FerKDCollator(store, None, 6, calibrator=CALIBRATOR, dense=True)
    batch = online([data[n] for n in range(8)])
    keep = batch["soft_label_mask"]
    assert 0 < keep.sum() < len(keep) and len(smaller) == keep.sum()
    # Two values that sum to 1 have one of at least 0.5: nothing is hard then.
    wanted = {0, 2} if kind.get("residual") == "renorm" else {0, 1, 2}
    assert set(batch["soft_label_region"].tolist()) == wanted
    rows = smaller.lookup(batch["index"][keep].numpy(), batch["view"][keep].numpy())
    torch.testing.assert_close(smaller.decode(rows), batch["soft_labels"][keep], rtol=0, atol=1e-6)
    if store.info.kind != "dense":
        sparse = FerKDCollator(store, None, 6, calibrator=CALIBRATOR)
        again = sparse([data[n] for n in range(8)])
        order = torch.argsort(again["index"] * 100 + again["view"])
        other = torch.argsort(batch["index"] * 100 + batch["view"])
        ids, values = again["soft_label_ids"][order], again["soft_label_values"][order]
        want = batch["soft_labels"][other]
        torch.testing.assert_close(values, want.gather(1, ids), rtol=0, atol=1e-6)
    facts = smaller.info.extra["ferkd"]
    assert facts["t_mid"] == 0.5 and sum(facts["views"].values()) == len(store)
    assert facts["views"]["HR"] + facts["views"]["IR"] == len(smaller)


def test_calibrated_rows_are_the_rule():
    data = images()
    store = build(data)
    found = CALIBRATOR.regions(store)
    rows = store.lookup(np.repeat(data["index"][:], 6), list(range(6)) * 8)
    probs = store.decode(rows)
    best = probs.amax(1)
    want = torch.where(best < 0.5, 1, 2).masked_fill((best < 0.3) | (best > 0.95), 0)
    by_image = want.view(8, 6)
    assert by_image.any(1).all(), "the test needs images that keep a view"
    assert torch.equal(found.regions.long()[store.row_numbers(rows["example_id"], rows["view"])], want)
    smaller = CALIBRATOR.apply(store)
    hard = (want == 1).nonzero()[0, 0]
    row = smaller.lookup([rows["example_id"][hard]], [rows["view"][hard]])
    label = int(rows["label"][hard])
    target = [0.9 if c == label else 0.1 / (C - 1) for c in range(C)]
    assert smaller.decode(row)[0].tolist() == pytest.approx(target, abs=1e-6)


def test_quantiles_of_the_store_give_the_thresholds():
    store = build(images())
    fitted = FerKDCalibrator(quantiles=(0.1, 0.5, 0.9)).fit(store)
    best = store.decode(store.reader.take(np.arange(len(store)))).amax(1)
    assert fitted.thresholds == pytest.approx(np.quantile(best.numpy(), (0.1, 0.5, 0.9)), abs=1e-6)
    assert fitted.fit(None) is fitted  # thresholds that are given stay
    counts = fitted.regions(store).counts()
    assert counts["UR"] == pytest.approx(0.2 * len(store), abs=3)
    assert counts["HR"] == pytest.approx(0.4 * len(store), abs=3)


def test_nothing_is_changed_at_the_limits():
    store = build(images(), codec="float32")
    same = FerKDCalibrator(0.0, 0.0, 1.0).apply(store)
    rows = [part.reader.take(np.arange(len(store))) for part in (store, same)]
    assert torch.equal(store.decode(rows[0]), same.decode(rows[1]))
    assert all(np.array_equal(rows[0][name], rows[1][name]) for name in ("example_id", "view", "crop", "flip"))


def test_an_example_whose_views_are_all_dropped_keeps_the_surest():
    probs = torch.tensor([[0.3, 0.25, 0.25, 0.1, 0.1], [0.35, 0.2, 0.2, 0.15, 0.1], [0.6, 0.1, 0.1, 0.1, 0.1]])
    store = SoftLabelStore.from_arrays(
        StoreInfo("topk", C, has_labels=True), example_ids=[1, 1, 2], views=[0, 1, 0], probs=probs, labels=[4, 4, 0]
    )
    smaller = FerKDCalibrator(0.5, 0.55, 1.0).apply(store)
    assert smaller.views_of(1).tolist() == [1] and smaller.info.extra["ferkd"]["rescued_examples"] == 1
    assert smaller.decode(smaller.lookup([1], [1]))[0].argmax() == 4  # the true label: the teacher was unsure
    assert "UR" in smaller.info.extra["ferkd"]["views"]


def test_views_without_a_true_class_keep_the_teachers_label(caplog):
    data = images()
    store = build(data)
    labels = dict.fromkeys(data["index"][:], -1)
    with caplog.at_level(logging.WARNING):
        found = CALIBRATOR.regions(store, labels)
    hard = int((CALIBRATOR.regions(store).regions == 1).sum())
    assert f"{hard} views are in the hard region but have no true label" in caplog.text
    assert found.unlabelled == hard and not (found.regions == 1).any()
    smaller = CALIBRATOR.apply(store, labels)
    assert set(smaller.reader.column("label").tolist()) == {-1}


def test_report_of_the_teacher_per_region():
    probs = torch.full((6, C), 0.05)
    tops, sure = [0, 1, 2, 3, 4, 0], [0.8, 0.8, 0.8, 0.4, 0.4, 0.22]
    for row, (top, value) in enumerate(zip(tops, sure, strict=True)):
        probs[row] = (1 - value) / (C - 1)
        probs[row, top] = value
    store = SoftLabelStore.from_arrays(
        StoreInfo("topk", C, has_labels=True),
        example_ids=list(range(6)),
        probs=probs,
        labels=[0, 1, 0, 3, 0, 0],
    )
    report = calibration_report(store, FerKDCalibrator(0.21, 0.5, 0.9))
    assert report["IR"] == {"views": 3, "share": 0.5, "teacher_accuracy": pytest.approx(2 / 3)}
    assert report["HR"]["teacher_accuracy"] == pytest.approx(2 / 3) and report["HR"]["views"] == 3
    assert report["UR"] == {"views": 0, "share": 0.0, "teacher_accuracy": None}
    assert report["views"] == 6 and report["thresholds"] == (0.21, 0.5, 0.9)


def test_map_of_a_data_set():
    data = Dataset.from_dict(
        {"soft_labels": [[0.9, 0.1], [0.6, 0.4], [0.52, 0.48], [0.99, 0.01]], "labels": [0, 1, -1, 0]}
    )
    found = data.map(FerKDCalibrator(0.5, 0.7, 0.95, 0.2), batched=True)
    assert found["soft_label_region"][:] == ["IR", "HR", "IR", "UR"]
    assert found["soft_label_keep"][:] == [True, True, True, False]
    want = [[0.9, 0.1], [0.2, 0.8], [0.52, 0.48], [0.99, 0.01]]
    assert np.allclose(found["soft_labels"][:], want, atol=1e-6)


def test_self_mix_comes_after_calibration_and_leaves_dropped_views_alone():
    data = images()
    store = build(data)
    plain = FerKDCollator(store, None, 4, calibrator=CALIBRATOR, dense=True)
    mixed = FerKDCollator(store, None, 4, calibrator=CALIBRATOR, self_mix=SelfMix(1.0, kind="mixup", seed=0))
    for collator in (plain, mixed):
        collator.set_epoch(0)
    rows = [data[n] for n in range(8)]
    clean, mix = plain(rows), mixed(rows)
    keep = clean["soft_label_mask"]
    assert torch.equal(keep, mix["soft_label_mask"]) and not keep.all()
    plan = SelfMix(1.0, kind="mixup", seed=0).draw(clean["index"], (8, 8), keep)
    torch.testing.assert_close(mix["pixel_values"], plan.apply(clean["pixel_values"]))
    lam = plan.lam[:, None]
    torch.testing.assert_close(
        mix["soft_labels"], lam * clean["soft_labels"] + (1 - lam) * clean["soft_labels"][plan.perm]
    )
    assert torch.equal(clean["index"][plan.perm], clean["index"]), "two images were mixed"
    assert (plan.perm[~keep] == torch.arange(len(keep))[~keep]).all() and keep[plan.perm[keep]].all()


def test_a_calibrated_store_is_used_as_it_is():
    data = images()
    smaller = CALIBRATOR.apply(build(data))
    collator = FerKDCollator(smaller, None, 6)  # some images have fewer views now
    batch = collator([data[n] for n in range(8)])
    assert collator.calibrator is None and "soft_label_mask" not in batch
    assert len(batch["index"]) == len(smaller) < 48


def test_bad_input_is_named():
    data = images()
    store = build(data)
    with pytest.raises(ValueError, match="Thresholds must rise"):
        FerKDCalibrator(0.5, 0.4, 0.9)
    with pytest.raises(ValueError, match="`epsilon` must be in"):
        FerKDCalibrator(epsilon=1.0)
    with pytest.raises(ValueError, match="Give all of `t_low`, `t_mid` and `t_top`, or none"):
        FerKDCalibrator(t_low=0.5)
    with pytest.raises(ValueError, match="`quantiles` must rise"):
        FerKDCalibrator(quantiles=(0.5, 0.2, 0.9))
    with pytest.raises(ValueError, match="`confidence` must be"):
        FerKDCalibrator(confidence="mean")
    with pytest.raises(ValueError, match="has no thresholds"):
        FerKDCalibrator()({"soft_labels": [[0.5, 0.5]], "labels": [0]})
    with pytest.raises(KeyError, match="Column `labels` is missing"):
        CALIBRATOR({"soft_labels": [[0.5, 0.5]]})
    with pytest.raises(TypeError, match="must map the key of each example"):
        CALIBRATOR.apply(store, data["labels"][:])
    with pytest.raises(KeyError, match="no entry for example 3"):
        CALIBRATOR.apply(store, {0: 1})
    with pytest.raises(ValueError, match=r"example 0 must be in \[0, 5\) or -1, got 5"):
        CALIBRATOR.apply(store, dict.fromkeys(data["index"][:], 5))
    with pytest.raises(ValueError, match="float32 or float16, got 'u8_log'"):
        CALIBRATOR.apply(store, codec="u8_log")
    bare = build(data.remove_columns("labels"))
    with pytest.raises(ValueError, match="no column `label`. Pass the true classes"):
        CALIBRATOR.apply(bare)
    no_crops = SoftLabelStore.from_arrays(
        StoreInfo("topk", C, has_labels=True), example_ids=[0], logits=torch.ones(1, C), labels=[0]
    )
    with pytest.raises(ValueError, match="no column `crop`"):
        FerKDCollator(no_crops, calibrator=CALIBRATOR)
    maps = SoftLabelStore.from_rows(
        StoreInfo("map", C, k=1, map_shape=(1, 1), has_labels=True),
        {
            "example_id": np.array([0]),
            "label": np.array([0], np.int32),
            "map_ids": np.zeros((1, 1, 1, 1), np.uint16),
            "map_values": np.ones((1, 1, 1, 1), np.float16),
        },
    )
    with pytest.raises(ValueError, match="a store of kind `map` has none"):
        CALIBRATOR.fit(maps) and FerKDCalibrator().fit(maps)
    with pytest.raises(ValueError, match="`views_per_example` must be at least 1"):
        FerKDCollator(store, None, 0, calibrator=CALIBRATOR)


def test_plain_collator_gives_the_same_views():
    """Calibration changes labels, never which views are shown."""
    data = images()
    store = build(data)
    one, two = SoftLabelCollator(store, None, 3), FerKDCollator(store, None, 3, calibrator=CALIBRATOR)
    for collator in (one, two):
        collator.set_epoch(2)
    rows = [data[n] for n in (5, 0, 2)]
    assert torch.equal(one(rows)["view"], two(rows)["view"])
    assert torch.equal(one(rows)["pixel_values"], two(rows)["pixel_values"])
