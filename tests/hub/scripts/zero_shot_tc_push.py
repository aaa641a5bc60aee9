"""Zero-shot models on the loopback Hub: one pushed by the trainer, one by the pipeline, and a pair encoder."""

from __future__ import annotations

import json
from pathlib import Path

import tiny
import torch
from checks import check, log, main
from datasets import ClassLabel, Dataset
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from transformers import BertForSequenceClassification

from hf_labels.hub_cards import validate_card
from hf_labels.models.zero_shot_tc import HypothesisZeroShotPipeline
from hf_labels.models.zero_shot_tc_pairs import PairEncoderConfig, PairEncoderForSequenceClassification
from hf_labels.trainers.zero_shot_tc import EntailmentTrainer, EntailmentTrainingArguments

NAMES = {0: "entailment", 1: "not_entailment"}
HYPOTHESES = {"good": ["the film is good", "great acting"], "bad": ["the film is bad"], "poor": ["poor plot"]}
api = HfApi()


def entailment_model(seed: int = 0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    names = {"id2label": NAMES, "label2id": {name: place for place, name in NAMES.items()}}
    return BertForSequenceClassification(tiny.config(**names, initializer_range=0.5)).eval()


def keep_answers(name: str, model: torch.nn.Module, **settings: object) -> None:
    pipe = HypothesisZeroShotPipeline(model=model.eval(), tokenizer=tiny.tokenizer())
    tiny.remember(name, pipe(tiny.TEXTS, **settings))


@check
def the_trainer_pushes_model_card_and_hypotheses():
    data = Dataset.from_dict({"text": tiny.TEXTS, "labels": [0, 2, 0, 2, 2, 0]})  # no text of `bad`
    data = data.cast_column("labels", ClassLabel(names=list(HYPOTHESES)))
    settings = {"seen_labels": "v0", "decision": "two_phase", "none_label": "neither", "push_to_hub": True}
    arguments = tiny.arguments("zero-shot", Path("zero-shot-run"), EntailmentTrainingArguments, **settings)
    trainer = EntailmentTrainer(
        entailment_model(),
        arguments,
        train_dataset=data,
        eval_dataset=data,
        processing_class=tiny.tokenizer(),
        hypotheses=HYPOTHESES,
    )
    trainer.train()
    trainer.evaluate()
    trainer.push_to_hub()
    files = set(api.list_repo_files("tester/zero-shot"))
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= files
    assert not [name for name in files if name.endswith(".py")]
    assert log("validate_yaml")
    back = ModelCard.load("tester/zero-shot", ignore_metadata_errors=False)
    assert validate_card(str(back), slug="zero_shot_tc") == [] and "1909.00161" in str(back)
    assert back.data.pipeline_tag == "zero-shot-classification" and "harmonic_mean" in str(back)
    saved = json.loads(Path(hf_hub_download("tester/zero-shot", "config.json")).read_text())["zero_shot"]
    assert saved["hypotheses"] == HYPOTHESES and saved["seen_labels"] == ["good", "poor"]
    keep_answers("zero-shot", trainer.model)


@check
def the_pipeline_pushes_its_settings_and_no_code():
    pipe = HypothesisZeroShotPipeline(model=entailment_model(1), tokenizer=tiny.tokenizer())
    pipe.save_settings(hypotheses=HYPOTHESES, multi_label=True, threshold=0.4)
    pipe.push_to_hub("tester/zero-shot-pipe")
    files = set(api.list_repo_files("tester/zero-shot-pipe"))
    assert {"config.json", "model.safetensors"} <= files and not [name for name in files if name.endswith(".py")]
    keep_answers("zero-shot-pipe", pipe.model)


@check
def a_pair_encoder_is_pushed():
    inner = tiny.encoder().config.to_dict()
    model = PairEncoderForSequenceClassification(
        PairEncoderConfig(backbone_config=inner, sep_token_id=3, cls_token_id=2)
    )
    torch.nn.init.normal_(model.head.weight)
    model.push_to_hub("tester/zero-shot-pair")
    tiny.tokenizer().push_to_hub("tester/zero-shot-pair")
    keep_answers("zero-shot-pair", model, hypotheses=HYPOTHESES)


if __name__ == "__main__":
    main()
