"""Trainers, models, data sets and metrics pushed to the loopback Hub by the real client.

The loopback Hub is a protocol stand-in written by this project: these checks prove the client path only. What is
pushed here is loaded by `load.py` in a fresh process with an empty cache.
"""

from concurrent.futures import wait
from pathlib import Path

import datasets
import tiny
import torch
from checks import WORK, Messages, check, faults, hashes, log, main, raises
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback

from hf_labels.hub import SafePush, explain_hub_error, failed_pushes

api = HfApi()


def trainer(name: str, **changes: object) -> Trainer:
    words = tiny.tokenizer()
    args = tiny.arguments(name, WORK / name, **changes)
    return Trainer(tiny.classifier(), args, train_dataset=tiny.rows(), processing_class=words)


@check
def stock_trainer_pushes_model_tokenizer_and_card():
    run = trainer("demo")
    run.train()
    done = run.push_to_hub(commit_message="two steps", tags=["hf_labels"])
    files = set(api.list_repo_files("tester/demo"))
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"} <= files
    assert not any("checkpoint-" in path for path in files)
    commits = api.list_repo_commits("tester/demo")
    assert commits[0].commit_id == done.oid and commits[0].title == "two steps"
    assert "hf_labels" in ModelCard.load("tester/demo").data.tags
    tiny.remember("demo", tiny.logits_of(run.model, run.processing_class))
    tiny.remember("demo_hash", hashes(WORK / "demo")["model.safetensors"])


class Wait(TrainerCallback):
    """Lets each upload of a checkpoint end before the next step: `Trainer` writes over files that are being sent."""

    def on_save(self, args, state, control, **kwargs):
        wait(self.trainer.push_in_progress.jobs, timeout=60)


def waiting(run: Trainer) -> Trainer:
    callback = Wait()
    callback.trainer = run
    run.add_callback(callback)
    return run


LIVE = {"push_to_hub": True, "hub_strategy": "every_save", "save_strategy": "steps", "save_steps": 1}


@check
def checkpoints_are_pushed_while_training():
    run = waiting(trainer("live", **LIVE))
    run.train()
    titles = [commit.title for commit in api.list_repo_commits("tester/live")]
    assert titles == ["Training in progress, step 2", "Training in progress, step 1", "initial commit"]
    assert failed_pushes(run.push_in_progress.jobs) == []


@check
def failed_push_keeps_the_output_folder_whole_and_commits_nothing():
    run = trainer("unlucky")
    run.train()
    run.save_model()
    before = hashes(WORK / "unlucky")
    for route, uploads in (("lfs_batch", 0), ("commit", 1)):
        faults({"route": route, "status": 500 if route == "commit" else 403})
        error = raises(HfHubHTTPError, run.push_to_hub)
        text = explain_hub_error(error)
        assert text and "Nothing was committed and the local files are whole" in text
        after = hashes(WORK / "unlucky")
        assert {path: after[path] for path in before if path != "training_args.bin"} == {
            path: before[path] for path in before if path != "training_args.bin"
        }
        assert api.list_repo_files("tester/unlucky") == [".gitattributes"]
        assert len(log("commit")) == uploads
    weights = load_file(WORK / "unlucky" / "model.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in run.model.state_dict().items())
    faults()
    run.push_to_hub()
    assert "model.safetensors" in api.list_repo_files("tester/unlucky")


class Careful(SafePush, Trainer):
    """A stock trainer with the mixin."""


def careful(name: str, **changes: object) -> Careful:
    words = tiny.tokenizer()
    args = tiny.arguments(name, WORK / name, **changes)
    return Careful(tiny.classifier(), args, train_dataset=tiny.rows(), processing_class=words)


@check
def failed_checkpoint_pushes_are_logged_each_once_and_training_goes_on():
    run = waiting(careful("silent", **LIVE, max_steps=3))
    faults({"route": "commit", "times": 2})
    messages = Messages.of("hf_labels.hub")
    assert run.train().global_step == 3
    assert len(messages) == 2 and all("error 500" in text and "output folder" in text for text in messages)
    titles = [commit.title for commit in api.list_repo_commits("tester/silent")]
    assert titles == ["Training in progress, step 3", "initial commit"]


@check
def failed_push_carries_the_explanation_and_keeps_its_type():
    run = careful("noted")
    faults({"route": "commit"})
    error = raises(HfHubHTTPError, run.push_to_hub)
    assert error.__notes__ == [explain_hub_error(error)] and "error 500" in error.__notes__[0]


@check
def token_in_the_arguments_does_not_reach_the_pushed_files():
    run = careful("token", hub_token="hf_test", push_to_hub=True, save_strategy="steps", save_steps=1)
    run.train()
    run.push_to_hub()
    pushed = {path: Path(api.hf_hub_download("tester/token", path)) for path in api.list_repo_files("tester/token")}
    assert "training_args.bin" in pushed
    assert not [path for path, file in pushed.items() if b"hf_test" in file.read_bytes()]
    assert torch.load(pushed["training_args.bin"], weights_only=False).hub_token is None
    assert not [path for path in (WORK / "token").rglob("*") if path.is_file() and b"hf_test" in path.read_bytes()]
    tiny.remember("token", tiny.logits_of(run.model, run.processing_class))


@check
def model_push_in_several_files_with_revision_and_pull_request():
    model, words = tiny.classifier(seed=1), tiny.tokenizer()
    model.push_to_hub("tester/sharded", max_shard_size="8KB", tags=["hf_labels"], commit_message="shards")
    words.push_to_hub("tester/sharded")
    files = api.list_repo_files("tester/sharded")
    assert sum(path.endswith(".safetensors") for path in files) > 1 and "model.safetensors.index.json" in files
    assert len(log("lfs_put")) > 1
    api.create_branch("tester/sharded", branch="other")
    tiny.classifier(seed=2).push_to_hub("tester/sharded", revision="other")
    request = tiny.classifier(seed=3).push_to_hub("tester/sharded", create_pr=True)
    assert request.pr_revision == "refs/pr/1" and len(api.list_repo_commits("tester/sharded")) == 3
    for seed, name in ((1, "sharded"), (2, "sharded_other"), (3, "sharded_pr")):
        tiny.remember(name, tiny.logits_of(tiny.classifier(seed), words))


@check
def dataset_push_keeps_label_columns():
    kinds = datasets.Features(
        {
            "text": datasets.Value("string"),
            "labels": datasets.ClassLabel(names=tiny.NAMES),
            "soft_labels": datasets.List(datasets.Value("float32"), length=2),
            "annotator_labels": datasets.List(datasets.Value("int64"), length=3),
        }
    )
    columns = {
        "text": tiny.TEXTS,
        "labels": [1, 0, 1, -1, 0, 1],
        "soft_labels": [[0.25, 0.75]] * 6,
        "annotator_labels": [[1, -1, 0]] * 6,
    }
    data = datasets.Dataset.from_dict(columns, features=kinds)
    splits = datasets.DatasetDict({"train": data, "test": data.select(range(2))})
    splits.push_to_hub("tester/reviews", num_shards={"train": 2, "test": 1})
    files = api.list_repo_files("tester/reviews", repo_type="dataset")
    assert sum(path.endswith(".parquet") for path in files) == 3 and "README.md" in files
    api.create_tag("tester/reviews", tag="v1", repo_type="dataset")
    tiny.remember("reviews", columns)


@check
def text_generation_model_with_its_own_decoding_loop():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=32))
    model.generation_config.eos_token_id = None
    model.push_to_hub("tester/loop")
    code = (
        "def generate(model, inputs=None, generation_config=None, repeat=2, **kwargs):\n"
        "    ids = kwargs.pop('input_ids', inputs)\n"
        "    return ids.repeat(1, repeat)\n"
    )
    files = {"custom_generate/generate.py": code, "custom_generate/requirements.txt": "transformers\n"}
    for path, text in files.items():
        api.upload_file(path_or_fileobj=text.encode(), path_in_repo=path, repo_id="tester/loop")


if __name__ == "__main__":
    main()
