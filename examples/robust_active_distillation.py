"""RAD against margin, entropy, core set and random queries: clothes and digits, and teachers that err.

    python examples/robust_active_distillation.py                 # Fashion-MNIST and digits; no Hub
    python examples/robust_active_distillation.py --preset full   # CIFAR-100, ViT teacher, ResNet-18 student; Hub, GPU

Three teachers. `weak teacher`: a network that has seen 150 labels of Fashion-MNIST; its error rate is estimated on
60 held-out labels. `planted errors`: the truth, but wrong on the 20 % of that pool that a well trained network finds
hardest; the share is told. `digits`: a network that has seen 60 labels of scikit-learn's digits; estimated.

The student is a softmax on frozen features (principal components found without labels; pixels for the digits) and
starts anew in every round. All strategies of one seed share data, teacher, first student and budget. Features, steps
and learning rate are chosen first, by a search on other seeds with labelled training images of Fashion-MNIST, without
teacher or queries. Writes its result file and a picture of the curves.
"""

import argparse
import contextlib
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import harness

RAD, HALF = "RAD", "RAD, wrong answers worth 0"
STRATEGIES = {RAD: "method", HALF: "ablation", "margin": "baseline", "entropy": "baseline"}
STRATEGIES |= {"coreset": "baseline", "uniform": "control"}
WEAK, PLANTED, DIGITS = TEACHERS = ("weak teacher", "planted errors", "digits")
LABELED, HELD, POOL, TEACHER_ROWS, TEST, BUDGET = 60, 60, 1500, 150, 2000, 60
ROUNDS, PLANTED_SHARE = 4, 0.2
DEV_SEEDS, DEV_ROWS, DEV_LABELS = (100, 101, 102), 2000, 240
Student = dict[str, Any]  # components, steps, rate


def student(width: int, classes: int) -> Any:
    """A softmax on `pixel_values` (B, D), as a model of transformers."""
    import torch
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import ImageClassifierOutput

    class ProbeConfig(PreTrainedConfig):
        model_type = "example-probe"

    class Probe(PreTrainedModel):
        config_class = ProbeConfig
        base_model_prefix = "probe"

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.classifier = nn.Linear(width, config.num_labels)
            self.post_init()

        def _init_weights(self, module: Any) -> None:
            if isinstance(module, nn.Linear):
                torch.nn.init.zeros_(module.weight)
                torch.nn.init.zeros_(module.bias)

        def forward(self, pixel_values: Any = None, **kwargs: Any) -> Any:
            return ImageClassifierOutput(logits=self.classifier(pixel_values))

    return Probe(ProbeConfig(num_labels=classes))


def fashion(split: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 784) in [0, 1] and labels."""
    from hf_labels.data.offline_images import load_fashion_mnist, pixels

    data = load_fashion_mnist(split).select(rows.tolist())
    return pixels(data).reshape(len(rows), -1).astype(np.float32) / 255, np.asarray(data["labels"][:])


def projection(images: np.ndarray, components: int) -> Callable[[np.ndarray], np.ndarray]:
    """Principal components of unlabelled images, as a function of images."""
    from sklearn.decomposition import PCA

    pca = PCA(components, random_state=0).fit(images)
    scale = pca.transform(images).std()
    return lambda rows: (pca.transform(rows) / scale).astype(np.float32)


def network(images: np.ndarray, labels: np.ndarray, seed: int, steps: int = 80) -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(64, max_iter=steps, random_state=seed).fit(images, labels)


def clothes(seed: int, components: int) -> dict[str, Any]:
    """Features and labels of every part of Fashion-MNIST, and the answers of its two teachers."""
    rng = np.random.default_rng(seed)
    sizes = np.cumsum([LABELED, HELD, POOL, TEACHER_ROWS])
    images, labels = fashion("train", rng.permutation(60_000)[: sizes[-1] + 3000])
    test = fashion("test", rng.permutation(10_000)[:TEST])
    names = ("labeled", "held", "pool", "teacher", "strong")
    parts = dict(zip(names, np.split(np.arange(len(images)), sizes), strict=True))
    features = projection(images[parts["pool"]], components)
    here: dict[str, Any] = {name: (features(images[rows]), labels[rows]) for name, rows in parts.items()}
    here |= {"test": (features(test[0]), test[1]), "budget": BUDGET}
    weak, strong = (network(images[parts[name]], labels[parts[name]], seed) for name in ("teacher", "strong"))
    answers = {name: weak.predict_proba(images[parts[name]]) for name in ("pool", "held")}
    sure, truth = strong.predict_proba(images[parts["pool"]]), labels[parts["pool"]]
    hardest = np.argsort(sure[np.arange(POOL), truth])[: int(PLANTED_SHARE * POOL)]
    said, others = truth.copy(), sure.copy()
    others[np.arange(POOL), truth] = -1
    said[hardest] = others[hardest].argmax(1)  # the mistake that the network itself would make
    planted = {"pool": 0.9 * np.eye(10)[said] + 0.01}
    return {WEAK: here | {"answers": answers}, PLANTED: here | {"answers": planted, "told": PLANTED_SHARE}}


def digits(seed: int) -> dict[str, Any]:
    """The same for the digits: 600 test rows, 60 labels for the teacher, 60 held out, 30 for the student."""
    from hf_labels.data.offline_images import load_digits, pixels

    data = load_digits()
    images = pixels(data).reshape(len(data), -1).astype(np.float32) / 255
    labels = np.asarray(data["labels"][:])
    order = np.random.default_rng(seed).permutation(len(data))
    names = ("test", "teacher", "held", "labeled", "pool")
    parts = dict(zip(names, np.split(order, [600, 660, 720, 750]), strict=True))
    here: dict[str, Any] = {name: (images[rows], labels[rows]) for name, rows in parts.items()}
    weak = network(*here["teacher"], seed, 600)
    answers = {name: weak.predict_proba(here[name][0]) for name in ("pool", "held")}
    return {DIGITS: here | {"answers": answers, "budget": 50}}


def as_dataset(features: np.ndarray, labels: np.ndarray) -> Any:
    """Columns `pixel_values` and `labels`."""
    from datasets import Dataset

    return Dataset.from_dict({"pixel_values": features, "labels": labels.tolist()}).with_format("numpy")


def arguments_of(folder: str, seed: int, choice: Student) -> Any:
    from hf_labels.trainers.soft_labels import SoftLabelTrainingArguments

    return SoftLabelTrainingArguments(
        folder,
        max_steps=choice["steps"],
        per_device_train_batch_size=128,
        per_device_eval_batch_size=2000,
        learning_rate=choice["rate"],
        lr_scheduler_type="linear",
        seed=seed,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
    )


def dev_score(choice: Student) -> float:
    """Accuracy on training images of students of the labelled rows and 240 more with their true labels."""
    from hf_labels.trainers.soft_labels import SoftLabelTrainer

    found = []
    for seed in DEV_SEEDS:
        order = np.random.default_rng(seed).permutation(60_000)[: DEV_ROWS + POOL + LABELED]
        images, labels = fashion("train", order)
        features = projection(images[DEV_ROWS : DEV_ROWS + POOL], choice["components"])(images)
        rows = slice(DEV_ROWS + POOL - DEV_LABELS, None)
        data = as_dataset(features[rows], labels[rows]).with_format(None).remove_columns("labels")
        data = data.add_column("soft_labels", np.eye(10, dtype=np.float32)[labels[rows]].tolist())
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
            trainer = SoftLabelTrainer(
                student(choice["components"], 10), arguments_of(folder, seed, choice), train_dataset=data
            )
            trainer.train()
            logits = trainer.predict(as_dataset(features[:DEV_ROWS], labels[:DEV_ROWS]).remove_columns("labels"))
        found.append(float((logits.predictions.argmax(1) == labels[:DEV_ROWS]).mean()))
    return float(np.mean(found))


def tune() -> tuple[Student, dict[str, float]]:
    """The student of all strategies, teachers and seeds, and all dev scores."""
    quiet()
    return harness.tune_on_dev(harness.grid(components=[32, 64], steps=[60, 150], rate=[0.01, 0.03, 0.1]), dev_score)


def one_loop(name: str, here: dict[str, Any], seed: int, choice: Student) -> list[dict[str, Any]]:
    """History of one strategy with one teacher."""
    from hf_labels.trainers.robust_active_distillation import ActiveDistillation

    answers: dict[bytes, np.ndarray] = {}
    for part, probs in here["answers"].items():
        answers |= {row.tobytes(): answer for row, answer in zip(here[part][0], probs, strict=True)}

    def teacher(batch: dict[str, Any]) -> list[np.ndarray]:
        return [answers[np.asarray(row, np.float32).tobytes()] for row in batch["pixel_values"]]

    strategy = "rad" if name in (RAD, HALF) else name
    told = {"teacher_error": here["told"]} if "told" in here else {"holdout": as_dataset(*here["held"])}
    with tempfile.TemporaryDirectory() as folder:
        loop = ActiveDistillation(
            lambda: student(here["pool"][0].shape[1], 10),
            teacher,
            as_dataset(*here["labeled"]),
            as_dataset(*here["pool"]),
            output_dir=folder,
            budget=here["budget"],
            rounds=ROUNDS,
            strategy=strategy,
            wrong_reward=0.0 if name == HALF else -1.0,
            args=arguments_of(folder, seed, choice),
            eval_dataset=as_dataset(*here["test"]),
            compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(1) == p.label_ids).mean())},
            seed=seed,
            **(told if strategy == "rad" else {}),
        )
        with contextlib.redirect_stdout(None):
            loop.run()
    return [*loop.history, {"area": loop.area()}]


def quiet() -> None:
    """One thread, and no bars or warnings of other libraries."""
    harness.one_thread()
    import warnings

    import datasets
    import transformers

    warnings.filterwarnings("ignore", message="Stochastic Optimizer")  # enough steps for a teacher that errs
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("hf_labels").setLevel(logging.ERROR)


def one_seed(task: tuple[int, Student]) -> dict[str, Any]:
    """Curves of all strategies with all teachers."""
    seed, choice = task
    quiet()
    start = time.process_time()
    curves: dict[str, Any] = {}
    for which, here in (clothes(seed, choice["components"]) | digits(seed)).items():
        curves[which] = {"error": float((here["answers"]["pool"].argmax(1) != here["pool"][1]).mean())}
        curves[which] |= {name: one_loop(name, here, seed, choice) for name in STRATEGIES}
    return {"curves": curves, "cpu": time.process_time() - start}


def fill(record: harness.Experiment, runs: list[dict[str, Any]], seeds: list[int]) -> dict[str, float]:
    """Rows and pairs; returns the teachers' mean error rates."""
    errors = {}
    for which in TEACHERS:
        errors[which] = float(np.mean([run["curves"][which]["error"] for run in runs]))
        for name, kind in STRATEGIES.items():
            curves = [run["curves"][which][name] for run in runs]
            for place in range(ROUNDS + 1):
                setting = f"{which}, {curves[0][place]['spent']} queries"
                record.add(name, setting, "accuracy", [curve[place]["accuracy"] for curve in curves], seeds, kind)
            whole = f"{which}, whole curve"
            record.add(name, whole, "area under the curve", [curve[-1]["area"] for curve in curves], seeds, kind)
            wrong = [curve[ROUNDS]["wrong_query_rate"] for curve in curves]
            record.add(name, whole, "wrong_query_rate", wrong, seeds, kind)
        for other in (n for n in STRATEGIES if n != RAD):
            record.compare(RAD, other, f"{which}, {curves[0][ROUNDS]['spent']} queries", "accuracy")
            record.compare(RAD, other, f"{which}, whole curve", "area under the curve")
            record.compare(RAD, other, f"{which}, whole curve", "wrong_query_rate", higher_is_better=False)
    return errors


def full() -> None:
    """The paper's scale: CIFAR-100, 5 rounds of 5 000 queries."""
    import torch
    from datasets import load_dataset
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    from hf_labels.trainers.robust_active_distillation import ActiveDistillation
    from hf_labels.trainers.soft_labels import SoftLabelTrainingArguments

    expert = "Ahmed9275/Vit-Cifar100"
    processor, other = (
        AutoImageProcessor.from_pretrained(name, backend="pil") for name in ("microsoft/resnet-18", expert)
    )
    scales = [np.array([p.image_mean, p.image_std]).reshape(2, 1, 3, 1, 1) for p in (processor, other)]

    class Teacher(torch.nn.Module):
        """Takes the student's pixels."""

        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModelForImageClassification.from_pretrained(expert)

        def forward(self, pixel_values: Any, **kwargs: Any) -> Any:
            (mean, std), (to_mean, to_std) = (torch.as_tensor(s).to(pixel_values) for s in scales)
            return self.model((pixel_values * std + mean - to_mean) / to_std)

    def prepare(batch: dict[str, Any]) -> dict[str, Any]:
        return {"pixel_values": processor([image.convert("RGB") for image in batch["img"]])["pixel_values"]}

    data = load_dataset("uoft-cs/cifar100").rename_column("fine_label", "labels").remove_columns("coarse_label")
    data = data.map(prepare, batched=True, remove_columns="img")
    rows = data["train"].shuffle(seed=0)
    loop = ActiveDistillation(
        lambda: AutoModelForImageClassification.from_pretrained(
            "microsoft/resnet-18", num_labels=100, ignore_mismatched_sizes=True
        ),
        Teacher(),
        rows.select(range(5000)),
        rows.select(range(6000, 50_000)),
        holdout=rows.select(range(5000, 6000)),
        output_dir="cifar100-rad",
        budget=5000,
        rounds=5,
        args=SoftLabelTrainingArguments(
            "cifar100-rad", num_train_epochs=60, per_device_train_batch_size=128, learning_rate=1e-3, bf16=True
        ),
        eval_dataset=data["test"],
    )
    loop.run()
    print(loop.history)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["small", "full"], default="small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, help="processes of one thread each; default: the number of cores")
    arguments = parser.parse_args()
    if arguments.preset == "full":
        return full()
    places = ["Fashion-MNIST (Debian package)", "digits (scikit-learn)"]
    record = harness.Experiment("robust_active_distillation", datasets=places)
    start = time.process_time()
    choice, scores = tune()
    spent = time.process_time() - start
    runs = harness.run_tasks(one_seed, [(seed, choice) for seed in arguments.seeds], arguments.workers)
    errors = fill(record, runs, arguments.seeds)
    rate = ", ".join(f"{name} {100 * value:.1f} %" for name, value in errors.items())
    record.notes += [
        f"Fashion-MNIST: {LABELED} labelled rows, pool of {POOL}, {ROUNDS} rounds of {BUDGET} questions, "
        f"{TEST} test rows.",
        f"Digits: 30 labelled rows, pool of 1047, {ROUNDS} rounds of 50 questions, 600 test rows.",
        f"Wrong on the pool, mean over seeds: {rate}. The weak teacher has seen {TEACHER_ROWS} labels, that of the "
        "digits 60.",
        f"The student, a softmax trained anew in every round, is the best of {len(scores)} on {DEV_ROWS} training "
        f"images of Fashion-MNIST (seeds {', '.join(map(str, DEV_SEEDS))}, true labels, no queries): {choice}, "
        f"{100 * max(scores.values()):.1f} % (worst {100 * min(scores.values()):.1f} %). Pixels for the digits.",
        "The held-out rows (60) that RAD's error estimate needs with the two networks are not part of the budget.",
        "wrong_query_rate: share of wrong labels among all that were bought; lower is better.",
    ]
    spent += sum(run["cpu"] for run in runs)
    path = record.write(processor_time_s=round(spent, 1), tuning={"chosen": choice, "dev_accuracy": scores})
    harness.plot(record.rows, "accuracy", Path(path).with_suffix(".png"))
    for metric in ("accuracy", "area under the curve", "wrong_query_rate"):
        print(harness.columns(harness.table_cells(record.rows, metric)), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)))


if __name__ == "__main__":
    main()
