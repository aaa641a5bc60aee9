"""TnT-LLM: a taxonomy from texts, labels with it, and a light classifier that takes over.

    python examples/tnt_llm.py              # drug reviews and BBC news, a sentence encoder as the labeller; no Hub
    python examples/tnt_llm.py --smollm2    # the real SmolLM2-135M-Instruct writes a taxonomy: adds it to the file
    python examples/tnt_llm.py --preset full   # WildChat with a chat endpoint; needs the Hub and a token

Distillation: ten conditions are given, a sentence encoder labels the training reviews without having seen a label, and
a logistic regression on the same embeddings learns from its labels. Each draw resamples the training reviews.
Induction: no model here writes good taxonomies, so the writer is a double: it clusters the documents that the prompt
holds and names clusters by their words. What is measured is the machinery around it: batches, updates, checks, labels.
"""

import argparse
import functools
import json
import time
import warnings
from typing import Any

import numpy as np

import harness

LABELLER, DISTILLED = "labeller itself", "classifier on the labeller's labels"
GOLD, RANDOM = "classifier on true labels", "classifier on shuffled labels"
TNT, ONE, CLUSTERS, SHUFFLED = "updates over all batches", "first batch alone", "k-means clusters", "names shuffled"
DRUGS, NEWS = "drug reviews, 10 conditions", "BBC news, induced labels"
USE_CASE = "the subject of a news article"


@functools.cache
def encoder() -> Any:
    from sentence_transformers import SentenceTransformer

    from hf_labels.data.offline import minilm_path

    return SentenceTransformer(str(minilm_path()), device="cpu")


_KNOWN: dict[str, np.ndarray] = {}


def vectors(texts: Any) -> np.ndarray:
    """Embeddings, each text once per process."""
    new = [text for text in dict.fromkeys(texts) if text not in _KNOWN]
    if new:
        rows = encoder().encode(new, normalize_embeddings=True, show_progress_bar=False)
        _KNOWN.update(zip(new, rows, strict=True))
    return np.stack([_KNOWN[text] for text in texts])


def labeller() -> Any:
    from hf_labels.lm import EmbeddingLM

    return EmbeddingLM(encoder(), model_id="all-MiniLM-L6-v2", truncate=True, progress=False)


@functools.cache
def drugs() -> dict[str, Any]:
    """Reviews, the labeller's labels of train and test, features."""
    from hf_labels.data import offline
    from hf_labels.labels.tnt_llm import Taxonomy
    from hf_labels.lm.tnt_llm_labels import LLMLabeler

    train, test = offline.load_drug_reviews("train"), offline.load_drug_reviews("test")
    shared = set(train["text"][:])  # one review is in both files
    test = test.filter(lambda row: row["text"] not in shared)
    names = train.features["labels"].names
    known = offline.DRUG_CONDITION_DESCRIPTIONS
    taxonomy = Taxonomy.from_names({name: known[name] for name in names}, "what the drug is taken for")
    labeler, found = LLMLabeler(labeller(), taxonomy), {}
    for name, part in (("train", train), ("test", test)):
        found[name] = labeler.label(part.remove_columns("labels"))
        found[f"{name} gold"] = np.array(part["labels"][:])
    return found


def distil(seed: int) -> dict[str, float]:
    """Test accuracy on one resample of the training reviews."""
    from hf_labels.models.tnt_llm import TaxonomyClassifier

    here, rng = drugs(), np.random.default_rng(seed)
    rows = rng.integers(len(here["train"]), size=len(here["train"]))
    train, gold = here["train"].select(rows), here["train gold"][rows]
    texts, truth = here["test"]["text"][:], here["test gold"]
    ways = {DISTILLED: np.array(train["label"][:]), GOLD: gold, RANDOM: rng.permutation(train["label"][:])}
    scores = {LABELLER: float(np.mean(np.array(here["test"]["label"][:]) == truth))}
    for name, labels in ways.items():
        data = train.remove_columns("label").add_column("label", labels.tolist())
        data = data.cast_column("label", here["train"].features["label"])
        model = TaxonomyClassifier.train_on(data, vectors, model_id="all-MiniLM-L6-v2", seed=seed)
        found = model.predict(texts)
        ids = [model.config.label2id[one["label"]] for one in found]  # type: ignore[index]
        scores[name] = float(np.mean(np.array(ids) == truth))
    return scores


class Double:
    """Writes tables as a language model would be asked to: clusters of the documents in the prompt, named by words."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, request: Any) -> str:
        from sklearn.cluster import KMeans

        text = request.text
        documents = [line.partition("> ")[2] for line in text.splitlines() if line.startswith("<document ")]
        points = vectors(documents)
        groups = KMeans(self.size, n_init=4, random_state=0).fit(points)
        table = self.named(documents, groups.labels_)
        if "Current labels" not in text:
            return json.dumps({"labels": table})
        rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and line[2:3].isdigit()]
        old = [{"name": row[1], "description": row[2].removesuffix(" |")} for row in rows]
        near = points @ vectors([label["description"] for label in old]).T
        rating = int(100 * np.clip(near.max(1).mean(), 0, 1))
        merged = [*old]
        for label, center in zip(table, groups.cluster_centers_, strict=True):
            alike = vectors([one["description"] for one in merged]) @ (center / np.linalg.norm(center))
            if alike.max() < 0.3 and label["name"] not in [one["name"] for one in merged]:
                merged.append(label)
        return json.dumps({"rating": rating, "explanation": "mean cosine", "edits": "N/A", "labels": merged})

    @staticmethod
    def named(documents: list[str], groups: np.ndarray) -> list[dict[str, str]]:
        from sklearn.feature_extraction.text import TfidfVectorizer

        table = TfidfVectorizer(stop_words="english", max_features=3000).fit(documents)
        words, found = np.array(table.get_feature_names_out()), []
        for group in range(groups.max() + 1):
            rows = [text for text, mine in zip(documents, groups, strict=True) if mine == group]
            best = words[np.argsort(-np.asarray(table.transform(rows).mean(0)).ravel())[:12]]
            found.append({"name": " ".join(best[:3]), "description": ", ".join(best)})
        return found


def induce(seed: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Agreement with the five sections of labels that nobody named, on one sample of the news."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import normalized_mutual_info_score as nmi

    from hf_labels.data.offline import load_bbc_news
    from hf_labels.labels.tnt_llm import Taxonomy
    from hf_labels.lm import ScriptedLM
    from hf_labels.lm.tnt_llm import TaxonomyArguments, TaxonomyInducer
    from hf_labels.lm.tnt_llm_labels import LLMLabeler, evaluate_taxonomy

    data = load_bbc_news(300).shuffle(seed=seed).select(range(300))
    gold = data["labels"][:]
    data = data.select_columns(["text"])
    lm = ScriptedLM(Double(5), model_id=f"clusters-{seed}", progress=False)
    args = TaxonomyArguments(USE_CASE, max_labels=12, batch_size=60, summary_words=0, seed=seed)
    taxonomy = TaxonomyInducer(lm, args=args).fit(data["text"][:])
    first = Taxonomy.from_json({**taxonomy.to_json(), "labels": taxonomy.history[0]["table"], "history": []})
    order = np.random.default_rng(seed).permutation(len(taxonomy))
    words = [taxonomy.labels[place].description for place in order]
    wrong = Taxonomy.from_names(dict(zip(taxonomy.names, words, strict=True)), USE_CASE)
    found, judged = {}, {}
    for name, table in ((TNT, taxonomy), (ONE, first)):
        labelled = LLMLabeler(labeller(), table).label(data)
        found[name] = float(nmi(gold, labelled["label"][:]))
        judged[name] = evaluate_taxonomy(table, labelled, labeller(), seed=seed)["coverage"]
    guessed = LLMLabeler(labeller(), wrong).label(data)["label"][:]
    right = LLMLabeler(labeller(), taxonomy).label(data)["label"][:]
    found[SHUFFLED] = float(np.mean(np.array(guessed) == np.array(right)))
    points = vectors(data["text"][:])
    found[CLUSTERS] = float(nmi(gold, KMeans(5, n_init=4, random_state=seed).fit_predict(points)))
    facts = {
        "labels": len(taxonomy),
        "ratings": [step["rating"] for step in taxonomy.history],
        "coverage": judged[TNT],
    }
    return found, facts


def one_seed(seed: int) -> dict[str, Any]:
    harness.one_thread()
    import datasets

    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore")
    clock = time.process_time()
    news, facts = induce(seed)
    return {"drugs": distil(seed), "news": news, "facts": facts, "seconds": time.process_time() - clock}


def measure_smollm2() -> dict[str, Any]:
    """What a real small model makes of the prompts: tables that are accepted, and labels that are read."""
    from hf_labels.data.offline import load_bbc_news, smollm2_path
    from hf_labels.labels.tnt_llm import TaxonomyError
    from hf_labels.lm import TransformersLM
    from hf_labels.lm.tnt_llm import TaxonomyArguments, TaxonomyInducer
    from hf_labels.lm.tnt_llm_labels import LLMLabeler

    path = smollm2_path()
    lm = TransformersLM.from_gguf(path.parent, path.name, batch_size=4)
    data = load_bbc_news(300).shuffle(seed=0).select(range(12)).select_columns(["text"])
    args = TaxonomyArguments(USE_CASE, max_labels=8, batch_size=6, summary_words=15, seed=0)
    inducer, start = TaxonomyInducer(lm, args=args), time.perf_counter()
    found: dict[str, Any] = {}
    try:
        taxonomy = inducer.fit(data["text"][:])
        found["labels"] = list(taxonomy.names)
        labeler = LLMLabeler(lm, taxonomy)
        labeler.label(data.select(range(6)))
        found["labelling"] = dict(labeler.counts)
    except TaxonomyError as error:
        found["error"] = str(error)
    found["accepted_steps"] = [step["accepted"] for step in inducer.history]
    found["problems"] = [step["problems"] for step in inducer.history]
    return found | {"calls": lm.usage.calls, "seconds": round(time.perf_counter() - start, 1)}


def full() -> None:
    """User intents in a large corpus of conversations, with a chat endpoint."""
    from datasets import load_dataset

    from hf_labels.lm import InferenceClientLM
    from hf_labels.lm.tnt_llm import TaxonomyArguments, TaxonomyInducer
    from hf_labels.lm.tnt_llm_labels import LLMLabeler
    from hf_labels.models.tnt_llm import TaxonomyClassifier

    rows = load_dataset("allenai/WildChat-1M", split="train").shuffle(seed=0).select(range(20_000))
    rows = rows.map(lambda row: {"text": row["conversation"][0]["content"]}).select_columns(["text"])
    lm = InferenceClientLM("meta-llama/Llama-3.1-8B-Instruct", cache_dir="answers")
    taxonomy = TaxonomyInducer(lm, args=TaxonomyArguments("what the user wants")).fit(rows["text"][:])
    labelled = LLMLabeler(lm, taxonomy).label(rows.select(range(10_000)))
    model = TaxonomyClassifier.train_on(labelled, "sentence-transformers/all-MiniLM-L6-v2", taxonomy=taxonomy)
    model.push_to_hub("wildchat-intents")
    taxonomy.push_to_hub("wildchat-taxonomy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["small", "full"], default="small")
    parser.add_argument("--smollm2", action="store_true", help="add a run of the real small model to the file")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--workers", type=int, help="processes of one thread each; default: the number of cores")
    arguments = parser.parse_args()
    if arguments.preset == "full":
        return full()
    path = harness.RESULTS / "tnt_llm.json"
    if arguments.smollm2:
        known = json.loads(path.read_text())
        known["smollm2"] = measure_smollm2() | {"command": harness.command_line()}
        path.write_text(json.dumps(known, indent=1) + "\n")
        return print(json.dumps(known["smollm2"], indent=1))
    record = harness.Experiment("tnt_llm", datasets=["drug reviews", "BBC news"])
    seeds = arguments.seeds
    runs = harness.run_tasks(one_seed, seeds, arguments.workers)
    kinds = {DISTILLED: "method", LABELLER: "baseline", GOLD: "baseline", RANDOM: "control"}
    for name, kind in kinds.items():
        record.add(name, DRUGS, "accuracy", [run["drugs"][name] for run in runs], seeds, kind)
    for name, kind in {TNT: "method", ONE: "ablation", CLUSTERS: "baseline"}.items():
        record.add(name, NEWS, "NMI with the sections", [run["news"][name] for run in runs], seeds, kind)
    record.add(SHUFFLED, NEWS, "same label as before", [run["news"][SHUFFLED] for run in runs], seeds, "control")
    for other in (LABELLER, GOLD, RANDOM):
        record.compare(DISTILLED, other, DRUGS, "accuracy")
    for other in (ONE, CLUSTERS):
        record.compare(TNT, other, NEWS, "NMI with the sections")
    sizes = [run["facts"]["labels"] for run in runs]
    record.notes += [
        "The labeller is a sentence encoder that never saw a label; the classifier stands on the same embeddings. It "
        "takes over from a labeller, and is not expected to be better than one.",
        "Each draw resamples the 290 training reviews; the test reviews are the same for all draws.",
        "The writer of the taxonomies is a double made of clusters and their words, no language model: the numbers on "
        "news are about the machinery, and say nothing about what a language model would write.",
        f"Labels of the taxonomies over the draws: {min(sizes)} to {max(sizes)}; the news have five sections.",
    ]
    record.write(
        processor_time_s=round(sum(run["seconds"] for run in runs), 1), induction=[run["facts"] for run in runs]
    )
    for metric in ("accuracy", "NMI with the sections", "same label as before"):
        print(harness.columns(harness.table_cells(record.rows, metric)), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)))


if __name__ == "__main__":
    main()
