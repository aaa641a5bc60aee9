"""Soft labels of a crowd: how good they are, and what a model learns from them.

    python examples/crowd_soft_labels.py                      # digits with simulated annotators; no Hub
    python examples/crowd_soft_labels.py --crowds FOLDER      # and real crowds, without any training
    python examples/crowd_soft_labels.py --preset full        # CIFAR-10H and a ViT; Hub and a GPU

Training: twelve annotators with confusion matrices of their own give three labels to each training digit. The same
network is trained on the majority label, on soft labels, and on the truth. It is tested on clean digits and on digits
that are moved by a pixel, which it never saw. The annotators are simulated: people's mistakes are less independent.

Crowds: FOLDER holds `bluebirds_annotations.csv`, `bluebirds_gold.csv`, `ducks_annotations.csv` and
`ducks_gold_classes.csv` made from https://github.com/welinder/cubam (task, worker, label), and the table of Dawid and
Skene 1979 as `annotations.csv`. Without it the numbers of the last run with it stay in the result file.
"""

import argparse
import contextlib
import functools
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import harness

AVERAGE, MAJORITY, GOLD = (
    "average of seven methods, KL",
    "majority label, cross-entropy",
    "true labels (best possible)",
)
SMOOTHED = "majority label, smoothed as much as the average"
SINGLE = {"vote shares, KL": "normalized", "Dawid-Skene, KL": "ds"}
SAMPLED, HEADS = "average, a label drawn at each step", "average, two heads"
OBJECTIVES = {SAMPLED: "sampled", HEADS: "multi_task"}
KINDS = {
    AVERAGE: "method",
    SAMPLED: "ablation",
    HEADS: "ablation",
    "vote shares, KL": "ablation",
    "Dawid-Skene, KL": "ablation",
    MAJORITY: "baseline",
}
KINDS |= {GOLD: "baseline", SMOOTHED: "control"}
WORKERS, ANSWERS, TRAIN, STEPS, RATE = 12, 3, 900, 400, 3e-3


@functools.cache
def world() -> tuple[np.ndarray, np.ndarray]:
    """Digits as (N, 8, 8) in [0, 1], and their labels."""
    from hf_labels.data.offline_images import load_digits, pixels

    data = load_digits()
    return pixels(data).reshape(len(data), 8, 8).astype(np.float32) / 255, np.asarray(data["labels"][:])


def flat(images: np.ndarray) -> np.ndarray:
    """Rows of 64 numbers, which are read faster than lists of lists."""
    return images.reshape(len(images), -1)


def annotators(seed: int) -> np.ndarray:
    """Confusion matrices (W, K, K), axes worker, truth, said: each mistakes every digit for two others."""
    rng = np.random.default_rng([seed, 3])
    out = np.zeros((WORKERS, 10, 10))
    for worker in out:
        for digit in range(10):
            right = rng.uniform(0.35, 0.9)
            other = rng.choice(np.delete(np.arange(10), digit), size=2, replace=False)
            worker[digit, digit], worker[digit, other] = right, (1 - right) * np.array([0.7, 0.3])
    return out


def network() -> Any:
    """A classifier with one hidden layer."""
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import SequenceClassifierOutput

    class DigitConfig(PretrainedConfig):
        model_type = "digit-network"

    class DigitNetwork(PreTrainedModel):
        config_class = DigitConfig
        main_input_name = "pixel_values"

        def __init__(self, config: DigitConfig):
            super().__init__(config)
            self.body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2))
            self.classifier = nn.Linear(128, 10)
            self.post_init()

        def _init_weights(self, module: nn.Module) -> None:
            if isinstance(module, nn.Linear):
                module.reset_parameters()

        def forward(self, pixel_values: Any = None, labels: Any = None, **kwargs: Any) -> SequenceClassifierOutput:
            logits = self.classifier(self.body(pixel_values.flatten(1)))
            loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
            return SequenceClassifierOutput(loss=loss, logits=logits)

    return DigitNetwork(DigitConfig(num_labels=10))


def learn(
    images: np.ndarray, soft: np.ndarray, tests: dict[str, np.ndarray], seed: int, objective: str = "soft"
) -> dict[str, np.ndarray]:
    """Logits of every test set by a network trained on soft labels."""
    import torch
    from datasets import Dataset

    from hf_labels.trainers.crowd_soft_labels import CrowdLabelTrainer, CrowdLabelTrainingArguments

    torch.manual_seed(seed)
    data = Dataset.from_dict({"pixel_values": flat(images), "soft_labels": soft.astype(np.float32)}).with_format(
        "numpy"
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        args = CrowdLabelTrainingArguments(
            folder,
            objective=objective,  # "soft" is KL
            max_steps=STEPS,
            per_device_train_batch_size=64,
            per_device_eval_batch_size=1000,
            learning_rate=RATE,
            lr_scheduler_type="linear",
            seed=seed,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
        )
        trainer = CrowdLabelTrainer(network(), args, train_dataset=data)
        trainer.train()
        rows = {name: Dataset.from_dict({"pixel_values": flat(x)}).with_format("numpy") for name, x in tests.items()}
        return {name: trainer.predict(one).predictions for name, one in rows.items()}


def one_seed(seed: int) -> dict[str, Any]:
    """All systems on one draw of annotators and rows."""
    harness.one_thread()
    import datasets
    import transformers

    from hf_labels.data.corrupt import simulated_annotators
    from hf_labels.labels.crowd_soft_labels import aggregate_annotations
    from hf_labels.metrics.functional import calibrated_scores, calibration_scores

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("hf_labels").setLevel(logging.ERROR)
    clock = time.process_time()
    images, truth = world()
    order = np.random.default_rng(seed).permutation(len(truth))
    train, test = order[:TRAIN], order[TRAIN:]
    answers = simulated_annotators(
        truth[train], num_labels=10, seed=seed, confusions=annotators(seed), answers=ANSWERS
    )
    found = aggregate_annotations({"label": answers}, num_labels=10, seed=seed)
    majority = np.eye(10)[found.parts["normalized"].argmax(1)]
    mass = 1 - found.soft.max(1).mean()
    soft = {AVERAGE: found.soft, MAJORITY: majority, GOLD: np.eye(10)[truth[train]]}
    soft |= {SMOOTHED: (1 - mass) * majority + mass * (1 - majority) / 9}
    soft |= {name: found.parts[method] for name, method in SINGLE.items()}
    soft |= dict.fromkeys(OBJECTIVES, found.soft)
    moved = np.roll(images[test], 1, axis=2)
    moved[:, :, 0] = 0
    tests = {"clean digits": images[test], "moved digits": moved}
    scores: dict[str, Any] = {}
    for name, target in soft.items():
        objective = OBJECTIVES.get(name, "soft")
        for place, logits in learn(images[train], target, tests, seed, objective).items():
            plain = calibration_scores(logits, truth[test], from_logits=True)
            repaired = calibrated_scores(logits, truth[test], seed=seed)
            one = {key: plain[key] for key in ("nll", "ece", "brier")}
            one |= {"accuracy": float((logits.argmax(1) == truth[test]).mean()), "calibrated nll": repaired["nll"]}
            scores[f"{name}|{place}"] = one
    right = {name: float((target.argmax(1) == truth[train]).mean()) for name, target in soft.items()}
    return {"scores": scores, "labels": right, "seconds": time.process_time() - clock}


# ---- real crowds ----------------------------------------------------------------------------------------------------


def crowds(folder: Path) -> dict[str, Any]:
    """Accuracy and log-loss of every aggregation against the truth; Dawid and Skene's own table."""
    import csv

    from hf_labels.hub_cards import annotator_plot
    from hf_labels.labels.crowd_soft_labels import METHODS, aggregate_annotations

    def read(name: str) -> dict[str, np.ndarray]:
        with (folder / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        return {key: np.array([int(row[key]) for row in rows]) for key in rows[0]}

    found: dict[str, Any] = {}
    gold = {"bluebirds": read("bluebirds_gold.csv")["gold"]}
    gold["ducks"] = np.isin(read("ducks_gold_classes.csv")["class_id"], (0, 2)).astype(int)
    for name, truth in gold.items():
        table, rows = read(f"{name}_annotations.csv"), []
        for method in METHODS:
            one = aggregate_annotations(table, method, num_labels=2)
            own = np.clip(one.soft[np.arange(len(truth)), truth], 1e-15, 1)
            rows.append({"method": method, "accuracy": float((one.labels == truth).mean())})
            rows[-1] |= {"nll": float(-np.log(own).mean())}
            if name == "bluebirds" and method == "ds":
                place = harness.RESULTS / "crowd_soft_labels.png"
                annotator_plot(one.confusion, one.worker_skill, place, names=["other", "bluebird"], title="Bluebirds")
        found[name] = {"items": len(truth), "annotations": len(table["task"]), "methods": rows}
    table = {key: values for key, values in read("annotations.csv").items() if key != "position"}
    majority = aggregate_annotations(table, "majority", num_labels=4)
    ds = aggregate_annotations(table, "ds", num_labels=4)
    found["anesthetists"] = {
        "items": 45,
        "annotations": len(table["task"]),
        "priors of Dawid-Skene": [round(value, 4) for value in ds.info["priors"]],
        "labels that differ from the majority": int((ds.labels != majority.labels).sum()),
    }
    return found


def show_crowds(found: dict[str, Any]) -> str:
    """The table of the real crowds."""
    lines = [["crowd", "method", "accuracy", "nll of the truth"]]
    for name in ("bluebirds", "ducks"):
        lines += [[name, r["method"], f"{r['accuracy']:.3f}", f"{r['nll']:.3f}"] for r in found[name]["methods"]]
    return f"{harness.columns(lines)}\n\nanesthetists: {found['anesthetists']}"


def full() -> None:
    """CIFAR-10H: 51 answers for each of 10 000 images, a ViT, tested on corrupted images."""
    from datasets import load_dataset
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    from hf_labels.labels.crowd_soft_labels import aggregate_annotations
    from hf_labels.trainers.soft_labels import SoftLabelTrainer, SoftLabelTrainingArguments

    name = "google/vit-base-patch16-224-in21k"
    processor = AutoImageProcessor.from_pretrained(name, backend="pil")
    images = load_dataset("uoft-cs/cifar10", split="test")
    answers = load_dataset("csv", data_files="cifar10h-raw.csv", split="train")
    answers = answers.filter(lambda row: row["is_attn_check"] == 0)
    found = aggregate_annotations(
        answers, item_column="cifar10_test_test_idx", worker_column="annotator_id", label_column="chosen_label"
    )
    data = found.to_dataset(images.remove_columns("label"))
    data = data.map(lambda batch: processor(batch["img"]), batched=True, remove_columns=["img", "labels"])
    args = SoftLabelTrainingArguments("out/crowd", soft_loss="kl", learning_rate=2e-5, num_train_epochs=3)
    model = AutoModelForImageClassification.from_pretrained(name, num_labels=10)
    SoftLabelTrainer(model, args, train_dataset=data).train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["small", "full"], default="small")
    parser.add_argument("--crowds", type=Path, help="folder of the real crowds")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--workers", type=int, help="processes of one thread each; default: the number of cores")
    arguments = parser.parse_args()
    if arguments.preset == "full":
        return full()
    path = harness.RESULTS / "crowd_soft_labels.json"
    record = harness.Experiment("crowd_soft_labels", ["digits (scikit-learn)", "bluebirds, ducks, anesthetists"])
    runs = harness.run_tasks(one_seed, arguments.seeds, arguments.workers)
    for place in ("clean digits", "moved digits"):
        for metric in ("accuracy", "nll", "calibrated nll", "ece", "brier"):
            for name, kind in KINDS.items():
                values = [run["scores"][f"{name}|{place}"][metric] for run in runs]
                record.add(name, place, metric, values, arguments.seeds, kind)
            for other in (MAJORITY, SMOOTHED, *SINGLE, *OBJECTIVES):
                record.compare(AVERAGE, other, place, metric, higher_is_better=metric == "accuracy")
    for name, kind in KINDS.items():
        values = [run["labels"][name] for run in runs]
        record.add(name, "training labels", "share of right labels", values, arguments.seeds, kind)
    record.notes += [
        f"{TRAIN} digits, {ANSWERS} labels each of {WORKERS} simulated annotators; {STEPS} steps, learning rate "
        f"{RATE}, the same for all; set beforehand, nothing was tuned.",
        "calibrated nll: after temperature scaling on a half of the test rows, measured on the other.",
    ]
    old = json.loads(path.read_text()).get("crowds") if path.is_file() else None
    found = crowds(arguments.crowds) if arguments.crowds else old
    for name in ("bluebirds", "ducks") if found else ():
        shares = [f"{r['method']} {r['accuracy']:.3f}/{r['nll']:.3f}" for r in found[name]["methods"]]
        record.notes.append(f"Real crowd {name}, accuracy/nll of the truth: {', '.join(shares)}.")
    seconds = round(sum(run["seconds"] for run in runs), 1)
    record.write(processor_time_s=seconds, **({"crowds": found} if found else {}))
    for metric in ("accuracy", "nll", "calibrated nll", "ece", "share of right labels"):
        print(harness.columns(harness.table_cells(record.rows, metric)), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)), end="\n\n")
    if found:
        print(show_crowds(found))


if __name__ == "__main__":
    main()
