"""`hf-labels train` from a Hub data set to a pushed model, on the loopback Hub, a stand-in written by this project."""

import json
import os
from pathlib import Path

import fresh
import pytest
import tiny

HUB = Path(__file__).resolve().parents[1] / "hub"
SCRIPT = """
import json, sys
from datasets import Dataset, DatasetDict
from huggingface_hub import HfApi, ModelCard
from hf_labels.cli import main

rows, backbone, out = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
DatasetDict(train=Dataset.from_list(rows), validation=Dataset.from_list(rows[:9])).push_to_hub("tester/topics")
words = ["train", "soft_labels", "--dataset", "tester/topics", "--model", backbone, "--output_dir", out, "--use_cpu"]
words += ["--max_steps", "2", "--report_to", "none", "--disable_tqdm", "true"]
push = ["--push_to_hub", "--hub_model_id", "tester/topic-model", "--hub_token", "hf_test"]
code = main([*words, *push])
files = HfApi().list_repo_files("tester/topic-model") if code == 0 else []
card = str(ModelCard.load("tester/topic-model")) if code == 0 else ""
refused = main([*words, "--overwrite_output_dir", *push[:-1], "hf_wrong"])
absent = main(["train", "soft_labels", "--dataset", "tester/nothing", *words[4:], "--overwrite_output_dir"])
print("REPORT" + json.dumps({"code": code, "files": files, "card": card, "refused": refused, "absent": absent}))
"""


@pytest.mark.hub
def test_from_a_hub_data_set_to_a_pushed_model(backbone, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HUB))
    from loopback_hub import LoopbackHub

    with LoopbackHub() as hub:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
        env = kept | hub.environment(tmp_path / "home") | {"OMP_NUM_THREADS": "1"}
        done = fresh.run(["-c", SCRIPT, json.dumps(tiny.rows(18)), backbone, tmp_path / "out"], env=env, cwd=tmp_path)
    lines = [line for line in done.stdout.splitlines() if line.startswith("REPORT")]
    assert lines, done.stderr[-3000:]
    report = json.loads(lines[0].removeprefix("REPORT"))
    assert report["code"] == 0, done.stderr[-3000:]
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(report["files"])
    assert not any(name.startswith("checkpoint-") for name in report["files"])
    assert "tester/topics" in report["card"] and "validation" in report["card"] and "accuracy" in report["card"]
    assert b"hf_test" not in (tmp_path / "out" / "training_args.bin").read_bytes()
    assert report["refused"] == 1 and report["absent"] == 1
    messages = [line for line in done.stderr.splitlines() if line.startswith("hf-labels: ")]
    assert len(messages) == 2 and "Traceback" not in done.stderr
    assert "token" in messages[0].lower() and "no such data set" in messages[1]
