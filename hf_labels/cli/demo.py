"""`hf-labels demo`: a few labelled texts, a frozen encoder, a trained and saved classifier, on real text."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_labels.cli.errors import CommandError

TEST_TEXTS = 500
PROBE, ZERO_NAMES, ZERO_TEXTS, METHOD = (
    "logistic regression, same features",
    "zero-shot cosine, label names",
    "zero-shot cosine, descriptions",
    "CrossTune",
)
LOADER = """
import json, sys
from hf_labels import CrossTuneForSequenceClassification
model = CrossTuneForSequenceClassification.from_pretrained(sys.argv[1])
print(json.dumps(model.predict(json.load(sys.stdin))))
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--output_dir", default="demo-output", help="folder of the saved model (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="draws of the labelled texts (default: %(default)s)")
    parser.add_argument("--shots", type=int, default=4, help="labelled texts per class (default: %(default)s)")


def run_demo(args: argparse.Namespace) -> int:
    """Compare over seeds, save the model of the first, load it in a new process.

    Raises:
        ImportError: If a package with the text or the encoder is missing; names it.
        CommandError: If an option is out of range, or the new process fails.
    """
    if args.seeds < 1 or not 1 <= args.shots <= 50:
        raise CommandError("`--seeds` must be at least 1 and `--shots` between 1 and 50.")
    start = time.perf_counter()
    folder = Path(args.output_dir)
    _check_folder(folder)
    with _quiet():
        _show(args, folder)
    print(f"\nDone in {time.perf_counter() - start:.0f} s. What next:")
    print(f"  - read the model card: {folder / 'README.md'} (and look at {folder / 'reliability.png'})")
    print(
        "  - your own texts: hf-labels train crosstune --dataset data.csv --text_column text --label_column label \\"
    )
    print("        --model sentence-transformers/all-MiniLM-L6-v2 --output_dir out   (add --push_to_hub to share it)")
    print("  - other labels without new training: model.set_labels({'cricket': 'a sport with bats', ...})")
    print("  - every method: hf-labels methods")
    return 0


def _show(args: argparse.Namespace, folder: Path) -> None:
    print("1. Real text: BBC news in five topics, and all-MiniLM-L6-v2 as a frozen encoder.", flush=True)
    data = _load(args)
    count = args.shots * len(data["names"])
    print(f"   {count} labelled texts for training ({args.shots} per topic), {TEST_TEXTS} for testing.")
    print(f"2. Training on {args.seeds} different draws of the labelled texts ...", flush=True)
    scores: dict[str, list[float]] = {name: [] for name in (METHOD, PROBE, ZERO_NAMES, ZERO_TEXTS)}
    trainers: list[Any] = []
    for seed in range(args.seeds):
        shots = _draw(data, args.shots, seed)
        trainers.append(_train(data, shots, seed))
        for name, probs in _predictions(data, shots, trainers[-1]).items():
            scores[name].append(float((probs.argmax(1) == data["test_labels"]).mean()))
    print("\n" + _table(scores) + "\n")
    _save(trainers[0], data, scores, folder)
    print(f"3. Saved the first model in {folder}/ : " + ", ".join(sorted(path.name for path in folder.iterdir())))
    print("4. A new process loads it with `from_pretrained` and labels five texts that it has not seen:\n", flush=True)
    _show_unseen(data, folder)


def _check_folder(folder: Path) -> None:
    config = folder / "config.json"
    if config.exists() and json.loads(config.read_text()).get("model_type") != "hfl-crosstune":
        raise CommandError(f"`{folder}` holds another model. Pass another folder with --output_dir.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Only errors and our own lines; loggers and bars are put back at the end."""
    import datasets
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in ("hf_labels", "transformers")]
    levels, bars = [logger.level for logger in loggers], datasets.are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
        transformers_logging.enable_progress_bar()


def _load(args: argparse.Namespace) -> dict[str, Any]:
    """Texts, labels and frozen features; only texts that are used are encoded, and the features are cached."""
    import numpy as np

    from hf_labels.data.features import FeatureCache
    from hf_labels.data.offline import BBC_NEWS_DESCRIPTIONS, MINILM, load_bbc_news
    from hf_labels.models.crosstune import CrossTuneForSequenceClassification

    corpus = load_bbc_news()
    texts, labels = corpus["text"][:], np.array(corpus["labels"][:])
    order = np.random.default_rng(0).permutation(len(texts))
    test, pool = order[:TEST_TEXTS], order[TEST_TEXTS:]
    draws = [_rows_of_draw(labels, pool, args.shots, seed) for seed in range(args.seeds)]
    used = np.unique(np.concatenate([test, *draws]))
    model = CrossTuneForSequenceClassification.from_backbone(MINILM, BBC_NEWS_DESCRIPTIONS, max_length=64)
    cache = FeatureCache(model.encoder.key())
    found = cache.get([texts[i] for i in used], model.encoder.encode, desc="encoding texts")["features"]
    return {
        "names": list(BBC_NEWS_DESCRIPTIONS),
        "descriptions": BBC_NEWS_DESCRIPTIONS,
        "encoder": model.encoder,
        "labels": labels,
        "texts": texts,
        "test": test,
        "test_labels": labels[test],
        "features": dict(zip(used.tolist(), found, strict=True)),
        "draws": draws,
    }


def _rows_of_draw(labels: Any, pool: Any, shots: int, seed: int) -> Any:
    import numpy as np

    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(pool[labels[pool] == label])[:shots] for label in np.unique(labels)])


def _draw(data: dict[str, Any], shots: int, seed: int) -> tuple[Any, Any]:
    rows = data["draws"][seed]
    return _features(data, rows), data["labels"][rows]


def _features(data: dict[str, Any], rows: Any) -> Any:
    import numpy as np

    return np.stack([data["features"][int(row)] for row in rows])


def _train(data: dict[str, Any], shots: tuple[Any, Any], seed: int) -> Any:
    from datasets import Dataset
    from transformers import PrinterCallback

    from hf_labels.models.crosstune import CrossTuneForSequenceClassification
    from hf_labels.trainers.crosstune import CrossTuneTrainer, CrossTuneTrainingArguments

    model = CrossTuneForSequenceClassification.from_backbone(data["encoder"], data["descriptions"], max_length=64)
    table = Dataset.from_dict({"features": list(shots[0]), "labels": shots[1]})
    with tempfile.TemporaryDirectory() as scratch:
        args = CrossTuneTrainingArguments(
            output_dir=scratch,
            seed=seed,
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            dataloader_pin_memory=False,
        )
        trainer = CrossTuneTrainer(model, args, train_dataset=table)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return trainer


def _predictions(data: dict[str, Any], shots: tuple[Any, Any], trainer: Any) -> dict[str, Any]:
    """Scores (N, C) of all four on the test texts."""
    from sklearn.linear_model import LogisticRegression

    test = _features(data, data["test"])
    encoder, texts = data["encoder"], data["descriptions"]
    return {
        METHOD: _probabilities(trainer, test),
        PROBE: LogisticRegression(C=10.0, max_iter=5000).fit(*shots).predict_proba(test),
        ZERO_NAMES: _cosine(test, encoder.encode(list(texts))),
        ZERO_TEXTS: _cosine(test, encoder.encode(list(texts.values()))),
    }


def _probabilities(trainer: Any, features: Any) -> Any:
    import torch

    model = trainer.bare_model.eval()
    with torch.no_grad():
        return model.head(torch.as_tensor(features, device=model.device)).exp().cpu().numpy()


def _cosine(features: Any, labels: Any) -> Any:
    from sklearn.metrics.pairwise import cosine_similarity

    return cosine_similarity(features, labels)


def _table(scores: dict[str, list[float]]) -> str:
    import statistics

    seeds = len(scores[METHOD])
    lines = [f"   {'accuracy on the same test texts':<36} {'mean':>6}  {'stderr':>6}   CrossTune is better in"]
    for name, values in scores.items():
        error = statistics.stdev(values) / seeds**0.5 if seeds > 1 else 0.0
        wins = sum(ours > theirs for ours, theirs in zip(scores[METHOD], values, strict=True))
        told = "" if name == METHOD else f"   {wins} of {seeds} draws"
        lines.append(f"   {name:<36} {statistics.mean(values):>6.3f}  {error:>6.3f}{told}")
    lines.insert(1, "   " + "-" * 76)
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    import statistics

    error = f" +- {statistics.stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{error} (mean and standard error of {len(values)})"


def _save(trainer: Any, data: dict[str, Any], scores: dict[str, list[float]], folder: Path) -> None:
    """Model, metrics, reliability diagram and card, all of the first draw; the card also tells of all draws."""
    from hf_labels.data.offline import MINILM_HUB_ID
    from hf_labels.hub_cards import ResultRow, render_card, save_card
    from hf_labels.hub_cards.plots import reliability_diagram
    from hf_labels.metrics import calibration_scores
    from hf_labels.trainers.card import changed_arguments
    from hf_labels.trainers.crosstune import black_box_facts

    folder.mkdir(parents=True, exist_ok=True)
    model = trainer.bare_model
    model.save_pretrained(folder)
    probs = _probabilities(trainer, _features(data, data["test"]))
    measured = calibration_scores(probs, data["test_labels"], per_bin=True)
    plot = reliability_diagram(measured, folder / "reliability.png")
    numbers = {name: value for name, value in measured.items() if isinstance(value, (int, float))}
    name = "BBC news"
    rows = [
        ResultRow(name, "test", "accuracy", scores[METHOD][0], other, scores[other][0], seeds=1)
        for other in scores
        if other != METHOD
    ]
    rows += [ResultRow(name, "test", metric, numbers[metric], seeds=1) for metric in ("ece", "nll", "brier")]
    with open(folder / "metrics.json", "w", encoding="utf-8") as file:
        json.dump({"first_draw": numbers, "accuracy_of_all_draws": scores}, file, indent=1)
    card = render_card(
        "crosstune",
        model_id=folder.as_posix(),
        base_model=MINILM_HUB_ID,
        datasets=[name],
        language="en",
        training=changed_arguments(trainer.args),
        results=rows,
        labels=model.config.label_descriptions,
        plots=[plot],
        extra=black_box_facts(model.config) | {f"accuracy of {k}, all draws": _spread(v) for k, v in scores.items()},
    )
    save_card(card, folder, plots=[plot], overwrite=True)


def _show_unseen(data: dict[str, Any], folder: Path) -> None:
    chosen = [int(row) for row in data["test"][:5]]
    texts = [data["texts"][row] for row in chosen]
    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(folder)], input=json.dumps(texts), capture_output=True, text=True
    )
    if done.returncode:
        raise CommandError(f"The new process could not load {folder}: {done.stderr.strip().splitlines()[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    for row, text, answer in zip(chosen, texts, found, strict=True):
        gold = data["names"][data["labels"][row]]
        mark = "" if answer["label"] == gold else f"   (its section: {gold})"
        start = " ".join(text.split())[:64]
        print(f"   {answer['label']:<14} {answer['score']:.2f}  {start}...{mark}")
