"""Few labelled emoji, eight source models of other tasks: which of them should teach the student?

    python examples/distill_weighted.py                 # about 8 minutes of one core; emoji from npm, no Hub
    python examples/distill_weighted.py --preset full   # a Hub data set and Hub models; needs the Hub and a GPU

Target: the nine categories of emoji as Twitter draws them, 16 labels per class. The shelf: small ResNets trained on
the drawings of Google, Apple and Facebook, on two subsets of Google's emoji with finer classes, on clothes, on
digits, and on Google's emoji with random labels. No emoji of the shelf is in the target, in any drawing. All students
of one seed start from the same weights and see the same batches; only their soft labels differ. Learning rate, weight
of the labels and power are tuned on dev rows with seeds of their own. Writes `results/distill_weighted.json`.
"""

import argparse
import json
import logging
import tempfile
import time
import warnings
from typing import Any

import numpy as np
from emoji_shelf import SHELF, bank_of, emoji, halves, jitter, network, train_shelf

import harness

LABELS, SELF = "labels only", "self-training (own soft labels)"
NEAREST, WEIGHTED, UNIFORM = "DistillNearest", "DistillWeighted", "all sources alike (p = 0)"
PROBE = "DistillWeighted, probe accuracy instead of PARC"
WRONG, MIXED_UP = "similarities dealt to the wrong sources", "soft labels of other images"
BEST, WORST = "best source, known afterwards", "worst source, known afterwards"
TEACHERS = "weighted sources themselves (8 networks)"
KINDS = {NEAREST: "method", WEIGHTED: "method", UNIFORM: "ablation", PROBE: "ablation", BEST: "ablation"}
KINDS |= {WRONG: "control", MIXED_UP: "control", WORST: "control"}
METRICS = ("parc", "probe_accuracy", "knn", "hscore", "leep", "nce")
SHOTS, DEV, TEST, STEPS, BATCH = 16, 200, 350, 120, 32
RATES, LABEL_WEIGHTS, POWERS = (3e-3, 1e-2), (0.3, 0.8), (4, 1, 12)  # weights are tuned with the first power
TUNING_SEEDS = (100, 101)
SETTING = f"Twitter emoji, {SHOTS} labels per class"


def world(seed: int, tuning: bool) -> dict[str, Any]:
    """Labelled and unlabelled rows, and those to judge by: test rows (the same for all seeds) or dev rows."""
    from datasets import ClassLabel

    data, images = emoji("twitter")
    names = [name for name in data.features["labels"].names if name != "Component"]
    old = data.features["labels"].names
    labels = np.asarray([names.index(old[label]) for label in data["labels"][:]])
    own = halves()[1]
    train, judged = own[TEST:], own[:TEST]
    train = np.random.default_rng([3, seed]).permutation(train)
    if tuning:
        judged, train = train[:DEV], train[DEV:]
    chosen = np.concatenate([train[labels[train] == label][:SHOTS] for label in range(len(names))])
    data = data.select_columns(["image"]).add_column("index", np.arange(len(data)))
    data = data.add_column("labels", labels).cast_column("labels", ClassLabel(names=names))
    rest = np.setdiff1d(train, chosen)
    return {
        "images": images,
        "truth": labels,
        "names": names,
        "labeled": data.select(chosen),
        "unlabeled": data.select(rest).remove_columns("labels"),
        "judged": judged,
    }


def train(here: dict[str, Any], seed: int, rate: float, store: Any = None, label_weight: float = 1.0) -> Any:
    """A student of the labels, and of a store when there is one."""
    from transformers import PrinterCallback

    from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments
    from hf_labels.trainers.distill_weighted import WeightedDistillTrainer, WeightedDistillTrainingArguments

    def read(batch: Any) -> dict[str, Any]:  # from memory: images are not decoded again at every step
        seen = jitter(here["images"][batch["index"]])
        return {"pixel_values": list(seen), **{key: batch[key] for key in ("index", "labels") if key in batch}}

    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {
            "output_dir": folder,
            "max_steps": STEPS,
            "per_device_train_batch_size": BATCH,
            "learning_rate": rate,
            "lr_scheduler_type": "cosine",
            "weight_decay": 1e-2,
            "dataloader_drop_last": True,
            "seed": seed,
            "use_cpu": True,
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }
        model = network([16, 32, 32], here["names"], seed)
        labeled = here["labeled"].remove_columns("image").with_transform(read)
        if store is None:
            trainer: Any = LabelTrainer(model, LabelTrainingArguments(**options), train_dataset=labeled)
        else:
            trainer = WeightedDistillTrainer(
                model,
                WeightedDistillTrainingArguments(**options, label_weight=label_weight),
                train_dataset=labeled,
                unlabeled_dataset=here["unlabeled"].remove_columns("image").with_transform(read),
                soft_labels=store,
            )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return trainer.model.eval()


def probs(model: Any, images: Any) -> Any:
    """Probabilities (rows, classes) of whole images."""
    import torch

    with torch.no_grad():
        return torch.cat([model(part).logits.softmax(-1) for part in images.split(500)])


def accuracy(here: dict[str, Any], model: Any) -> float:
    """Share of right answers."""
    found = probs(model, here["images"][here["judged"]]).argmax(1).numpy()
    return float((found == here["truth"][here["judged"]]).mean())


def store_of(ids: Any, values: Any, names: list[str]) -> Any:
    """Soft labels of these rows as a store."""
    from hf_labels.data import SoftLabelStore, StoreInfo

    info = StoreInfo("dense", len(names), id2label=dict(enumerate(names)))
    return SoftLabelStore.from_arrays(info, example_ids=list(ids), probs=values)


def own_labels(here: dict[str, Any], model: Any) -> Any:
    """What a student says of all rows that it may be taught on."""
    ids = np.asarray([*here["labeled"]["index"], *here["unlabeled"]["index"]])
    return store_of(ids, probs(model, here["images"][ids]), here["names"])


def tune(folder: str) -> dict[str, dict[str, float]]:
    """Dev accuracies (mean of the tuning seeds) by which the settings were chosen."""
    from hf_labels.losses.distill_weighted import source_weights

    bank = bank_of(folder)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in ("rate", "label_weight", SELF, "power")}
    places = {seed: world(seed, True) for seed in TUNING_SEEDS}

    def best(name: str) -> float:
        return float(max(found[name], key=lambda option: sum(found[name][option])))

    def score(kind: str, option: float, seed: int, *more: Any) -> Any:
        model = train(places[seed], seed, *more)
        found[kind].setdefault(str(option), []).append(accuracy(places[seed], model))
        return model

    alone = {(seed, rate): score("rate", rate, seed, rate) for seed in TUNING_SEEDS for rate in RATES}
    rate = best("rate")
    for seed, here in places.items():
        near = bank.similarities(here["labeled"])
        soft = {
            p: bank.pseudo_labels(here["labeled"], here["unlabeled"], source_weights(near, p, "uniform"))
            for p in POWERS
        }
        for weight in LABEL_WEIGHTS:
            score("label_weight", weight, seed, rate, soft[POWERS[0]], weight)
            score(SELF, weight, seed, rate, own_labels(here, alone[seed, rate]), weight)
        places[seed]["soft"] = soft
    found["power"][str(POWERS[0])] = found["label_weight"][str(best("label_weight"))]
    for seed, here in places.items():
        for power in POWERS[1:]:
            score("power", power, seed, rate, here["soft"][power], best("label_weight"))
    return {kind: {name: sum(v) / len(v) for name, v in options.items()} for kind, options in found.items()}


def one_seed(task: tuple[int, dict[str, float], str]) -> dict[str, Any]:
    """Test accuracy of every arm of one seed, and how well each metric orders the sources."""
    from hf_labels.labels.task_similarity import selection_correlation
    from hf_labels.losses.distill_weighted import source_weights

    quiet()
    seed, chosen, folder = task
    clock = time.process_time()
    here, bank = world(seed, False), bank_of(folder)
    power, rate = chosen["power"], chosen["rate"]
    near = {metric: bank.similarities(here["labeled"], metric) for metric in METRICS}

    def taught(store: Any, weight: float = chosen["label_weight"]) -> float:
        return accuracy(here, train(here, seed, rate, store, weight))

    def soft(weights: dict[str, float]) -> Any:
        return bank.pseudo_labels(here["labeled"], here["unlabeled"], weights, similarities=near["parc"], power=power)

    alone = train(here, seed, rate)
    single = {name: taught(soft({name: 1.0})) for name in SHELF}
    weights = source_weights(near["parc"], power, fallback="uniform")
    order = sorted(SHELF, key=lambda name: near["parc"][name])
    wrong = dict(zip(order, (weights[name] for name in reversed(order)), strict=True))
    mixture = soft(weights)
    ids = mixture.example_ids
    values = mixture.decode(mixture.lookup(ids))
    scores = {
        LABELS: accuracy(here, alone),
        SELF: taught(own_labels(here, alone), chosen[SELF]),
        NEAREST: single[order[-1]],
        WEIGHTED: taught(mixture),
        UNIFORM: taught(soft(source_weights(near["parc"], 0))),
        PROBE: taught(soft(source_weights(near["probe_accuracy"], power, fallback="uniform"))),
        WRONG: taught(soft(wrong)),
        MIXED_UP: taught(store_of(np.random.default_rng(seed).permutation(ids), values, here["names"])),
        BEST: max(single.values()),
        WORST: min(single.values()),
        TEACHERS: teachers(here, bank, weights),
    }
    return {
        "scores": scores,
        "single": single,
        "similarity": near,
        "correlation": {metric: selection_correlation(values, single) for metric, values in near.items()},
        "seconds": time.process_time() - clock,
    }


def teachers(here: dict[str, Any], bank: Any, weights: dict[str, float]) -> float:
    """Accuracy of the mixture of the sources on the test rows."""
    data = emoji("twitter")[0].select_columns(["image"]).select(here["judged"])
    mixture = sum(weight * bank.probs(data, name) for name, weight in weights.items())
    return float((mixture.argmax(1) == here["truth"][here["judged"]]).mean())


def quiet() -> None:
    """One thread; no warnings and bars of single runs."""
    import datasets
    import transformers

    harness.one_thread()
    warnings.filterwarnings("ignore")
    logging.getLogger("hf_labels").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["small", "full"], default="small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, help="processes of one thread each; default: the number of cores")
    arguments = parser.parse_args()
    if arguments.preset == "full":
        return full()
    quiet()
    record = harness.Experiment("distill_weighted", ["emoji of four vendors (npm)", "Fashion-MNIST", "MNIST digits"])
    clock, seeds = time.process_time(), arguments.seeds
    with tempfile.TemporaryDirectory() as folder:
        train_shelf(folder)
        tuning = tune(folder)
        chosen = {kind: float(max(tried, key=lambda option: tried[option])) for kind, tried in tuning.items()}
        seconds = time.process_time() - clock
        runs = harness.run_tasks(one_seed, [(seed, chosen, folder) for seed in seeds], arguments.workers)
    for name in runs[0]["scores"]:
        values = [run["scores"][name] for run in runs]
        record.add(name, SETTING, "accuracy", values, seeds, KINDS.get(name, "baseline"))
    for other in (LABELS, SELF, UNIFORM, NEAREST, PROBE, WRONG, MIXED_UP, BEST, TEACHERS):
        record.compare(WEIGHTED, other, SETTING, "accuracy")
    for one, other in ((NEAREST, LABELS), (UNIFORM, LABELS), (SELF, LABELS)):
        record.compare(one, other, SETTING, "accuracy")
    for metric in METRICS:
        values = [run["correlation"][metric] for run in runs]
        record.add(metric, SETTING, "selection_correlation", values, seeds, "ablation")
    record.notes += notes(chosen)
    path = record.write(
        tuning_dev_accuracy=tuning,
        chosen=chosen,
        single_source_accuracy=[run["single"] for run in runs],
        similarities=[run["similarity"] for run in runs],
        processor_time_s=round(seconds + sum(run["seconds"] for run in runs), 1),
    )
    picture(json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".png"))
    for metric in ("accuracy", "selection_correlation"):
        print(harness.columns(harness.table_cells(record.rows, metric)), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)), f"\n\n{path.name}")


def notes(chosen: dict[str, float]) -> list[str]:
    """What a reader must know."""
    return [
        f"{STEPS} steps of {BATCH} labelled and {BATCH} distilled rows, student ResNet of three basic blocks (42 000 "
        f"weights), sources two to three times as wide. {TEST} test emoji are the same for all seeds, and so is the "
        "shelf; labelled rows, first weights and batches change with the seed.",
        "Best and worst source are picked by test accuracy afterwards: bounds, not methods.",
        "selection_correlation: Spearman correlation of a similarity with the accuracy of the student taught by each "
        "source alone, over the eight sources.",
        f"Tuned on {DEV} dev rows of {len(TUNING_SEEDS)} other seeds: learning rate {chosen['rate']:g} (for labels "
        f"only, then used by all), label weight {chosen['label_weight']:g} (self-training: {chosen[SELF]:g}), "
        f"p = {chosen['power']:g}.",
    ]


def picture(result: dict[str, Any], path: Any) -> Any:
    """What each source alone teaches against its PARC, mean and standard error over seeds; arms as lines."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.5, 4.2))
    near, single = result["similarities"], result["single_source_accuracy"]
    for name in single[0]:
        x = np.array([run["parc"][name] for run in near])
        y = np.array([run[name] for run in single])
        errors = [values.std(ddof=1) / len(values) ** 0.5 for values in (y, x)]
        axis.errorbar(x.mean(), y.mean(), *errors, marker="o", capsize=2, color="#31688e")
        axis.annotate(name, (x.mean(), y.mean()), xytext=(5, 5), textcoords="offset points", fontsize=8)
    means = {row["name"]: row["mean"] for row in result["rows"] if row["metric"] == "accuracy"}
    for name, style in ((WEIGHTED, "-"), (NEAREST, "--"), (UNIFORM, "-."), (LABELS, ":")):
        axis.axhline(means[name], linestyle=style, color="#d95f02", label=f"{name}: {means[name]:.3f}")
    axis.set_xlabel("PARC of the source on the labelled rows")
    axis.set_ylabel("accuracy of the student")
    axis.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
    return path


def full() -> None:
    """Oxford pets with 20 % of the labels, sources from the Hub, as the student a MobileNetV3 (needs timm)."""
    from datasets import load_dataset
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    from hf_labels.data import add_index
    from hf_labels.data.distill_weighted import SourceBank
    from hf_labels.losses.distill_weighted import source_weights
    from hf_labels.trainers.distill_weighted import WeightedDistillTrainer, WeightedDistillTrainingArguments

    data = load_dataset("timm/oxford-iiit-pet").rename_column("label", "labels")
    parts = add_index(data["train"]).train_test_split(train_size=0.2, stratify_by_column="labels", seed=0)
    labeled, unlabeled = parts["train"], parts["test"].remove_columns("labels")
    bank = SourceBank(["microsoft/resnet-50", "facebook/dinov2-small", "google/vit-base-patch16-224"])
    similarities = bank.similarities(labeled)
    weights = source_weights(similarities, power=12)
    soft = bank.pseudo_labels(labeled, unlabeled, weights, similarities=similarities, power=12)
    student = "timm/mobilenetv3_large_100.ra_in1k"
    processor = AutoImageProcessor.from_pretrained(student)

    def read(batch: Any) -> dict[str, Any]:
        seen = processor([image.convert("RGB") for image in batch["image"]], return_tensors="pt")["pixel_values"]
        return {"pixel_values": list(seen), **{key: batch[key] for key in ("index", "labels") if key in batch}}

    arguments = WeightedDistillTrainingArguments(
        "mobilenet-pets",
        num_train_epochs=100,
        per_device_train_batch_size=128,
        optim="sgd",
        optim_args="momentum=0.9,nesterov=True",
        learning_rate=0.01,
        lr_scheduler_type="cosine",
        weight_decay=1e-4,
        bf16=True,
        eval_strategy="epoch",
    )
    trainer = WeightedDistillTrainer(
        AutoModelForImageClassification.from_pretrained(
            student, id2label=soft.info.id2label, ignore_mismatched_sizes=True
        ),
        arguments,
        train_dataset=labeled.with_transform(read),
        unlabeled_dataset=unlabeled.with_transform(read),
        eval_dataset=data["test"].with_transform(read),
        soft_labels=soft,
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())},
    )
    trainer.train()
    print(trainer.evaluate())


if __name__ == "__main__":
    main()
