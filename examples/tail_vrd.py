"""TAIL: a teacher labels documents by instruction, a student learns its answers, with and without gates.

    python examples/tail_vrd.py                # real package metadata as documents, and drawn receipts; no Hub
    python examples/tail_vrd.py --preset full  # CORD receipts, a vision endpoint and SmolVLM; needs the Hub

Metadata: the header fields of the installed Python distributions are rendered as documents, in shuffled order and
under varied keywords. The teacher is a double: it reads right and is then spoiled, in a part of the fields the same
way in each sample and in another part differently. The student is a small token tagger; the truth is for testing only.
Receipts: images drawn here; the student is a LLaVA of 0.2 million parameters from a configuration, through SFTTrainer.
"""

import argparse
import functools
import importlib.metadata
import json
import re
import tempfile
import time
import warnings
from collections import Counter
from typing import Any

import numpy as np

import harness

TEACHER, RAW, GATED = "teacher (double)", "student, all labels", "student, gated labels"
UNAWARE, GOLD = "student, teacher unaware of formats", "student, true labels"
MIXED = "student, labels of other documents"
VLM, SWAPPED, CONSTANT = "small VLM, all labels", "small VLM, shown another receipt", "most frequent values"
META, NEW, SEEN = "package metadata", "new receipts", "16 receipts seen in training"
METRICS = ("anls", "exact match")
KEYS = {
    "name": ("Package", "Project", "Distribution name", "Software"),
    "version": ("Release", "Version", "Ver.", "Edition"),
    "author": ("Author", "Written by", "Maintained by", "Contact"),
    "license": ("License", "Licence", "Terms", "Licensed under"),
    "requires_python": ("Requires Python", "Python version", "Interpreter", "Needs Python"),
}
LICENSES = {"MIT": "MIT License", "Apache-2.0": "Apache License 2.0", "BSD-3-Clause": "New BSD"}
NOISE = 0.2  # share of the fields that the teacher gets wrong


def schema() -> Any:
    from hf_labels.labels.tail_vrd import DocumentSchema

    return DocumentSchema.from_dict(
        {
            name: {"nullable": name not in ("name", "version"), "keywords": [word.lower() for word in words]}
            for name, words in KEYS.items()
        }
    )


@functools.cache
def packages() -> list[dict[str, Any]]:
    """Header fields of the installed distributions, by name."""
    found = {}
    for distribution in importlib.metadata.distributions():
        data = distribution.metadata
        values: dict[str, Any] = {"name": data["Name"], "version": data["Version"]}
        values["author"] = data.get("Author") or data.get("Author-email")
        values["license"] = data.get("License-Expression") or data.get("License")
        values["requires_python"] = data.get("Requires-Python")
        for key, value in values.items():
            text = " ".join(str(value or "").split())
            values[key] = text if 0 < len(text) <= 60 and text != "UNKNOWN" else None
        if values["name"] and values["version"]:
            others = [("Summary", data.get("Summary")), ("Metadata", data.get("Metadata-Version"))]
            others += [("Classifier", line) for line in (data.get_all("Classifier") or [])[:1]]
            found[values["name"].lower()] = {"values": values, "others": [(k, v) for k, v in others if v]}
    return [found[name] for name in sorted(found)]


def render(package: dict[str, Any], rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
    """A document: lines in random order, under one of the keywords of each field."""
    there = {name: value for name, value in package["values"].items() if value is not None}
    marks = [":", " :", " -", ""]
    lines = [f"{rng.choice(KEYS[name])}{rng.choice(marks)} {value}" for name, value in there.items()]
    lines += [f"{name}: {' '.join(str(value).split())[:48]}" for name, value in package["others"]]
    return "\n".join(rng.permutation(lines).tolist()), package["values"]


def documents(rows: Any, copies: int, rng: np.random.Generator) -> Any:
    from datasets import Dataset

    pairs = [render(packages()[row], rng) for row in rows for _ in range(copies)]
    texts, truths = [text for text, _ in pairs], [json.dumps(values) for _, values in pairs]
    return Dataset.from_dict({"text": texts, "words": [text.split() for text in texts], "truth": truths})


class Double:
    """Reads a document right, then spoils it: half of the errors come back in every sample."""

    def __init__(self, data: Any, seed: int) -> None:
        self.truth = dict(zip(data["text"][:], data["truth"][:], strict=True))
        self.seed, self.values = seed, [json.loads(text) for text in data["truth"][:]]

    def __call__(self, request: Any) -> str:
        text = request.text.split("<text>\n")[1].split("\n</text>")[0]
        found = json.loads(self.truth[text])
        for place, name in enumerate(found):
            lasting = np.random.default_rng([self.seed, place, *text.encode()])
            once = np.random.default_rng([self.seed, place, request.seed or 0, 1, *text.encode()])
            for rng in (lasting, once):
                if rng.random() < NOISE / 2:
                    found[name] = self.spoiled(found[name], name, text, rng)
        if "text as it is written" not in request.text:  # it was not told how values are written
            found = {name: self.own_format(name, value) for name, value in found.items()}
        return json.dumps(found)

    def spoiled(self, value: str | None, name: str, text: str, rng: np.random.Generator) -> str | None:
        kind = rng.integers(4)
        if kind == 0:
            return None
        if kind == 1:  # another line of this document
            return str(rng.choice(text.splitlines())).partition(" ")[2][:40] or None
        if kind == 2:  # a value that is not there
            return self.values[rng.integers(len(self.values))][name]
        return None if value is None else value[: max(1, len(value) * 2 // 3)]  # cut off

    @staticmethod
    def own_format(name: str, value: str | None) -> str | None:
        if value is None:
            return None
        if name == "version":
            return "v" + value.replace(".", "_")
        if name == "requires_python":
            return re.sub(r"^>=\s*([\d.]+).*", r"Python \1 or newer", value)
        if name == "license":
            return {"MIT": "MIT License", "Apache-2.0": "Apache License 2.0", "BSD-3-Clause": "New BSD"}.get(
                value, value
            )
        return ", ".join(reversed(value.split(" ", 1))).upper() if name == "author" else value


def scores_of(found: dict[str, Any]) -> dict[str, float]:
    return {"anls": found["anls"], "exact match": found["exact_match"]}


def tagger(texts: list[str], seed: int) -> tuple[Any, Any]:
    """A ModernBERT of two layers with random weights."""
    import torch
    from transformers import ModernBertConfig, ModernBertForTokenClassification

    from hf_labels.labels.tail_vrd_align import tag_names
    from hf_labels.models.tail_vrd_small import small_tokenizer

    tags, tokenizer = tag_names(schema()), small_tokenizer(texts, 1500)
    torch.manual_seed(seed)
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=512,
        local_attention=16,
        global_attn_every_n_layers=2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        id2label=dict(enumerate(tags)),
        label2id={tag: number for number, tag in enumerate(tags)},
    )
    return ModernBertForTokenClassification(config), tokenizer


def train(labels: Any, model: Any, processor: Any, seed: int, **options: Any) -> Any:
    from hf_labels.trainers.tail_vrd import distill

    with tempfile.TemporaryDirectory() as folder:
        return distill(
            labels,
            model,
            processor=processor,
            output_dir=folder,
            use_cpu=True,
            disable_tqdm=True,
            logging_steps=10_000,
            per_device_train_batch_size=8,
            seed=seed,
            **options,
        )


def metadata(
    seed: int, epochs: int, split: str = "test", only: str | None = None
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Scores of teacher and students on held-out packages."""
    from hf_labels.labels.tail_vrd_files import TAILLabels
    from hf_labels.labels.tail_vrd_gates import LabelGates
    from hf_labels.lm import ScriptedLM
    from hf_labels.lm.tail_vrd import TAILLabeler
    from hf_labels.models.tail_vrd import evaluate_extraction

    rng = np.random.default_rng(seed)
    order = rng.permutation(len(packages()))
    cut = int(0.6 * len(order))
    parts = {"train": order[:cut], "dev": order[cut : int(0.7 * len(order))], "test": order[int(0.7 * len(order)) :]}
    data = {name: documents(rows, 3 if name == "train" else 1, rng) for name, rows in parts.items()}
    fields = schema()

    def label(part: Any, samples: int, **options: Any) -> Any:
        lm = ScriptedLM([(lambda request: True, Double(part, seed))], model_id=f"double-{seed}", progress=False)
        return TAILLabeler(lm, fields, **options).label(part, samples, image_column=None, text_column="text")

    off = LabelGates.off()
    shown = label(data[split], 1, gates=off)
    ways = {RAW: label(data["train"], 1, gates=off), GATED: label(data["train"], 2)}
    ways[UNAWARE] = label(data["train"], 1, gates=off, normalize=False, formats=False)
    size = len(fields.names)
    kept = {name: float(np.mean([len(row) for row in labels.values])) / size for name, labels in ways.items()}
    facts: dict[str, Any] = {"fields_kept": kept}
    truths = [json.loads(text) for text in data["train"]["truth"][:]]
    facts["label_anls"] = {
        name: float(np.mean([_kept_score(values, truths[row], fields) for row, values in _rows(labels)]))
        for name, labels in ways.items()
    }
    raw = ways[RAW].dataset.remove_columns("target_json")
    for name, texts in (
        (GOLD, [fields.dumps(values) for values in truths]),
        (MIXED, rng.permutation(ways[RAW].dataset["target_json"][:]).tolist()),
    ):
        ways[name] = TAILLabels(raw.add_column("target_json", texts), fields, ways[RAW].report)
    found = {TEACHER: scores_of(shown.evaluate([json.loads(text) for text in data[split]["truth"][:]]))}
    for name, labels in ways.items():
        if only not in (None, name):
            continue
        model, tokenizer = tagger(data["train"]["text"][:], seed)
        student = train(labels, model, tokenizer, seed, num_train_epochs=epochs, learning_rate=3e-3)
        found[name] = scores_of(evaluate_extraction(student, data[split]))
    return found, facts


def _rows(labels: Any) -> list[tuple[int, dict[str, Any]]]:
    return list(zip(labels.dataset["index"][:], labels.values, strict=True))


def _kept_score(values: dict[str, Any], truth: dict[str, Any], fields: Any) -> float:
    from hf_labels.labels.tail_vrd_scores import extraction_scores

    return float(extraction_scores([values], [truth], fields.subset(values))["anls"])


def receipts(seed: int, steps: int) -> tuple[dict[str, dict[str, dict[str, float]]], dict[str, Any]]:
    """A small VLM from a configuration: on new receipts, on the few that it has seen, and shown the wrong ones."""
    from hf_labels.data.tail_vrd_receipts import draw_receipts
    from hf_labels.labels.tail_vrd import DocumentSchema
    from hf_labels.labels.tail_vrd_cost import CostModel
    from hf_labels.labels.tail_vrd_gates import LabelGates
    from hf_labels.labels.tail_vrd_scores import extraction_scores
    from hf_labels.lm import ScriptedLM
    from hf_labels.lm.tail_vrd import TAILLabeler
    from hf_labels.models.tail_vrd import evaluate_extraction
    from hf_labels.models.tail_vrd_small import small_vlm

    look: dict[str, Any] = {"size": (128, 64), "items": (0, 0), "font_size": 13, "noise": 0.1, "languages": ["en"]}
    many, new = draw_receipts(600, seed, **look), draw_receipts(64, 1000 + seed, **look)
    few = many.select(range(16))
    fields = DocumentSchema.from_dict({"vendor": {}, "date": {"type": "date"}, "total": {"type": "amount"}})
    found: dict[str, dict[str, dict[str, float]]] = {}
    facts: dict[str, Any] = {}
    for setting, data, test, length in ((NEW, many, new, steps // 2), (SEEN, few, few, steps)):
        lm = ScriptedLM([(lambda request: True, Double(many, seed))], model_id=f"double-{seed}", progress=False)
        labels = TAILLabeler(lm, fields, gates=LabelGates.off()).label(data, text_column="text")
        texts = [fields.instruction()] * 50 + labels.dataset["target_json"][:300]
        model, processor = small_vlm(texts, image_size=48, patch_size=12, vocabulary=700, seed=seed)
        options = {"max_steps": length, "learning_rate": 2e-3, "max_target_tokens": 64}
        student = train(labels, model, processor, seed, **options)
        scores = evaluate_extraction(student, test)
        truths = [json.loads(text) for text in test["truth"][:]]
        swapped = student.extract_many(test.select([*range(1, len(test)), 0]))
        often = {name: Counter(row.get(name) for row in labels.values).most_common(1)[0][0] for name in fields.names}
        found[setting] = {
            VLM: scores_of(scores),
            SWAPPED: scores_of(extraction_scores(swapped, truths, fields)),
            CONSTANT: scores_of(extraction_scores([often] * len(truths), truths, fields)),
        }
        facts[setting] = {name: value["exact_match"] for name, value in scores["per_field"].items()} | student.answers
        times = student.facts["training_seconds"], scores["seconds_per_document"]
        cost = CostModel.of_hardware(0.05, *times, teacher_per_document=0.004, labelled=len(labels))
        facts[f"cost, {setting}"] = cost.table()
    return found, facts


def one_seed(task: tuple[int, int, int]) -> dict[str, Any]:
    harness.one_thread()
    import datasets
    from transformers import logging

    datasets.disable_progress_bars()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    seed, epochs, steps = task
    clock = time.process_time()
    meta, facts = metadata(seed, epochs)
    seen, more = receipts(seed, steps)
    return {"meta": meta, "receipts": seen, "facts": facts | more, "seconds": time.process_time() - clock}


def full() -> None:
    """Real receipts, a vision endpoint, an adapter on SmolVLM."""
    from datasets import load_dataset

    from hf_labels.labels.tail_vrd import DocumentSchema
    from hf_labels.lm import InferenceClientLM
    from hf_labels.lm.tail_vrd import TAILLabeler
    from hf_labels.models.tail_vrd import evaluate_extraction
    from hf_labels.trainers.tail_vrd import distill, lora_config, prepare_student

    prices = {"type": "list", "nullable": True, "fields": {"name": {}, "price": {"type": "amount"}}}
    fields = DocumentSchema.from_dict({"items": prices, "total": {"type": "amount", "keywords": ["total"]}})

    def truth(row: dict[str, Any]) -> dict[str, str]:
        gold = json.loads(row["ground_truth"])["gt_parse"]
        menu = gold.get("menu") or []
        menu = menu if isinstance(menu, list) else [menu]
        items = [{"name": one.get("nm"), "price": one.get("price")} for one in menu]
        return {"truth": json.dumps({"items": items, "total": (gold.get("total") or {}).get("total_price")})}

    data = load_dataset("naver-clova-ix/cord-v2")
    teacher = InferenceClientLM("Qwen/Qwen2.5-VL-72B-Instruct", cache_dir="answers")
    for count in (100, 400, 800):
        part = data["train"].select(range(count))
        labels = TAILLabeler(teacher, fields, task="expense audit").label(part, samples=2)
        model, processor, kind = prepare_student("HuggingFaceTB/SmolVLM-256M-Instruct", fields)
        student = distill(labels, model, processor=processor, kind=kind, peft_config=lora_config(model))
        print(count, evaluate_extraction(student, data["test"].map(truth)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["small", "full"], default="small")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--epochs", type=int, default=0, help="of the taggers; 0: chosen on the dev packages")
    parser.add_argument("--steps", type=int, default=300, help="of the small VLM, on few receipts; half on many")
    parser.add_argument("--workers", type=int, help="processes of one thread each; default: the number of cores")
    arguments = parser.parse_args()
    if arguments.preset == "full":
        return full()
    harness.one_thread()
    epochs, tuned = arguments.epochs, {}
    if not epochs:
        epochs, tuned = harness.tune_on_dev((6, 10), lambda count: metadata(99, count, "dev", RAW)[0][RAW]["anls"])
    record = harness.Experiment("tail_vrd", datasets=["headers of installed Python distributions", "drawn receipts"])
    seeds = arguments.seeds
    runs = harness.run_tasks(one_seed, [(seed, epochs, arguments.steps) for seed in seeds], arguments.workers)
    kinds = {
        GATED: "method",
        RAW: "method",
        TEACHER: "baseline",
        GOLD: "baseline",
        UNAWARE: "control",
        MIXED: "control",
    }
    seen = {VLM: "method", CONSTANT: "baseline", SWAPPED: "control"}
    for metric in METRICS:
        for name, kind in kinds.items():
            record.add(name, META, metric, [run["meta"][name][metric] for run in runs], seeds, kind)
        for setting in (NEW, SEEN):
            for name, kind in seen.items():
                record.add(
                    name, setting, metric, [run["receipts"][setting][name][metric] for run in runs], seeds, kind
                )
        for one, other in ((GATED, RAW), (RAW, TEACHER), (GATED, TEACHER), (RAW, UNAWARE), (RAW, MIXED), (GOLD, RAW)):
            record.compare(one, other, META, metric)
        for setting in (NEW, SEEN):
            for other in (SWAPPED, CONSTANT):
                record.compare(VLM, other, setting, metric)
    mean = {
        key: {n: float(np.mean([run["facts"][key][n] for run in runs])) for n in (RAW, GATED, UNAWARE)}
        for key in ("fields_kept", "label_anls")
    }
    right, kept = mean["label_anls"], mean["fields_kept"]
    record.notes += [
        f"The teacher is a double with {NOISE:.0%} of its fields spoiled, half of them alike in every sample: the "
        "numbers are about what gates and students make of such errors, not about a language model.",
        f"ANLS of the labels: {right[RAW]:.3f} of all, {right[GATED]:.3f} of the gated ones, which are "
        f"{kept[GATED]:.0%} of the fields, {right[UNAWARE]:.3f} of a teacher that is not told the formats.",
        "The gated student had twice as many questions to the teacher, two samples per document.",
        "The small VLM starts from random weights. What it says when it is shown another receipt tells how much it "
        "reads: on new receipts next to nothing, on the few that it has seen it tells them apart.",
    ]
    record.write(
        processor_time_s=round(sum(run["seconds"] for run in runs), 1),
        tuned_on_dev={"epochs": tuned, "chosen": epochs},
        packages=len(packages()),
        runs=[run["facts"] for run in runs],
    )
    harness.plot(record.rows, "anls", harness.RESULTS / "tail_vrd.png")
    for metric in METRICS:
        print(harness.columns(harness.table_cells(record.rows, metric)), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)))


if __name__ == "__main__":
    main()
