"""RAD against margin, entropy, core set and random queries: clothes, a budget of answers, and a teacher that errs.

    python examples/robust_active_distillation.py                 # Fashion-MNIST, a linear student; no Hub
    python examples/robust_active_distillation.py --preset full   # CIFAR-100, ViT teacher, ResNet-18 student; Hub, GPU

Two teachers. `weak`: a network that has seen few labels; its error rate is estimated on 60 held-out labels. `planted`:
the truth, but wrong on the 20 % of the pool that a well trained network finds hardest; the share is told. The student
is a softmax on frozen features (64 principal components of the pixels, found without labels) and starts anew in every
round. All strategies of one seed share data, teacher, first student and budget. The student's features, steps and
learning rate were chosen on training images, without any queries. Writes its result file and a
picture of the curves.
"""

import argparse
import contextlib
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import harness

RAD, HALF = "RAD", "RAD, wrong answers worth 0"
STRATEGIES = {RAD: "method", HALF: "ablation", "margin": "baseline", "entropy": "baseline"}
STRATEGIES |= {"coreset": "baseline", "uniform": "control"}
TEACHERS = ("weak teacher", "planted errors")
LABELED, HELD, POOL, TEACHER_ROWS, TEST = 60, 60, 1500, 150, 2000
BUDGET, ROUNDS, PLANTED = 60, 4, 0.2
STEPS, RATE = 60, 0.03


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


def world(seed: int) -> dict[str, Any]:
    """Features and labels of every part, the answers of both teachers on pool and held-out rows."""
    from sklearn.decomposition import PCA
    from sklearn.neural_network import MLPClassifier

    from hf_labels.data.offline_images import load_fashion_mnist, pixels

    def read(split: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        data = load_fashion_mnist(split).select(rows.tolist())
        return pixels(data).reshape(len(rows), -1).astype(np.float32) / 255, np.asarray(data["labels"][:])

    rng = np.random.default_rng(seed)
    sizes = np.cumsum([LABELED, HELD, POOL, TEACHER_ROWS])
    images, labels = read("train", rng.permutation(60_000)[: sizes[-1] + 3000])
    test_images, test_labels = read("test", rng.permutation(10_000)[:TEST])
    names = ("labeled", "held", "pool", "teacher", "strong")
    parts = dict(zip(names, np.split(np.arange(len(images)), sizes), strict=True))
    pca = PCA(64, random_state=0).fit(images[parts["pool"]])
    scale = pca.transform(images[parts["pool"]]).std()

    def features(rows: np.ndarray) -> np.ndarray:
        return (pca.transform(rows) / scale).astype(np.float32)

    found: dict[str, Any] = {name: (features(images[rows]), labels[rows]) for name, rows in parts.items()}
    found["test"] = (features(test_images), test_labels)

    def network(rows: np.ndarray) -> Any:
        return MLPClassifier(64, max_iter=80, random_state=seed).fit(images[rows], labels[rows])

    weak, strong = network(parts["teacher"]), network(parts["strong"])
    asked = ("pool", "held")
    found["weak teacher"] = {name: weak.predict_proba(images[parts[name]]) for name in asked}
    sure = strong.predict_proba(images[parts["pool"]])
    truth = labels[parts["pool"]]
    hardest = np.argsort(sure[np.arange(POOL), truth])[: int(PLANTED * POOL)]
    said = truth.copy()
    others = sure.copy()
    others[np.arange(POOL), truth] = -1
    said[hardest] = others[hardest].argmax(1)  # the mistake that the network itself would make
    found["planted errors"] = {"pool": 0.9 * np.eye(10)[said] + 0.01}
    return found


def as_dataset(features: np.ndarray, labels: np.ndarray) -> Any:
    """Columns `pixel_values` and `labels`."""
    from datasets import Dataset

    return Dataset.from_dict({"pixel_values": features, "labels": labels.tolist()}).with_format("numpy")


def one_loop(name: str, which: str, seed: int, here: dict[str, Any]) -> list[dict[str, Any]]:
    """History of one strategy with one teacher."""
    from hf_labels.trainers.robust_active_distillation import ActiveDistillation
    from hf_labels.trainers.soft_labels import SoftLabelTrainingArguments

    answers: dict[bytes, np.ndarray] = {}
    for part, probs in here[which].items():
        rows = here[part][0]
        answers |= {row.tobytes(): answer for row, answer in zip(rows, probs, strict=True)}

    def teacher(batch: dict[str, Any]) -> list[np.ndarray]:
        return [answers[np.asarray(row, np.float32).tobytes()] for row in batch["pixel_values"]]

    strategy = "rad" if name in (RAD, HALF) else name
    told: dict[str, Any] = {"teacher_error": PLANTED}
    if which == TEACHERS[0]:
        told = {"holdout": as_dataset(*here["held"])}
    with tempfile.TemporaryDirectory() as folder:
        args = SoftLabelTrainingArguments(
            folder,
            max_steps=STEPS,
            per_device_train_batch_size=128,
            per_device_eval_batch_size=2000,
            learning_rate=RATE,
            lr_scheduler_type="linear",
            seed=seed,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
        )
        loop = ActiveDistillation(
            lambda: student(64, 10),
            teacher,
            as_dataset(*here["labeled"]),
            as_dataset(*here["pool"]),
            output_dir=folder,
            budget=BUDGET,
            rounds=ROUNDS,
            strategy=strategy,
            wrong_reward=0.0 if name == HALF else -1.0,
            args=args,
            eval_dataset=as_dataset(*here["test"]),
            compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(1) == p.label_ids).mean())},
            seed=seed,
            **(told if strategy == "rad" else {}),
        )
        with contextlib.redirect_stdout(None):
            loop.run()
    return loop.history + [{"area": loop.area()}]


def one_seed(seed: int) -> dict[str, Any]:
    """Curves of all strategies with both teachers."""
    harness.one_thread()
    import warnings

    import datasets
    import transformers

    warnings.filterwarnings("ignore", message="Stochastic Optimizer")  # enough steps for a teacher that errs
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("hf_labels").setLevel(logging.ERROR)
    start = time.process_time()
    here = world(seed)
    found: dict[str, Any] = {}
    for which in TEACHERS:
        truth = here["pool"][1]
        found[which] = {"error": float((here[which]["pool"].argmax(1) != truth).mean())}
        found[which] |= {name: one_loop(name, which, seed, here) for name in STRATEGIES}
    return {"curves": found, "cpu": time.process_time() - start}


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
            record.compare(RAD, other, f"{which}, {BUDGET * ROUNDS} queries", "accuracy")
            record.compare(RAD, other, f"{which}, whole curve", "area under the curve")
            record.compare(RAD, other, f"{which}, whole curve", "wrong_query_rate", higher_is_better=False)
    return errors


def full() -> None:
    """The paper's scale: CIFAR-100, 5 rounds of 5 000 queries."""
    from datasets import load_dataset
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    from hf_labels.trainers.robust_active_distillation import ActiveDistillation
    from hf_labels.trainers.soft_labels import SoftLabelTrainingArguments

    teacher = AutoModelForImageClassification.from_pretrained("Ahmed9275/Vit-Cifar100")
    processor = AutoImageProcessor.from_pretrained("microsoft/resnet-18", backend="pil")

    def prepare(batch: dict[str, Any]) -> dict[str, Any]:
        return {"pixel_values": processor([image.convert("RGB") for image in batch["img"]])["pixel_values"]}

    data = load_dataset("uoft-cs/cifar100").rename_column("fine_label", "labels").remove_columns("coarse_label")
    data = data.map(prepare, batched=True, remove_columns="img")
    rows = data["train"].shuffle(seed=0)
    loop = ActiveDistillation(
        lambda: AutoModelForImageClassification.from_pretrained(
            "microsoft/resnet-18", num_labels=100, ignore_mismatched_sizes=True
        ),
        teacher,
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
    record = harness.Experiment("robust_active_distillation", datasets=["Fashion-MNIST (Debian package)"])
    runs = harness.run_tasks(one_seed, arguments.seeds, arguments.workers)
    errors = fill(record, runs, arguments.seeds)
    rate = ", ".join(f"{name} {100 * value:.1f} %" for name, value in errors.items())
    record.notes += [
        f"{LABELED} labelled rows, pool of {POOL}, {ROUNDS} rounds of {BUDGET} questions, {TEST} test rows.",
        f"Wrong on the pool, mean over seeds: {rate}. The weak teacher has seen {TEACHER_ROWS} labels.",
        "The student is a softmax on 64 principal components, trained anew in every round.",
        "The held-out rows (60) that RAD's error estimate needs with the weak teacher are not part of the budget.",
        "wrong_query_rate: share of wrong labels among all that were bought; lower is better.",
    ]
    path = record.write(processor_time_s=round(sum(run["cpu"] for run in runs), 1))
    harness.plot(record.rows, "accuracy", Path(path).with_suffix(".png"))
    for metric in ("accuracy", "area under the curve", "wrong_query_rate"):
        print(harness.columns(harness.table_cells(record.rows, metric)), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)))


if __name__ == "__main__":
    main()
