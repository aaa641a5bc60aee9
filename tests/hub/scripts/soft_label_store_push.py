"""Soft-label stores pushed to the loopback Hub: rows, side-car and card in one commit.

The loopback Hub is a protocol stand-in written by this project: these checks prove the client path only.
"""

import hashlib

import numpy as np
import tiny
import torch
from checks import WORK, check, main
from huggingface_hub import DatasetCard, HfApi, hf_hub_download

from hf_labels.data import SoftLabelStore, SoftLabelWriter, StoreInfo

api = HfApi()
NAMES = {number: f"class {number}" for number in range(20)}
REPO = "tester/soft-labels"


def _logits(rows: int, seed: int) -> torch.Tensor:
    return 3 * torch.randn(rows, 20, generator=torch.Generator().manual_seed(seed))


def _info(**options: object) -> StoreInfo:
    facts = {"teacher": "tester/teacher", "source": {"id": "tester/images", "split": "train"}, "id2label": NAMES}
    return StoreInfo("topk", 20, **({"k": 3, "codec": "u8_log", "has_crops": True} | facts | options))


def _fill(folder: str, rows: int, rows_per_file: int) -> SoftLabelStore:
    crops = np.tile(np.float32([0.1, 0.2, 0.5, 0.6]), (rows, 1))
    with SoftLabelWriter(WORK / folder, _info(), rows_per_file=rows_per_file) as writer:
        for start in range(0, rows, 5):
            place = {"crops": crops[start : start + 5], "flips": [True, False, True, False, True]}
            writer.add(range(start, start + 5), logits=_logits(5, start), **place)
    return SoftLabelStore.from_pretrained(WORK / folder)


@check
def store_is_pushed_file_by_file_with_a_card():
    store = _fill("first", 40, 10)
    store.push_to_hub(REPO)
    for path in sorted((WORK / "first").rglob("*.*")):
        name = str(path.relative_to(WORK / "first"))
        pushed = hf_hub_download(REPO, name, repo_type="dataset")
        with open(pushed, "rb") as file:
            assert hashlib.sha256(file.read()).digest() == hashlib.sha256(path.read_bytes()).digest(), name
    assert len(api.list_repo_commits(REPO, repo_type="dataset")) <= 2  # made, and filled
    card = DatasetCard.load(REPO)
    assert "tester/teacher" in card.text and "tester/images" in card.text and "soft_label_store.json" in card.text
    assert "hf_labels" in card.data.tags
    rows = store.lookup([3, 39])
    tiny.remember("soft_labels", {"probs": store.decode(rows).tolist(), "crop": rows["crop"].tolist()})
    tiny.remember("soft_labels_commit", api.dataset_info(REPO).sha)


@check
def later_store_replaces_the_files_of_the_earlier_one():
    _fill("second", 20, 10).push_to_hub(REPO)
    files = [name for name in api.list_repo_files(REPO, repo_type="dataset") if name.endswith(".parquet")]
    assert sorted(files) == ["data/train-00000.parquet", "data/train-00001.parquet"]


@check
def projector_and_map_are_pushed():
    SoftLabelStore.from_projector("tester/adapter", 20, revision="main", prompts="a photo of a {}").push_to_hub(
        "tester/projector-labels"
    )
    values, ids = torch.randn(4, 20, 3, 5, generator=torch.Generator().manual_seed(9)).topk(2, dim=1)
    writer = SoftLabelWriter(WORK / "maps", StoreInfo("map", 20, k=2, map_shape=(3, 5)))
    with writer:
        writer.add_maps(range(4), ids, values)
    store = SoftLabelStore.from_writer(writer)
    store.push_to_hub("tester/label-maps", private=True)
    tiny.remember("label_maps", store.decode(store.lookup([2, 0])).tolist())
    api.create_repo("tester/no-store", repo_type="dataset")


if __name__ == "__main__":
    main()
