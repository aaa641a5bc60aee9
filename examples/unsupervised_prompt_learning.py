"""Unsupervised prompt learning: a planted optimum, real data with a random-prompt control, a real language model.

    python examples/unsupervised_prompt_learning.py               # planted and drug reviews, MiniLM as scorer
    python examples/unsupervised_prompt_learning.py --smollm2     # SmolLM2-135M-Instruct: adds it to the result file
    python examples/unsupervised_prompt_learning.py --preset full # an 8B model on GLUE from the Hub, 8000 calls

Learning rate and choice of demonstrations were tuned on labelled texts held out of the training pool, with seeds from
100 on (`--tune`); test texts had no part in it.
"""

import argparse
import functools
import json
import logging
import os
import re
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import harness

METHOD, ZERO, DEMOS = "learned prompt + demonstrations", "zero-shot", "zero-shot + pseudo demonstrations"
BARE, RANDOM = "learned prompt, no demonstrations (BDPL on pseudo-labels)", "random prompts + demonstrations"
BEST = "all planted tokens (best possible)"
KINDS = {METHOD: "method", BARE: "ablation", RANDOM: "control", BEST: "control"}
REAL, PLANTED = "drug reviews", "planted"
TOKENS, GAIN = 6, 1.5
PLANTED_SIZES: dict[str, Any] = {
    "sample_size": 16,
    "batch_size": 16,
    "max_steps": 60,
    "learning_rate": 0.3,
    "top_k": 4,
}
CHOSEN: dict[str, Any] = {"learning_rate": 0.1, "demo_strategy": "nearest"}
SIZES: dict[str, Any] = {"prompt_length": 3, "sample_size": 4, "batch_size": 8, "max_steps": 20, "relabel_every": 10}
GLUE: dict[str, tuple] = {
    "sst2": (("sentence",), ("negative", "positive")),
    "mrpc": (("sentence1", "sentence2"), ("different", "equivalent")),
    "qnli": (("question", "sentence"), ("yes", "no")),
    "rte": (("sentence1", "sentence2"), ("yes", "no")),
    "cola": (("sentence",), ("unacceptable", "acceptable")),
}


def first_words(text: str, number: int) -> str:
    """The beginning of a text on one line."""
    return " ".join(text.split()[:number])


@functools.cache
def reviews(words: int = 30) -> dict[str, Any]:
    """Texts and labels of the drug reviews, no text in both parts."""
    from hf_labels.data import offline

    train, test = offline.load_drug_reviews("train"), offline.load_drug_reviews("test")
    found = {}
    for part, data in (("train", train), ("test", test)):
        found[part] = [first_words(text, words) for text in data["text"][:]], np.array(data["labels"][:])
    seen = set(found["train"][0])
    kept = [i for i, text in enumerate(found["test"][0]) if text not in seen]
    found["test"] = [found["test"][0][i] for i in kept], found["test"][1][kept]
    return found | {"names": [name.lower() for name in train.features["labels"].names]}


@functools.cache
def encoder() -> Any:
    """MiniLM as a scorer of labels."""
    from hf_labels.data.offline import minilm_path
    from hf_labels.lm import EmbeddingLM

    return EmbeddingLM(str(minilm_path()), demo_weight=1.0, truncate=True, batch_size=32, progress=False)


def learner(lm: Any, names: list[str], template: str, **settings: Any) -> Any:
    """A learner with the settings of this experiment."""
    from hf_labels.lm.unsupervised_prompt_learning import (
        UnsupervisedPromptLearner,
        UnsupervisedPromptLearningArguments,
    )

    vocabulary = settings.pop("vocabulary", None)
    args = UnsupervisedPromptLearningArguments(**settings)
    return UnsupervisedPromptLearner(lm, names, template, args, vocabulary=vocabulary)


def accuracy(classifier: Any, texts: list[str], labels: np.ndarray, prompt: str | None = None) -> float:
    """Share of right labels, under the classifier's own or another prompt."""
    found = classifier._scorer.log_probs(classifier.questions(texts, prompt))
    return float((found.argmax(1) == labels).mean())


def quality(classifier: Any, truth: np.ndarray) -> dict[str, float]:
    """What the reliable set and the pool are worth, measured with labels that the method never sees."""
    from hf_labels.metrics.functional import pseudo_label_quality

    found, rounds = np.array(classifier.pseudo_labels["labels"][:]), np.array(classifier.pseudo_labels["round"][:])
    reliable = pseudo_label_quality(found, truth, selected=rounds == 0)
    pool = pseudo_label_quality(found, truth, selected=rounds >= 0)
    return {
        "precision of the reliable set": reliable["precision"],
        "precision of the pool": pool["precision"],
        "coverage of the pool": pool["coverage"],
    }


# ---- a planted optimum on real texts --------------------------------------------------------------------------------


@functools.cache
def planted_base() -> dict[str, np.ndarray]:
    """Zero-shot scores of MiniLM for every text: the posterior that planted tokens sharpen."""
    data = reviews()
    texts = data["train"][0] + data["test"][0]
    return dict(zip(texts, encoder().score_labels(texts, data["names"]).logprobs, strict=True))


def planted_run(seed: int) -> dict[str, Any]:
    """A model whose posterior on real texts is sharpened by 6 of 40 tokens; which ones changes with the seed."""
    from hf_labels.labels.unsupervised_prompt_learning import candidate_vocabulary
    from hf_labels.lm import ScriptedLM

    quiet()
    data, base = reviews(), planted_base()
    names, (texts, _), (test, truth) = data["names"], data["train"], data["test"]
    gold = {text: label for part in ("train", "test") for text, label in zip(*data[part], strict=True)}
    vocabulary = candidate_vocabulary(texts, 40)
    planted = set(np.random.default_rng(seed).choice(vocabulary, TOKENS, replace=False).tolist())
    length = SIZES["prompt_length"]

    def scores(request: Any, labels: list[str]) -> list[float]:
        prompt, text = re.fullmatch(r"(.*?)\|? ?Review: (.*)", request.text).groups()
        tokens = [token.strip() for token in prompt.split("|")]
        row = base[text].copy()
        row[gold[text]] += GAIN * sum(token in planted for token in tokens) / length
        return row.tolist()

    lm = ScriptedLM(scores=scores, progress=False)
    marked = [f"{word} |" for word in vocabulary]  # a mark between tokens: some of them are several words
    settings = SIZES | PLANTED_SIZES | {"k_demo": 0, "seed": seed}
    found = learner(lm, names, "{prompt} Review: {text}", vocabulary=marked, **settings).fit(texts)
    rng = np.random.default_rng([seed, 1])
    chance = [" ".join(marked[i] for i in rng.integers(len(marked), size=length)) for _ in range(5)]
    best = " ".join([f"{sorted(planted)[0]} |"] * length)
    hit = np.mean([token.removesuffix(" |") in planted for token in found.prompt_tokens])
    return {
        ZERO: {"accuracy": accuracy(found, test, truth, "")},
        METHOD: {"accuracy": accuracy(found, test, truth), "planted tokens found": float(hit)},
        RANDOM: {
            "accuracy": float(np.mean([accuracy(found, test, truth, prompt) for prompt in chance])),
            "planted tokens found": TOKENS / len(vocabulary),
        },
        BEST: {"accuracy": accuracy(found, test, truth, best)},
    }


# ---- real data, sentence encoder as scorer --------------------------------------------------------------------------


def real_data(seed: int, part: str) -> tuple[list[str], np.ndarray, Any]:
    """Corpus with the truth that the method never sees, and the labelled texts that judge: test, or dev for tuning."""
    data = reviews()
    texts, labels = data["train"]
    order = np.random.default_rng(seed).permutation(len(texts))
    own, rest = np.sort(order[: int(0.8 * len(order))]), np.sort(order[int(0.8 * len(order)) :])
    held = data["test"] if part == "test" else ([texts[i] for i in rest], labels[rest])
    return [texts[i] for i in own], labels[own], held


def real_settings(seed: int, **changes: Any) -> dict[str, Any]:
    """Sizes of this experiment and what was chosen on dev."""
    return SIZES | {"top_k": 6, "search_space": 40, "k_demo": 10, "seed": seed} | CHOSEN | changes


def real_run(seed: int) -> dict[str, Any]:
    """All arms on drug reviews; each seed has its own 80 % of the training file as unlabelled corpus."""
    quiet()
    names, lm = reviews()["names"], encoder()
    corpus, truth, held = real_data(seed, "test")

    def fit(**more: Any) -> Any:
        return learner(lm, names, "{prompt} {text}", **real_settings(seed, **more)).fit(corpus)

    plain, learned, bare = fit(prompt_length=0), fit(), fit(k_demo=0)
    rng = np.random.default_rng([seed, 1])
    draws = rng.integers(len(learned.vocabulary), size=(5, SIZES["prompt_length"]))
    chance = [accuracy(learned, *held, learned.prompt_of(ids)) for ids in draws.tolist()]
    zero = plain_zero(lm, names, held)
    logs = learned.log_history
    return {
        ZERO: {"accuracy": zero},
        DEMOS: {"accuracy": accuracy(plain, *held)},
        BARE: {"accuracy": accuracy(bare, *held)},
        RANDOM: {"accuracy": float(np.mean(chance))},
        METHOD: {"accuracy": accuracy(learned, *held)}
        | quality(learned, truth)
        | {
            "mean loss of sampled prompts, first 5 steps": float(np.mean([e["loss"] for e in logs[:5]])),
            "mean loss of sampled prompts, last 5 steps": float(np.mean([e["loss"] for e in logs[-5:]])),
        },
    }


def plain_zero(lm: Any, names: list[str], held: Any) -> float:
    """The scorer without prompt or demonstrations."""
    words = [f" {name}" for name in names]
    return float((lm.score_labels(held[0], words).predictions() == held[1]).mean())


def tune() -> None:
    """Choose on labelled texts that were held out of the training file; prints, changes nothing."""
    quiet()
    names, lm = reviews()["names"], encoder()

    def score(choice: dict[str, Any]) -> float:
        found = []
        for seed in (100, 101):
            corpus, _, held = real_data(seed, "dev")
            fitted = learner(lm, names, "{prompt} {text}", **real_settings(seed, **choice)).fit(corpus)
            found.append(accuracy(fitted, *held))
        return float(np.mean(found))

    options = harness.grid(learning_rate=[0.1, 0.5], demo_strategy=["nearest", "random"])
    print(harness.tune_on_dev(options, score))


# ---- a real, small language model -----------------------------------------------------------------------------------


def measure_smollm2(seeds: int = 5, corpus_size: int = 40, test_size: int = 40) -> dict[str, Any]:
    """SmolLM2-135M-Instruct (4-bit file) on short BBC news, sport against business; answers are kept on disk."""
    from hf_labels.data.features import cache_root
    from hf_labels.data.offline import load_bbc_news
    from hf_labels.lm import TransformersLM, smollm2_gguf_path

    path = smollm2_gguf_path()
    lm = TransformersLM.from_gguf(path.parent, path.name, chat=False, batch_size=8, cache_dir=cache_root() / "lm")
    data = load_bbc_news()
    all_names = data.features["labels"].names
    names = ["business", "sport"]
    rows = [i for i, label in enumerate(data["labels"][:]) if all_names[label] in names]
    runs = []
    for seed in range(seeds):
        drawn = np.random.default_rng(seed).choice(rows, corpus_size + test_size, replace=False)
        texts = [first_words(data[int(i)]["text"], 14) for i in drawn]
        truth = np.array([names.index(all_names[data[int(i)]["labels"]]) for i in drawn])
        corpus, held = texts[:corpus_size], (texts[corpus_size:], truth[corpus_size:])
        template = "{prompt} {demos}\nNews: {text}\nSection:"
        vocabulary = ["news", "sections", "business", "sport", "money", "matches", "companies", "teams", "the", "of"]
        settings = {"prompt_length": 2, "sample_size": 3, "batch_size": 4, "max_steps": 8, "relabel_every": 4}
        settings |= {"k_demo": 2, "top_k": 6, "learning_rate": 0.5, "seed": seed, "vocabulary": vocabulary}
        lm.reset_usage()
        plain = learner(lm, names, template, **settings | {"prompt_length": 0}).fit(corpus)
        learned = learner(lm, names, template, **settings).fit(corpus)
        draws = np.random.default_rng([seed, 1]).integers(len(vocabulary), size=(2, 2))
        chance = [accuracy(learned, *held, learned.prompt_of(ids)) for ids in draws.tolist()]
        bare = learner(lm, names, template, **settings | {"prompt_length": 0, "k_demo": 0}).fit(corpus)
        found = {ZERO: accuracy(bare, *held), DEMOS: accuracy(plain, *held), METHOD: accuracy(learned, *held)}
        found |= {RANDOM: float(np.mean(chance))}
        usage = lm.usage.to_dict()
        runs.append({"seed": seed, "accuracy": found, "prompt": learned.prompt, "usage": usage}
                    | quality(learned, truth[:corpus_size]))  # fmt: skip
    setting = f"BBC news, business or sport, 14 words, {corpus_size} unlabelled and {test_size} test texts"
    return {"setting": f"{setting}, SmolLM2-135M-Instruct (4-bit file, float32)", "runs": runs}


# ---- full scale -----------------------------------------------------------------------------------------------------


def measure_full(model: str, seeds: int, calls: int) -> Path:
    """The scale of the paper: validation texts of GLUE, a large instruction model, a budget of calls."""
    from datasets import load_dataset

    from hf_labels.lm import Budget, TransformersLM

    lm = TransformersLM.from_pretrained(model, device_map="auto", cache_dir="answers", budget=Budget(max_calls=calls))
    record = harness.Experiment("unsupervised_prompt_learning", [f"GLUE {task}" for task in GLUE])
    for task, (columns, names) in GLUE.items():
        data = load_dataset("nyu-mll/glue", task, split="validation")
        texts = [" / ".join(row[column] for column in columns) for row in data]
        truth = np.array(data["label"][:])
        values: dict[str, list[float]] = {METHOD: [], DEMOS: []}
        for seed in range(seeds):
            for name, length in ((METHOD, 5), (DEMOS, 0)):
                lm.reset_usage()
                form = "{prompt} {demos}\nText: {text}\nLabel:"
                found = learner(lm, list(names), form, seed=seed, prompt_length=length).fit(texts)
                values[name].append(float((np.array(found.pseudo_labels["labels"][:]) == truth).mean()))
        for name in values:
            record.add(name, task, "accuracy", values[name], list(range(seeds)), KINDS.get(name, "baseline"))
        record.compare(METHOD, DEMOS, task, "accuracy")
    return record.write(harness.RESULTS / "unsupervised_prompt_learning.full.json")


def quiet() -> None:
    """No warnings and bars of single runs."""
    import datasets
    import transformers

    warnings.filterwarnings("ignore")
    logging.getLogger("hf_labels").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def one_task(task: tuple[str, int]) -> dict[str, Any]:
    """One seed of one part."""
    return planted_run(task[1]) if task[0] == PLANTED else real_run(task[1])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("small", "full"), default="small")
    parser.add_argument("--seeds", type=int, default=5, help="seeds on drug reviews (default: 5; planted: twice)")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one per core)")
    parser.add_argument("--tune", action="store_true", help="choose settings on held-out training texts, and print")
    parser.add_argument("--smollm2", action="store_true", help="measure the real language model, add it to the file")
    parser.add_argument("--model", default="meta-llama/Llama-3.1-8B-Instruct", help="of the full preset")
    parser.add_argument("--calls", type=int, default=8000, help="budget of the full preset, for each run")
    parser.add_argument("--output", default=None, help="result file")
    args = parser.parse_args(argv)
    quiet()
    path = Path(args.output or harness.RESULTS / "unsupervised_prompt_learning.json")
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if args.preset == "full":
        print(measure_full(args.model, args.seeds, args.calls))
    elif args.tune:
        tune()
    elif args.smollm2:
        start = time.perf_counter()
        known["smollm2"] = measure_smollm2() | {"command": harness.command_line()}
        known["smollm2"]["wall_time_s"] = round(time.perf_counter() - start, 1)
        path.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(json.dumps(known["smollm2"], indent=1))
    else:
        measure(args, path, known)


def measure(args: argparse.Namespace, path: Path, known: dict[str, Any]) -> None:
    """Both parts over all seeds, written and printed."""
    record = harness.Experiment("unsupervised_prompt_learning", [REAL], notes=NOTES)
    seeds = {PLANTED: list(range(2 * args.seeds)), REAL: list(range(args.seeds))}
    tasks = [(part, seed) for part in seeds for seed in seeds[part]]
    results = dict(zip(tasks, harness.run_tasks(one_task, tasks, args.workers), strict=True))
    for part, setting in ((PLANTED, "drug reviews, planted tokens"), (REAL, "drug reviews, MiniLM")):
        runs = [results[part, seed] for seed in seeds[part]]
        for name in runs[0]:
            for metric in runs[0][name]:
                values = [run[name][metric] for run in runs]
                record.add(name, setting, metric, values, seeds[part], KINDS.get(name, "baseline"))
        for rival in [name for name in runs[0] if name != METHOD]:
            record.compare(METHOD, rival, setting, "accuracy")
    record.write(path, **{key: known[key] for key in ("smollm2",) if key in known})
    print(harness.columns(harness.table_cells(record.rows, "accuracy")), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)), end=f"\n\nwritten: {os.path.relpath(path)}\n")


NOTES = ("NOTES",)

if __name__ == "__main__":
    main()
