"""Writing: append, interruption, resume (nothing lost, nothing doubled), and what is refused."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from hf_labels.data import RandomResizedCrop, SoftLabelStore, SoftLabelWriter, StoreInfo


def _logits(rows=4, classes=6, seed=0):
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))


def _info(**options):
    return StoreInfo(**{"kind": "topk", "num_labels": 6, "k": 2, **options})


def _content(store):
    rows = next(store.iter_batches(10_000))
    order = np.lexsort((rows["view"], rows["example_id"]))
    return {name: values[order].tolist() for name, values in rows.items()}


def test_appending_in_parts_equals_writing_at_once(tmp_path):
    logits = _logits(20)
    whole = SoftLabelStore.from_arrays(_info(), tmp_path / "whole", example_ids=range(20), logits=logits)
    for start in (0, 7, 14):
        with SoftLabelWriter(tmp_path / "parts", _info(), rows_per_file=3) as writer:
            for row in range(start, min(start + 7, 20)):
                writer.add([row], logits=logits[row : row + 1])
    parts = SoftLabelStore.from_pretrained(tmp_path / "parts")
    assert len(list((tmp_path / "parts" / "data").iterdir())) == 8  # 3 + 3 + 1, twice, and 3 + 3
    assert _content(parts) == _content(whole)
    with SoftLabelWriter(tmp_path / "parts", _info()) as writer:
        assert writer.rows_written == 20 and writer.missing([3, 20, 21]) == [(20, 0), (21, 0)]
        assert writer.has(3) and not writer.has(3, 1)


class _Teacher:
    """Logits from pixels; stops after so many calls, as an interrupted run does."""

    def __init__(self, calls=10**9):
        self.calls, self.views = calls, 0

    def __call__(self, inputs):
        if not self.calls:
            raise KeyboardInterrupt
        self.calls -= 1
        pixels = inputs["pixel_values"]
        self.views += len(pixels)
        mean = pixels.flatten(1).mean(1, keepdim=True)
        return torch.cat([torch.sin(mean * number * 9) for number in range(1, 7)], 1)


def _pictures(count=5):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (20 + n, 30, 3), dtype=np.uint8)) for n in range(count)]
    return Dataset.from_dict({"image": images, "index": [10 * n for n in range(count)], "labels": list(range(count))})


def _build(teacher, folder, **options):
    settings = dict(views=4, k=2, batch_size=3, crop=RandomResizedCrop(8), num_labels=6, rows_per_file=4, seed=1)
    return SoftLabelStore.build(teacher, _pictures(), folder=folder, **settings | options)


@pytest.mark.parametrize("calls", [0, 1, 3, 6])
def test_interrupted_build_goes_on_and_asks_only_for_what_is_missing(calls, tmp_path):
    first, second = _Teacher(calls), _Teacher()
    with pytest.raises(KeyboardInterrupt):
        _build(first, tmp_path / "store")
    store = _build(second, tmp_path / "store")
    whole = _build(_Teacher(), tmp_path / "whole")
    assert first.views + second.views == 20 and len(store) == 20
    assert _content(store) == _content(whole)
    assert store.info.has_crops and store.info.has_labels and store.info.image_size == 8
    third = _Teacher(0)
    assert _content(_build(third, tmp_path / "store")) == _content(whole)  # nothing was left to ask


def test_build_draws_views_that_differ_and_repeats_them_for_another_teacher(tmp_path):
    store = _build(_Teacher(), None)
    rows = next(store.iter_batches(100))
    assert len(np.unique(rows["crop"], axis=0)) > 15 and 0 < rows["flip"].mean() < 1
    other = _build(lambda inputs: -_Teacher()(inputs), None, like=store, seed=99)
    again = next(other.iter_batches(100))
    assert all(np.array_equal(rows[name], again[name]) for name in ("example_id", "view", "crop", "flip"))
    assert not np.array_equal(rows["topk_ids"], again["topk_ids"])


def test_build_from_texts_and_from_whole_images():
    from hf_labels.data import LabelCollator
    from toys import text_dataset, tiny_bert

    data, teacher = text_dataset(6), tiny_bert(3).train()
    store = SoftLabelStore.build(teacher, data, kind="dense", codec="float32", collator=LabelCollator(), batch_size=4)
    batch = LabelCollator()(list(data))
    with torch.no_grad():
        want = teacher.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.softmax(-1)
    torch.testing.assert_close(store.decode(store.lookup(data["index"][:])), want, rtol=0, atol=1e-6)
    assert store.info.id2label == teacher.config.id2label

    def processor(images, return_tensors):
        return {"pixel_values": torch.stack([torch.full((3, 4, 4), image.size[1] / 30) for image in images])}

    whole = SoftLabelStore.build(_Teacher(), _pictures(), image_processor=processor, k=3)
    assert len(whole) == 5 and not whole.info.has_crops and whole.info.num_labels == 6


def test_killed_process_leaves_a_store_that_goes_on(tmp_path):
    """SIGKILL in the middle of writing; drafts of files are not taken for files."""
    script = textwrap.dedent(
        """
        import sys, torch
        from hf_labels.data import SoftLabelWriter, StoreInfo
        writer = SoftLabelWriter(sys.argv[1], StoreInfo("topk", 6, k=2), rows_per_file=5)
        for row in range(1000):
            writer.add([row], logits=torch.arange(6.0)[None] + row)
            if row == 52:
                print("ready", flush=True)
                sys.stdin.read()
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path / "s")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (tmp_path / "s" / "data" / ".train-00010.parquet.tmp").write_bytes(b"half a file")
    with SoftLabelWriter(tmp_path / "s", _info()) as writer:
        assert writer.rows_written == 50
        left = [row for row, _ in writer.missing(range(60))]
        assert left == list(range(50, 60))
        writer.add(left, logits=torch.stack([torch.arange(6.0) + row for row in left]))
    store = SoftLabelStore.from_pretrained(tmp_path / "s")
    assert store.example_ids.tolist() == list(range(60)) and len(store) == 60
    assert not list((tmp_path / "s" / "data").glob(".*"))


def test_doubled_rows_and_other_stores_are_refused(tmp_path):
    with SoftLabelWriter(tmp_path / "s", _info()) as writer:
        writer.add([1, 2], logits=_logits(2))
        with pytest.raises(ValueError, match="Example 2, view 0 is stored already"):
            writer.add([3, 2], logits=_logits(2))
        with pytest.raises(ValueError, match="given twice in one call"):
            writer.add([5, 5], logits=_logits(2))
        writer.add([3], logits=_logits(1))  # the refused call left nothing behind
    with pytest.raises(ValueError, match="holds a store with `k=2`, not 3"):
        SoftLabelWriter(tmp_path / "s", _info(k=3))
    files = sorted((tmp_path / "s" / "data").iterdir())
    files[0].with_name("train-00007.parquet").write_bytes(files[0].read_bytes())
    with pytest.raises(ValueError, match="train-00007.parquet repeats rows"):
        SoftLabelWriter(tmp_path / "s", _info())
    files[0].with_name("train-00007.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(ValueError, match="train-00007.parquet is damaged .*Delete it"):
        SoftLabelWriter(tmp_path / "s", _info())
    (tmp_path / "s" / "soft_label_store.json").unlink()
    with pytest.raises(ValueError, match="holds rows but no soft_label_store.json"):
        SoftLabelWriter(tmp_path / "s", _info())


def test_bad_answers_are_named():
    logits = _logits(2)
    broken = logits.clone()
    broken[1, 3] = torch.inf
    probs = logits.softmax(-1)
    cases = [
        (dict(), dict(logits=broken), "answer to example 8, view 1 holds NaN or infinity"),
        (dict(), dict(logits=logits[:, :5]), r"`logits` must have shape \(2, 6\), got \(2, 5\)"),
        (dict(), dict(probs=probs * 2), "example 7, view 0 are not a distribution"),
        (dict(), dict(probs=probs - 0.3), "are not a distribution"),
        (dict(), dict(), "Give `logits` or `probs`"),
        (dict(), dict(logits=logits, probs=probs), "one of them"),
        (dict(), dict(logits=logits, views=[0, -1]), "`views` must hold 2 numbers"),
        (dict(id_type="string"), dict(logits=logits), "`example_id` of this store is string, got 7"),
        (dict(residual="zero_logit"), dict(probs=probs), "keeps logits: give `logits`"),
        (dict(residual="zero_logit"), dict(logits=logits * 1e6), "Examples 7 to 8: .*does not fit into float16"),
        (dict(has_crops=True), dict(logits=logits), "give `crops` and `flips`"),
        (dict(has_crops=True), dict(logits=logits, crops=[[0, 0, 1, 1], [0.5, 0, 0.6, 1]], flips=[0, 1]),
         "Example 8, view 1 has a crop that leaves the image"),
        (dict(has_mix=True), dict(logits=logits), "give `mix`"),
    ]  # fmt: skip
    for options, given, message in cases:
        with pytest.raises(ValueError, match=message):
            SoftLabelWriter(None, _info(**options)).add([7, 8], **({"views": [0, 1]} | given))


def test_bad_encoded_rows_are_named():
    good = {
        "example_id": np.array([1, 2]),
        "view": np.zeros(2, np.int32),
        "topk_ids": np.array([[0, 1], [2, 3]], np.uint16),
        "topk_values": np.array([[0.6, 0.3], [0.5, 0.5]], np.float16),
    }
    assert len(SoftLabelStore.from_rows(_info(), good)) == 2
    for name, value, message in (
        ("topk_ids", np.array([[0, 1], [2, 2]]), "Example 2, view 0 names a class twice"),
        ("topk_ids", np.array([[0, 6], [2, 3]]), r"Example 1, view 0 has a class id outside \[0, 6\)"),
        ("topk_ids", np.array([[0, 1], [-1, 3]]), "Example 2, view 0 has a class id outside"),
        (
            "topk_values",
            np.array([[0.3, 0.6], [0.5, 0.5]]),
            "Example 1, view 0 does not store its values in desc",
        ),
        ("topk_values", np.array([[0.6, 0.3], [1.5, 0.5]]), r"Example 2, view 0 has probabilities outside \[0, 1\]"),
        ("topk_values", np.array([[0.6, 0.3], [0.5, np.nan]]), "Example 2, view 0 has values that are not finite"),
        ("topk_values", np.array([[0.6], [0.5]]), r"`topk_values` must have shape \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            SoftLabelStore.from_rows(_info(), good | {name: value})


def test_bad_data_for_build_is_named():
    data = _pictures()
    with pytest.raises(ValueError, match="There are no rows: the data set is empty"):
        SoftLabelStore.build(_Teacher(), data.select([]), crop=RandomResizedCrop(8))
    with pytest.raises(ValueError, match="Column `index` is missing; .* adds one"):
        SoftLabelStore.build(_Teacher(), data.remove_columns("index"), crop=RandomResizedCrop(8))
    with pytest.raises(ValueError, match="Column `image` is missing"):
        SoftLabelStore.build(_Teacher(), data.remove_columns("image"), crop=RandomResizedCrop(8))
    with pytest.raises(ValueError, match="3 views of one example would be the same"):
        SoftLabelStore.build(_Teacher(), data, views=3, image_processor=None)
    with pytest.raises(ValueError, match="Give `crop`, `image_processor` or `collator`"):
        SoftLabelStore.build(_Teacher(), data)
    with pytest.raises(ValueError, match="`kind` must be one of hard"):
        SoftLabelStore.build(_Teacher(), data, kind="map", crop=RandomResizedCrop(8))
    with pytest.raises(ValueError, match="example 0, view 0 holds NaN"):
        SoftLabelStore.build(lambda _: torch.full((1, 6), torch.nan), data, crop=RandomResizedCrop(8), batch_size=1)
    with pytest.raises(ValueError, match=r"`logits` must have shape \(5, 4\), got \(5, 6\)"):
        SoftLabelStore.build(_Teacher(), data, crop=RandomResizedCrop(8), num_labels=4)
    with pytest.raises(ValueError, match="`like` gives the views"):
        SoftLabelStore.build(_Teacher(), data, like=_build(_Teacher(), None), image_processor=object())


def test_a_second_writer_is_refused_until_the_first_is_done_or_dead(tmp_path):
    first = SoftLabelWriter(tmp_path / "s", _info())
    first.add([0], logits=_logits(1))
    with pytest.raises(RuntimeError, match=rf"being written by process {os.getpid()} on .*choose another folder"):
        SoftLabelWriter(tmp_path / "s", _info())
    first.close()
    with pytest.raises(ValueError, match="This writer of .* is closed. Open the folder again"):
        first.add([1], logits=_logits(1))
    with SoftLabelWriter(tmp_path / "s", _info()) as second:
        assert second.has(0)
    code = (
        "import os, sys; from hf_labels.data import SoftLabelWriter, StoreInfo\n"
        "writer = SoftLabelWriter(sys.argv[1], StoreInfo('topk', 6, k=2)); print('open', flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "s")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(RuntimeError, match=f"process {other.pid} on"):
            SoftLabelWriter(tmp_path / "s", _info())
        other.kill()
        other.wait()
        with SoftLabelWriter(tmp_path / "s", _info()) as third:
            assert third.has(0)
    store = SoftLabelStore.from_pretrained(tmp_path / "s")
    assert len(store) == 1


def test_the_lock_goes_with_its_writer_not_with_its_thread_or_its_errors(tmp_path):
    writer = SoftLabelWriter(tmp_path / "s", _info())
    ends = threading.Thread(target=writer.close)
    ends.start()
    ends.join()
    with pytest.raises(ValueError, match="holds a store with `k=2`") as kept:  # as a notebook keeps its last error
        SoftLabelWriter(tmp_path / "s", _info(k=3))
    with pytest.raises(ValueError, match="stored already"), SoftLabelWriter(tmp_path / "s", _info()) as writer:
        writer.add([0], logits=_logits(1))
        writer.add([0], logits=_logits(1))
    with SoftLabelWriter(tmp_path / "s", _info()) as writer:
        assert writer.has(0)
        assert kept.value is not None
    writer.close()  # a second time does nothing
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["data", "soft_label_store.json"]


def test_of_many_writers_that_come_and_go_one_is_in_at_a_time(tmp_path):
    inside, most, turns, refused = [], [], [], []

    def come_and_go(number):
        while len(turns) < 40:
            try:
                writer = SoftLabelWriter(tmp_path / "s", _info())
            except RuntimeError as error:
                refused.append(str(error))
                time.sleep(0.001)
                continue
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.002)
            inside.remove(number)
            turns.append(number)
            writer.close()

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(turns) >= 40
    assert refused and all("is being written by" in text for text in refused)
