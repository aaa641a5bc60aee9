"""CrossTune against a logistic probe and zero-shot cosine, on the same frozen features.

    python examples/crosstune.py                  # drug reviews and BBC news, MiniLM: real data without a Hub
    python examples/crosstune.py --augment --seeds 5   # texts written by SmolLM2-135M: adds them to the result file
    python examples/crosstune.py --preset full    # RoBERTa-large, mask template, 16 texts per class, Hub data sets

Hyper-parameters were chosen on the training pools with seeds from 100 on; test texts had no part in it.
"""

import argparse
import functools
import json
import logging
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import harness

SHOTS = (2, 4, 8, 16)
ABLATION_SHOTS = (2, 4)
PROBE_C = (0.1, 1.0, 10.0, 100.0, 1000.0)
BBC_TEST = 1000
LABELS = {"label_template": "{name}: {description}"}

METHOD, SELECTED = "CrossTune", "CrossTune, epoch by dev accuracy"
PROBE, TUNED, BOTH = (
    "logistic regression (C=10)",
    "logistic regression (C tuned on dev)",
    "logistic regression on shots and dev",
)
ZERO_NAME, ZERO_TEXT = "zero-shot cosine, names", "zero-shot cosine, descriptions"
UNTRAINED, SHUFFLED = "CrossTune head, untrained", "CrossTune, descriptions shuffled"
VARIANTS: dict[str, dict[str, Any]] = {
    "CrossTune, descriptions only": {"label_template": "{description}"},
    "CrossTune, names only": {"label_template": "{name}"},
    "CrossTune, Xavier start": {"init": "xavier"},
    "CrossTune, labels max-pooled": {"label_pooling": "max"},
    "CrossTune, learning rate 1e-3": {"learning_rate": 1e-3},
}
KINDS = {METHOD: "method", SELECTED: "method", UNTRAINED: "control", SHUFFLED: "control"} | {
    name: "ablation" for name in VARIANTS
}

# name -> (Hub id, configuration, training split, test split, text columns, label column, descriptions)
FULL: dict[str, tuple] = {
    "sst2": ("stanfordnlp/sst2", None, "train", "validation", ["sentence"], "label",
             {"negative": "a negative opinion, terrible and dull", "positive": "a positive opinion, great and nice"}),
    "sst5": ("SetFit/sst5", None, "train", "test", ["text"], "label",
             {"terrible": "a very negative opinion", "bad": "a negative opinion", "okay": "a mixed or neutral opinion",
              "good": "a positive opinion", "great": "a very positive opinion"}),
    "ag_news": ("fancyzhx/ag_news", None, "train", "test", ["text"], "label",
                {"world": "international politics and conflicts", "sports": "matches, players and teams",
                 "business": "companies, markets and the economy", "technology": "science and computers"}),
    "mrpc": ("nyu-mll/glue", "mrpc", "train", "validation", ["sentence1", "sentence2"], "label",
             {"no": "the two sentences mean different things", "yes": "the two sentences mean the same"}),
    "qnli": ("nyu-mll/glue", "qnli", "train", "validation", ["question", "sentence"], "label",
             {"yes": "the sentence answers the question", "no": "the sentence does not answer the question"}),
}  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    "small": {"backbone": None, "data": ("drug reviews", "BBC news"), "shots": SHOTS, "encoder": {"max_length": 64}},
    "full": {
        "backbone": "FacebookAI/roberta-large",
        "data": tuple(FULL),
        "shots": (16,),
        "encoder": {"text_pooling": "mask", "template": "{text} It was {mask}.", "max_length": 256},
    },
}


def load_corpus(name: str) -> tuple[Any, Any, dict[str, str]]:
    """Training pool, test set and label descriptions of one corpus."""
    from hf_labels.data import offline

    if name == "drug reviews":
        train, test = offline.load_drug_reviews("train"), offline.load_drug_reviews("test")
        shared = set(train["text"][:])  # one review is in both files
        return train, test.filter(lambda row: row["text"] not in shared), offline.DRUG_CONDITION_DESCRIPTIONS
    if name == "BBC news":
        data = offline.load_bbc_news()
        order = np.random.default_rng(0).permutation(len(data))
        return data.select(order[BBC_TEST:]), data.select(order[:BBC_TEST]), offline.BBC_NEWS_DESCRIPTIONS
    from datasets import ClassLabel, load_dataset

    hub_id, config, train_split, test_split, columns, label, descriptions = FULL[name]
    parts = []
    for split in (train_split, test_split):
        data = load_dataset(hub_id, config, split=split)
        data = data.map(lambda row: {"text": " ".join(row[c] for c in columns)}).rename_column(label, "labels")
        parts.append(
            data.select_columns(["text", "labels"]).cast_column("labels", ClassLabel(names=list(descriptions)))
        )
    return parts[0], parts[1], descriptions


@functools.cache
def corpus(name: str, preset: str) -> dict[str, Any]:
    """Frozen features of one corpus, cached on disk and in this process."""
    from hf_labels.data.features import FeatureCache
    from hf_labels.data.offline import MINILM
    from hf_labels.models.crosstune import CrossTuneForSequenceClassification

    settings = PRESETS[preset]
    train, test, descriptions = load_corpus(name)
    backbone = settings["backbone"] or MINILM
    model = CrossTuneForSequenceClassification.from_backbone(backbone, descriptions, **settings["encoder"], **LABELS)
    cache = FeatureCache(model.encoder.key())
    found: dict[str, Any] = {"encoder": model.encoder, "descriptions": descriptions, "pool": train}
    for part, data in (("train", train), ("test", test)):
        rows = cache.get(data["text"][:], model.encoder.encode, desc=f"{name}, {part}")
        found[part] = rows["features"], np.array(data["labels"][:])
    return found


def new_model(data: dict[str, Any], descriptions: dict[str, str], **changes: Any) -> Any:
    """An untrained model on the frozen encoder of a corpus."""
    from hf_labels.models.crosstune import CrossTuneForSequenceClassification

    return CrossTuneForSequenceClassification.from_backbone(data["encoder"], descriptions, **LABELS | changes).eval()


def fit_crosstune(data: dict[str, Any], shots: Any, dev: Any, seed: int, **changes: Any) -> Any:
    """A trained CrossTune model, by the trainer that users call."""
    import datasets
    from transformers import PrinterCallback

    from hf_labels.trainers.crosstune import CrossTuneTrainer, CrossTuneTrainingArguments

    descriptions = changes.pop("descriptions", data["descriptions"])
    arguments = {key: changes.pop(key) for key in ("learning_rate", "select_by") if key in changes}
    model = new_model(data, descriptions, **changes)
    tables = [datasets.Dataset.from_dict({"features": list(x), "labels": y}) for x, y in (shots, dev)]
    with tempfile.TemporaryDirectory() as folder:
        args = CrossTuneTrainingArguments(
            output_dir=folder,
            seed=seed,
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            **{"select_by": "none", **arguments},
        )
        trainer = CrossTuneTrainer(model, args, train_dataset=tables[0], eval_dataset=tables[1])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return trainer.bare_model.eval()


def probabilities(model: Any, features: np.ndarray) -> np.ndarray:
    """`(N, C)` of a trained or untrained head."""
    import torch

    with torch.no_grad():
        return model.head(torch.as_tensor(features, device=model.device)).exp().cpu().numpy()


def cosine(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cosine similarity `(N, C)` of texts and label vectors."""
    norm = np.linalg.norm(features, axis=1, keepdims=True) * np.linalg.norm(labels, axis=1)
    return features @ labels.T / norm


def probe(shots: Any, c: float) -> Any:
    """Logistic regression on frozen features."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, max_iter=5000).fit(*shots)


def one_run(task: tuple[str, str, int, int]) -> dict[str, Any]:
    """All methods on one corpus, number of shots and seed: `name -> {metric -> value}`."""
    name, preset, number, seed = task
    quiet()
    data = corpus(name, preset)
    features, labels = data["train"]
    train, dev = harness.few_shot_split(labels, number, number, seed)
    shots, held = (features[train], labels[train]), (features[dev], labels[dev])
    test = data["test"]
    scores: dict[str, np.ndarray] = {}
    scores[PROBE] = probe(shots, 10.0).predict_proba(test[0])
    best, _ = harness.tune_on_dev(PROBE_C, lambda c: probe(shots, c).score(*held))
    scores[TUNED] = probe(shots, best).predict_proba(test[0])
    both = (np.concatenate([shots[0], held[0]]), np.concatenate([shots[1], held[1]]))
    scores[BOTH] = probe(both, 10.0).predict_proba(test[0])
    encoder, texts = data["encoder"], data["descriptions"]
    scores[ZERO_NAME] = cosine(test[0], encoder.encode(list(texts)))
    scores[ZERO_TEXT] = cosine(test[0], encoder.encode([f"{key}: {text}" for key, text in texts.items()]))
    scores[METHOD] = probabilities(fit_crosstune(data, shots, held, seed), test[0])
    scores[SELECTED] = probabilities(fit_crosstune(data, shots, held, seed, select_by="accuracy"), test[0])
    scores[UNTRAINED] = probabilities(new_model(data, texts), test[0])
    if number in ABLATION_SHOTS:
        for variant, changes in VARIANTS.items():
            scores[variant] = probabilities(fit_crosstune(data, shots, held, seed, **changes), test[0])
        moved = dict(zip(texts, np.roll(np.array(list(texts.values()), dtype=object), 1), strict=True))
        changes = {"descriptions": moved, "label_template": "{description}"}
        scores[SHUFFLED] = probabilities(fit_crosstune(data, shots, held, seed, **changes), test[0])
    return {key: measure(value, test[1], key) for key, value in scores.items()}


def measure(scores: np.ndarray, labels: np.ndarray, name: str) -> dict[str, float]:
    """Accuracy; macro F1 and calibration error for the two main rows."""
    from sklearn.metrics import f1_score

    from hf_labels.metrics.functional.calibration import calibration_scores

    found = {"accuracy": float((scores.argmax(1) == labels).mean())}
    if name in (METHOD, PROBE):
        found["f1_macro"] = float(f1_score(labels, scores.argmax(1), average="macro"))
        found["ece"] = float(calibration_scores(scores / scores.sum(1, keepdims=True), labels)["ece"])
    return found


def measure_augmentation(seeds: int, shots: int = 2, per_class: int = 5) -> dict[str, Any]:
    """CrossTune on BBC news with texts written by SmolLM2-135M: none, all, and those that each switch keeps."""
    from transformers import PrinterCallback

    from hf_labels.data.features import cache_root
    from hf_labels.data.offline import smollm2_path
    from hf_labels.lm import TransformersLM
    from hf_labels.trainers.crosstune import CrossTuneTrainer, CrossTuneTrainingArguments

    name = "BBC news"
    data = corpus(name, "small")
    labels, gguf, rows = data["train"][1], smollm2_path(), []
    # The cache answers the second and third switch: all switches see the same texts.
    lm = TransformersLM.from_gguf(gguf.parent, gguf.name, batch_size=5, cache_dir=cache_root() / "lm")
    for seed in range(seeds):
        train, dev = harness.few_shot_split(labels, shots, shots, seed)
        parts = [data["pool"].select(train), data["pool"].select(dev)]
        found: dict[str, Any] = {"seed": seed}
        for switch in ("off", "none", "example", "dataset"):
            model = new_model(data, data["descriptions"])
            with tempfile.TemporaryDirectory() as folder:
                args = CrossTuneTrainingArguments(
                    output_dir=folder,
                    seed=seed,
                    disable_tqdm=True,
                    save_strategy="no",
                    logging_strategy="no",
                    select_by="none",
                    generated_per_class=per_class,
                    generated_tokens=160,
                    demos=2,
                )
                options = {} if switch == "off" else {"augment_with": lm, "switch": switch}
                trainer = CrossTuneTrainer(model, args, train_dataset=parts[0], eval_dataset=parts[1], **options)
                trainer.remove_callback(PrinterCallback)
                trainer.train()
            report, (texts, labels_) = trainer.augmentation_report, data["test"]
            found[switch] = float((probabilities(trainer.bare_model, texts).argmax(1) == labels_).mean())
            if report is not None:
                found[f"{switch}_texts"] = {"generated": len(report.texts), "used": len(report.kept)}
                found["example_text"] = next((item.text for item in report.texts if item.dropped is None), "")
        rows.append(found)
    off = [row["off"] for row in rows]
    pairs = {s: harness.pair_test([row[s] for row in rows], off) for s in ("none", "example", "dataset")}
    setting = f"{name}, K={shots}, {per_class} texts per class asked of SmolLM2-135M-Instruct (4-bit)"
    return {"setting": setting, "runs": rows, "paired_with_off": pairs}


def quiet() -> None:
    """No warnings and bars of single runs: the harness shows one bar."""
    import datasets
    import transformers

    warnings.filterwarnings("ignore")
    logging.getLogger("hf_labels").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds, from 0 (default: 10)")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one per core)")
    parser.add_argument(
        "--augment", action="store_true", help="measure generated texts instead, and add them to the file"
    )
    parser.add_argument("--output", default=None, help="result file (default: examples/results/crosstune.json)")
    args = parser.parse_args(argv)
    settings, seeds = PRESETS[args.preset], list(range(args.seeds))
    quiet()
    path = Path(args.output or harness.RESULTS / "crosstune.json")
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if args.augment:
        start = time.perf_counter()
        known["augmentation"] = measure_augmentation(args.seeds) | {"command": harness.command_line()}
        known["augmentation"]["wall_time_s"] = round(time.perf_counter() - start, 1)
        path.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(json.dumps(known["augmentation"], indent=1))
        return
    record = harness.Experiment("crosstune", settings["data"], notes=NOTES)
    for name in settings["data"]:  # once, before the processes share the cache
        corpus(name, args.preset)
    tasks = [(name, args.preset, k, seed) for name in settings["data"] for k in settings["shots"] for seed in seeds]
    results = dict(zip(tasks, harness.run_tasks(one_run, tasks, args.workers), strict=True))
    for name in settings["data"]:
        for k in settings["shots"]:
            runs = [results[name, args.preset, k, seed] for seed in seeds]
            setting = f"{name}, K={k}"
            for key in runs[0]:
                for metric in runs[0][key]:
                    values = [run[key][metric] for run in runs]
                    record.add(key, setting, metric, values, seeds, KINDS.get(key, "baseline"))
            rivals = [PROBE, TUNED, ZERO_NAME, ZERO_TEXT, *(v for v in (*VARIANTS, SHUFFLED) if v in runs[0])]
            for rival in rivals:
                record.compare(METHOD, rival, setting, "accuracy")
            record.compare(SELECTED, TUNED, setting, "accuracy")
            record.compare(SELECTED, BOTH, setting, "accuracy")
    record.write(path, **{key: known[key] for key in ("augmentation",) if key in known})
    print(harness.columns(harness.table_cells(record.rows, "accuracy")), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)), end=f"\n\nwritten: {os.path.relpath(path)}\n")


NOTES = (
    "K labelled texts per class for training. A second set of K per class (dev) is used only by the rows that say so: "
    'to choose the epoch of CrossTune, the C of the probe, or ("on shots and dev") as further training texts.',
    "Drug reviews: 290 training and 188 test reviews of the 10 most frequent conditions; from K=8 on, the smallest "
    "classes have fewer than 2K reviews and give half of what they have. BBC news: 2 113 distinct articles of 600 "
    "characters, 1 000 of them for testing. MiniLM features, 64 tokens.",
    "CrossTune runs at the trainer's defaults (8 heads, 100 epochs, learning rate 1e-4, linear decay), no dev set. "
    "They were chosen on the training pools with seeds 100 to 107. A learning rate of 1e-3 is worse: it leaves the "
    "zero-shot start too fast.",
    "The advantage over the probe shrinks as K grows. On drug reviews it is gone at K=8 and negative at K=16; a probe "
    "that also trains on the dev texts (twice as many labels) is ahead from K=4 on, on BBC news from K=8 on.",
    "The zero-shot rows do not depend on the seed. They are not beaten everywhere: descriptions alone are above "
    "CrossTune on BBC news up to K=4, names alone on drug reviews at K=2.",
    "Choosing the epoch by dev accuracy does not help: so few dev texts say little. The default is dev loss.",
    "The descriptions of the labels were written by us, one sentence each, without looking at test texts.",
)

if __name__ == "__main__":
    main()
