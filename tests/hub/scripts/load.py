"""Loads, in a fresh process with an empty cache, what `push.py` has pushed.

The loopback Hub is a protocol stand-in written by this project: these checks prove the client path only.
"""

import hashlib
from pathlib import Path

import tiny
import torch
from checks import check, faults, hits, log, main, raises
from datasets import load_dataset
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from hf_labels.hub import explain_hub_error

api = HfApi()


def load(repo: str, **options: object) -> torch.nn.Module:
    return AutoModelForSequenceClassification.from_pretrained(repo, **options)


@check
def model_from_the_hub_has_the_same_bits():
    words = AutoTokenizer.from_pretrained("tester/demo")
    model = load("tester/demo")
    assert tiny.logits_of(model, words) == tiny.recall("demo")
    data = Path(hf_hub_download("tester/demo", "model.safetensors")).read_bytes()
    assert hashlib.sha256(data).hexdigest() == tiny.recall("demo_hash")
    assert model.config.id2label == dict(enumerate(tiny.NAMES))


@check
def pipeline_works_by_repo_id():
    found = pipeline("text-classification", model="tester/demo", top_k=None)(tiny.TEXTS[:2])
    probs = torch.tensor(tiny.recall("demo")[:2]).softmax(-1)
    for row, wanted in zip(found, probs, strict=True):
        scores = {item["label"]: item["score"] for item in row}
        assert all(abs(scores[name] - wanted[i].item()) < 1e-6 for i, name in enumerate(tiny.NAMES))


@check
def shards_branches_and_pull_requests_load():
    words = AutoTokenizer.from_pretrained("tester/sharded")
    for revision, name in (("main", "sharded"), ("other", "sharded_other"), ("refs/pr/1", "sharded_pr")):
        assert tiny.logits_of(load("tester/sharded", revision=revision), words) == tiny.recall(name), revision


@check
def stock_card_is_readable():
    card = ModelCard.load("tester/demo")
    assert card.data.library_name == "transformers" and "hf_labels" in card.data.tags


@check
def dataset_comes_back_with_its_features():
    wanted = tiny.recall("reviews")
    data = load_dataset("tester/reviews")
    assert {split: rows.num_rows for split, rows in data.items()} == {"train": 6, "test": 2}
    assert {name: data["train"][name][:] for name in wanted} == wanted
    assert data["train"].features["labels"].names == tiny.NAMES
    assert data["train"].features["soft_labels"].length == 2
    tagged = load_dataset("tester/reviews", split="test", revision="v1")
    assert tagged["text"][:] == wanted["text"][:2]


@check
def dataset_streams():
    rows = list(load_dataset("tester/reviews", split="train", streaming=True))
    assert [row["labels"] for row in rows] == tiny.recall("reviews")["labels"]


@check
def decoding_loop_of_the_repo_runs_only_when_trusted():
    ids = torch.tensor([[1, 2, 3]])
    plain = AutoModelForCausalLM.from_pretrained("tester/loop")
    assert not isinstance(raises(ValueError, plain.generate, ids, custom_generate="tester/loop"), KeyError)
    found = plain.generate(ids, custom_generate="tester/loop", trust_remote_code=True, repeat=3)
    assert found.tolist() == [[1, 2, 3] * 3]
    trusted = AutoModelForCausalLM.from_pretrained("tester/loop", trust_remote_code=True)
    assert trusted.generate(input_ids=ids).tolist() == [[1, 2, 3] * 2]


@check
def missing_model_and_missing_dataset_are_explained():
    text = explain_hub_error(raises(OSError, load, "tester/nowhere"))
    assert text and "`tester/nowhere` was not found" in text
    text = explain_hub_error(raises(FileNotFoundError, load_dataset, "tester/no-data"))
    assert text and "tester/no-data" in text and "spelling" in text


@check
def gated_model_is_explained():
    api.update_repo_settings("tester/unlucky", gated="manual")
    text = explain_hub_error(raises(OSError, load, "tester/unlucky", token="hf_other"))
    assert text and "is gated" in text and "`tester/unlucky`" in text


@check
def truncated_weights_are_refused_and_the_next_try_is_whole():
    faults({"route": "cdn", "kind": "short", "path": "/cdn/"})
    error = raises(OSError, load, "tester/token")
    text = explain_hub_error(error)
    assert hits()[0] >= 1 and text and "cut off" in text and "model.safetensors" in text
    faults()
    words = AutoTokenizer.from_pretrained("tester/token")
    assert tiny.logits_of(load("tester/token"), words) == tiny.recall("token") and log("cdn")


@check
def config_error_is_not_blamed_on_the_hub():
    error = raises(Exception, load, "tester/demo", num_hidden_layers="many")
    assert explain_hub_error(error) is None, explain_hub_error(error)


if __name__ == "__main__":
    main()
