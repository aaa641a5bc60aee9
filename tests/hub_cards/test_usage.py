"""The code on the pages of `soft_labels` and `crosstune` runs as it stands, with a tiny local encoder."""

import re

import torch

from hf_labels.hub_cards import method_text, validate_card


def tiny_backbone(folder) -> str:
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    words = "loved it . was fine , i think not my taste at all what a waste of an evening the text to label".split()
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=3,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return str(folder)


def test_usage_and_loading_of_soft_labels_run_as_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "backbone").mkdir()
    backbone = tiny_backbone(tmp_path / "backbone")
    monkeypatch.chdir(tmp_path)
    method = method_text("soft_labels")
    code, places = re.subn(r'(?m)^backbone = "[^"]+"', f"backbone = {backbone!r}", method.usage_code)
    assert places == 1
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    losses = [entry["train_loss"] for entry in run["trainer"].state.log_history if "train_loss" in entry]
    assert losses and losses[0] > 0
    assert "eval_loss" in capsys.readouterr().out

    shown: dict = {}
    exec(compile(method.loading_code("out/final"), "loading", "exec"), shown)
    assert re.search(r"'label': '(negative|neutral|positive)'", capsys.readouterr().out)

    run["trainer"].create_model_card(model_name="soft")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert validate_card(card, tmp_path / "out", slug="soft_labels") == []
    assert "| `negative` | - |" in card and "`loss` (lower is better)" in card


def test_usage_and_loading_of_crosstune_run_as_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "backbone").mkdir()
    backbone = tiny_backbone(tmp_path / "backbone")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_LABELS_CACHE", str(tmp_path / "cache"))
    method = method_text("crosstune")
    code, places = re.subn(r'(?m)^backbone = "[^"]+"', f"backbone = {backbone!r}", method.usage_code)
    assert places == 1
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    assert run["again"].config.id2label == {0: "acne", 1: "insomnia", 2: "migraine", 3: "obesity"}
    assert re.search(r"'label': '(acne|insomnia|migraine|obesity)'", capsys.readouterr().out)
    exec(compile(method.loading_code("out/final"), "loading", "exec"), {})
    assert re.search(r"'label': '(acne|insomnia|migraine)'", capsys.readouterr().out)
