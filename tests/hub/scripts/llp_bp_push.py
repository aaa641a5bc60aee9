"""A classifier from bags on the loopback Hub: pushed by its trainer, with its card; pseudo-labels as a data set."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from checks import check, main
from datasets import Dataset
from huggingface_hub import HfApi, ModelCard

from hf_labels.data.llp_bp import bag_dataset
from hf_labels.labels.llp_bp import llp_pseudo_labels
from hf_labels.models.llp_bp import AutoModelWithBagHead, BagHeadConfig
from hf_labels.trainers.llp_bp import LLPTrainer, LLPTrainingArguments, predict_instances

SHARED = Path(os.environ["LOOPBACK_SHARED"])
RNG = np.random.default_rng(0)
Y = RNG.integers(2, size=32)
X = RNG.normal(size=(32, 3)) + 2 * Y[:, None]
BAG = np.arange(32) // 8
DATA = Dataset.from_dict({"features": X.tolist()})


@check
def the_classifier_is_pushed_with_its_card():
    bags = bag_dataset(DATA, BAG, np.bincount(BAG, weights=Y), Y)
    args = LLPTrainingArguments(
        str(SHARED / "llp"), max_steps=2, use_cpu=True, report_to="none", hub_model_id="tester/from-bags"
    )
    trainer = LLPTrainer(
        AutoModelWithBagHead(BagHeadConfig(num_features=3, hidden_sizes=[4])), args, train_dataset=bags
    )
    trainer.train()
    trainer.push_to_hub()
    assert {"README.md", "config.json", "model.safetensors"} <= set(HfApi().list_repo_files("tester/from-bags"))
    assert "2310.08056" in str(ModelCard.load("tester/from-bags"))
    np.savez(SHARED / "llp.npz", probs=predict_instances(trainer.model, DATA)[0])


@check
def pseudo_labels_are_pushed_as_columns():
    found = llp_pseudo_labels(X, BAG, np.bincount(BAG, weights=Y), k=3, lambda_s=1.0)
    found.to_dataset(DATA).push_to_hub("tester/bag-labels")
    np.savez(SHARED / "llp2.npz", labels=found.labels, probs=found.probs)


if __name__ == "__main__":
    main()
