"""Loads, in a fresh process with an empty cache, what `soft_views_push.py` has pushed to the loopback Hub."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from checks import check, main
from transformers import AutoModelForImageClassification

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import soft_view_toys as toys

from hf_labels.data import SoftLabelStore
from hf_labels.data.ferkd_collator import FerKDCollator
from hf_labels.data.relabel import ReLabelCollator

SHARED = Path(os.environ["LOOPBACK_SHARED"])
DATA = toys.pictures(12)


@check
def stock_students_are_loaded_without_hf_labels():
    for name in ("relabel", "ferkd"):
        kept = torch.load(SHARED / f"{name}.pt")
        model = AutoModelForImageClassification.from_pretrained(f"tester/{name}").eval()
        assert type(model).__module__.startswith("transformers.") and model.config.id2label[2] == "both"
        with torch.no_grad():
            torch.testing.assert_close(model(kept["pixels"]).logits, kept["logits"])


@check
def label_maps_come_back_and_make_batches():
    maps = SoftLabelStore.from_pretrained("tester/label-maps")
    assert maps.info.teacher == "tester/annotator" and maps.info.map_shape == (4, 4)
    found = maps.decode(maps.lookup(DATA["index"][:]))
    torch.testing.assert_close(found, torch.load(SHARED / "map_labels.pt"), rtol=0, atol=0)
    batch = ReLabelCollator(maps, size=8)([DATA[0], DATA[5]])
    torch.testing.assert_close(batch["soft_labels"].sum(1), torch.ones(2))


@check
def calibrated_labels_come_back_with_their_thresholds():
    store = SoftLabelStore.from_pretrained("tester/views-ferkd")
    facts = store.info.extra["ferkd"]
    assert facts["t_low"] < facts["t_mid"] < facts["t_top"] and facts["views"]["HR"] > 0
    found = store.decode(store.reader.take(range(len(store))))
    torch.testing.assert_close(found, torch.load(SHARED / "view_labels.pt"), rtol=0, atol=0)
    assert len(FerKDCollator(store, None, 2)([DATA[0], DATA[5]])["index"]) > 1


if __name__ == "__main__":
    main()
