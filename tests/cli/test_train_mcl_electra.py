"""`hf-labels train mcl_electra`: text without labels, from stock checkpoints and again from what was saved."""

import json

import pytest
import tiny
from mcl_electra_toys import save_stock

FAST = "--use_cpu --max_steps 4 --per_device_train_batch_size 4 --report_to none --disable_tqdm true".split()


@pytest.fixture
def folder(tmp_path):
    save_stock(tmp_path, "toy-generator", "toy-discriminator")
    texts = ["The first look is not always the right one .", "Words change places and come back in order"] * 8
    tiny.write_jsonl(tmp_path / "texts.jsonl", [{"text": text, "id": i} for i, text in enumerate(texts)])
    return tmp_path


def train(cli, folder, model, out, *more):
    words = ["--dataset", folder / "texts.jsonl", "--model", model, "--output_dir", folder / out, *FAST, *more]
    return cli("train", "mcl_electra", *words)


def test_stock_checkpoints_then_the_saved_model(cli, folder):
    code, out, err = train(cli, folder, folder / "toy-discriminator", "out", "--eval_fraction", "0.25")
    assert code == 0, err
    assert "eval_itd_label_balance" in out and "`mcl_electra`" in out
    config = json.loads((folder / "out" / "config.json").read_text())
    assert config["model_type"] == "hfl-mcl-electra" and len(config["courses"]) == 5
    assert "texts.jsonl" in (folder / "out" / "README.md").read_text()
    config["courses"] = ["rtd"]
    (folder / "out" / "config.json").write_text(json.dumps(config))
    code, out, err = train(cli, folder, folder / "out", "again", "--eval_dataset", folder / "texts.jsonl")
    assert code == 0, err
    assert "eval_rtd_disc_loss" in out and "eval_itd" not in out


def test_other_models_and_lengths_are_refused(cli, folder, backbone):
    code, _, err = train(cli, folder, backbone, "out")
    assert code == 1 and "neither a saved MCLElectraForPreTraining" in err
    code, _, err = train(cli, folder, folder / "toy-generator", "out")
    assert code == 1 and "toy-generator" in err
    code, _, err = train(cli, folder, folder / "toy-discriminator", "out", "--max_length", "65")
    assert code == 1 and "`max_length` is 65, the networks read at most 64" in err
    code, _, err = train(cli, folder, folder / "toy-discriminator", "out", "--text_column", "body")
    assert code == 1 and "body" in err
