"""Loads, in a fresh process with an empty cache, what `soft_label_store_push.py` has pushed.

The loopback Hub is a protocol stand-in written by this project: these checks prove the client path only.
"""

import tiny
from checks import check, main, raises

from hf_labels.data import SoftLabelStore

REPO = "tester/soft-labels"


@check
def store_comes_back_bit_for_bit_at_its_commit():
    kept = tiny.recall("soft_labels")
    store = SoftLabelStore.from_pretrained(REPO, revision=tiny.recall("soft_labels_commit"))
    assert len(store) == 40 and store.info.teacher == "tester/teacher" and store.info.codec == "u8_log"
    rows = store.lookup([3, 39])
    assert store.decode(rows).tolist() == kept["probs"] and rows["crop"].tolist() == kept["crop"]


@check
def newer_revision_has_only_its_own_rows():
    store = SoftLabelStore.from_pretrained(REPO)
    assert store.example_ids.tolist() == list(range(20))
    assert store.decode(store.lookup([3])).tolist()[0] == tiny.recall("soft_labels")["probs"][0]


@check
def store_is_streamed_from_the_hub():
    store = SoftLabelStore.from_pretrained(REPO, streaming=True)
    found = [row for rows in store.iter_batches(8) for row in rows["example_id"].tolist()]
    assert found == list(range(20))


@check
def projector_and_map_come_back():
    projector = SoftLabelStore.from_pretrained("tester/projector-labels")
    assert projector.info.projector == {"repo_id": "tester/adapter", "revision": "main", "prompts": "a photo of a {}"}
    maps = SoftLabelStore.from_pretrained("tester/label-maps")
    assert maps.decode(maps.lookup([2, 0])).tolist() == tiny.recall("label_maps")


@check
def data_set_without_side_car_is_refused():
    error = raises(FileNotFoundError, SoftLabelStore.from_pretrained, "tester/no-store")
    assert "no soft_label_store.json" in str(error)


if __name__ == "__main__":
    main()
