"""A calibrated classifier on the loopback Hub: in one piece, by a Trainer, and added to a model that is there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from checks import check, log, main
from huggingface_hub import HfApi, ModelCard
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from hf_labels.hub_cards import validity_plot
from hf_labels.labels.lp_icp import LabelPowersetICP
from hf_labels.models.lp_icp import ConformalMultiLabelClassifier

SHARED = Path(os.environ["LOOPBACK_SHARED"])
api = HfApi()
FILES = {"lp_icp.json", "lp_icp.safetensors"}
WORDS = [f"w{i}" for i in range(20)]


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS])}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16)


def model():
    torch.manual_seed(0)
    settings = {"vocab_size": 22, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings |= {"intermediate_size": 32, "initializer_range": 0.5, "problem_type": "multi_label_classification"}
    names = {0: "red", 1: "green", 2: "blue | x"}
    settings |= {"id2label": names, "label2id": {name: i for i, name in names.items()}}
    return BertForSequenceClassification(BertConfig(**settings))


def rows(number=24):
    from datasets import Dataset

    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 4)) for _ in range(number)]
    return Dataset.from_dict({"text": texts, "labels": rng.integers(0, 2, (number, 3)).tolist()})


@check
def all_is_pushed_with_card_and_picture():
    classifier = ConformalMultiLabelClassifier(model(), tokenizer()).calibrate(rows())
    plot = validity_plot(classifier.score(rows(), epsilons=[0.1, 0.2, 0.4]), Path("validity.png"))
    classifier.push_to_hub("tester/conformal", plots=[plot], base_model="tester/base")
    assert log("validate_yaml")
    assert len(api.list_repo_commits("tester/conformal")) <= 2  # the first one makes the repository
    files = set(api.list_repo_files("tester/conformal"))
    assert FILES | {"README.md", "config.json", "model.safetensors", "validity.png", "tokenizer.json"} <= files
    card = str(ModelCard.load("tester/conformal", ignore_metadata_errors=False))
    assert "2312.09304" in card and "validity.png" in card and "calibration rows" in card
    texts = ["w1 w2 w3", "w7"]
    answers = classifier.predict(texts, 0.2)
    np.savez(SHARED / "lp_icp.npz", p=[a.credibility for a in answers], sizes=[a.size for a in answers])


@check
def a_trainer_pushes_it_along():
    data = rows()
    words = tokenizer()
    encoded = [
        {**words(text), "labels": [float(x) for x in row]}
        for text, row in zip(data["text"], data["labels"], strict=True)
    ]
    arguments = TrainingArguments("run", use_cpu=True, report_to="none", push_to_hub=True, hub_model_id="tester/run")
    trainer = Trainer(model(), arguments, train_dataset=encoded, processing_class=words)
    LabelPowersetICP().calibrate(trainer.predict(encoded), from_logits=True).save_pretrained(arguments.output_dir)
    trainer.push_to_hub()
    assert {"lp_icp.json", "lp_icp.safetensors", "model.safetensors"} <= set(api.list_repo_files("tester/run"))


@check
def a_model_that_is_there_keeps_its_card():
    model().push_to_hub("tester/not-calibrated")
    model().push_to_hub("tester/plain")
    api.upload_file(path_or_fileobj=b"# Mine\n", path_in_repo="README.md", repo_id="tester/plain")
    icp = LabelPowersetICP(names=["red", "green", "blue | x"]).calibrate(np.full((9, 3), 0.3), np.zeros((9, 3), int))
    icp.push_to_hub("tester/plain")
    assert FILES | {"model.safetensors"} <= set(api.list_repo_files("tester/plain"))
    assert Path(api.hf_hub_download("tester/plain", "README.md")).read_text() == "# Mine\n"
    icp.push_to_hub("tester/only-icp", base_model="tester/plain")
    assert "LabelPowersetICP.from_pretrained" in str(ModelCard.load("tester/only-icp"))


if __name__ == "__main__":
    main()
