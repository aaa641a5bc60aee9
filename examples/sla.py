"""SLA on 300 labelled digits: joint labels of class and rotation against plain training and data augmentation.

    python examples/sla.py                  # MNIST digits and Fashion-MNIST, a small ResNet, no Hub
    python examples/sla.py --preset full    # CIFAR-100, ResNet-18 from scratch; needs the Hub and a GPU

Rotating digits confuses 6 and 9: data augmentation, which asks for one answer to all rotations, must suffer, and SLA
need not. All runs of one seed share the images, the order of the batches and the first weights of the backbone. SLA
passes M times as many rows through the network per step, so plain training with M times the steps is shown too. The
learning rate is tuned for each on dev images with a seed of its own; test images are read once, at the end.
"""

import argparse
import functools
import logging
import tempfile
import time
import warnings
from dataclasses import dataclass
from typing import Any

import harness

PLAIN, LONGER, DA, MT = "plain training", "plain training, 4 times the steps", "rotated images (DA)", "two tasks (MT)"
SI, AG, SD = "SLA, single inference", "SLA, aggregated (AG)", "SLA, self-distilled (SD)"
DA_MEAN = "rotated images (DA), mean over rotations"
SD_AG = "SLA+SD, aggregated"
# What is trained -> (mode, self-distillation, factor of the steps)
RUNS: dict[str, tuple[str, bool, int]] = {
    PLAIN: ("baseline", False, 1),
    LONGER: ("baseline", False, 4),
    DA: ("da", False, 1),
    MT: ("mt", False, 1),
    SI: ("sla", False, 1),
    SD: ("sla", True, 1),
}
MEANS = {DA: DA_MEAN, SI: AG, SD: SD_AG}  # the same model, all transformations at test time
KINDS = {
    SI: "ablation",
    AG: "method",
    SD: "method",
    SD_AG: "ablation",
    DA: "control",
    DA_MEAN: "control",
    MT: "control",
}
TUNING_SEED = 100


@dataclass(frozen=True)
class Preset:
    """Sizes of one experiment."""

    corpora: tuple[str, ...]
    labelled: int
    test: int
    steps: int
    batch: int
    rates: tuple[float, ...]
    transform: str = "rotation"


PRESETS = {
    "small": Preset(("MNIST digits", "Fashion-MNIST"), 300, 2000, 200, 64, (0.1, 0.3)),
    "full": Preset(("CIFAR-100",), 0, 0, 80_000, 128, (0.1,)),
}


@functools.cache
def corpus(name: str) -> tuple[Any, Any, list[str]]:
    """All images as float tensors (rows, C, H, W) with mean 0 and deviation 1, their labels, and the class names."""
    import numpy as np
    import torch

    from hf_labels.data import offline_images as offline

    if name == "CIFAR-100":
        from datasets import concatenate_datasets, load_dataset

        parts = load_dataset("uoft-cs/cifar100")
        data = concatenate_datasets([parts["train"], parts["test"]]).rename_columns(
            {"img": "image", "fine_label": "labels"}
        )
        pixels = torch.from_numpy(offline.pixels(data)).permute(0, 3, 1, 2).float()
    else:
        data = offline.load_mnist_5k() if name == "MNIST digits" else offline.load_fashion_mnist("test")
        pixels = torch.from_numpy(offline.pixels(data)).float()[:, None]
        pixels = torch.nn.functional.avg_pool2d(pixels, 2)  # 14 x 14: a seed takes seconds
    mean, deviation = pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True)
    labels = torch.from_numpy(np.array(data["labels"][:]))
    return (pixels - mean) / deviation, labels, data.features["labels"].names


def split(name: str, preset: Preset, seed: int) -> dict[str, Any]:
    """Rows of training, dev and test. Test rows are the same for all seeds; the others are drawn anew."""
    import numpy as np

    rows = len(corpus(name)[0])
    if not preset.labelled:
        return {"train": np.arange(45_000), "dev": np.arange(45_000, 50_000), "test": np.arange(50_000, rows)}
    order = np.random.default_rng(0).permutation(rows)
    rest = np.random.default_rng([1, seed]).permutation(order[preset.test :])
    return {
        "train": rest[: preset.labelled],
        "dev": rest[preset.labelled : 3 * preset.labelled],
        "test": order[: preset.test],
    }


def backbone(channels: int, full: bool) -> Any:
    """ResNet-18 with a 3 x 3 stem and no pooling, or a small one of three stages of one block."""
    from transformers import AutoConfig, ResNetConfig

    if full:
        return AutoConfig.from_pretrained("microsoft/resnet-18")
    return ResNetConfig(
        num_channels=channels, embedding_size=12, hidden_sizes=[12, 24, 24], depths=[1, 1, 1], layer_type="basic"
    )


def train(what: str, name: str, preset: Preset, rate: float, seed: int) -> Any:
    """One trained model."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback, set_seed

    from hf_labels.models.sla import SLAConfig, SLAForImageClassification
    from hf_labels.trainers.sla import SLATrainer, SLATrainingArguments

    mode, distilled, times = RUNS[what]
    pixels, labels, names = corpus(name)
    rows = split(name, preset, seed)["train"]
    full, steps = not preset.labelled, preset.steps * times
    settings = {"transform": preset.transform, "mode": mode, "self_distillation": distilled}
    set_seed(seed)
    model = SLAForImageClassification(
        SLAConfig.from_backbone(
            backbone(pixels.shape[1], full), len(names), id2label=dict(enumerate(names)), **settings
        )
    )
    data: Any = Dataset.from_dict({"row": rows.tolist(), "labels": labels[rows].tolist()})
    generator = torch.Generator().manual_seed(seed)

    def read(batch: dict[str, list[int]]) -> dict[str, Any]:
        images = pixels[batch["row"]]
        if full:  # crop and flip before the transformations
            padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
            top, left = (int(n) for n in torch.randint(0, 9, (2,), generator=generator))
            images = padded[:, :, top : top + images.shape[2], left : left + images.shape[3]]
            images = images.flip(3) if torch.rand(1, generator=generator) < 0.5 else images
        return {"pixel_values": list(images), "labels": batch["labels"]}

    with tempfile.TemporaryDirectory() as folder:
        args = SLATrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=preset.batch,
            learning_rate=rate,
            lr_scheduler_type="cosine",
            optim="sgd",
            optim_args="momentum=0.9,nesterov=true",
            weight_decay=1e-4,
            max_grad_norm=0.0,
            seed=seed,
            use_cpu=not full,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = SLATrainer(model, args, train_dataset=data.with_transform(read))
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return trainer.bare_model.eval()


def accuracy(model: Any, name: str, rows: Any, aggregated: bool) -> float:
    """Share of right answers, of one forward pass or of all transformations."""
    import torch

    pixels, labels, _ = corpus(name)
    right = 0
    with torch.no_grad():
        for part in torch.as_tensor(rows).split(500):
            batch = pixels[part].to(model.device)
            logits = model.predict_aggregated(batch) if aggregated else model(batch).logits
            right += int((logits.argmax(1).cpu() == labels[part]).sum())
    return right / len(rows)


def one_run(task: tuple[str, str, str, float, int, bool]) -> dict[str, float]:
    """Train and measure: on dev images when tuning, else on test images."""
    what, name, preset_name, rate, seed, tuning = task
    quiet()
    preset, clock = PRESETS[preset_name], time.process_time()
    model = train(what, name, preset, rate, seed)
    rows = split(name, preset, seed)["dev" if tuning else "test"]
    found = {what: accuracy(model, name, rows, False)}
    if what in MEANS:
        found[MEANS[what]] = accuracy(model, name, rows, True)
    return found | {"seconds": time.process_time() - clock}


def quiet() -> None:
    """No warnings and bars of single runs."""
    import datasets
    import transformers

    warnings.filterwarnings("ignore")
    logging.getLogger("hf_labels").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()


def tune(preset_name: str, workers: int | None) -> dict[str, dict[str, dict[str, float]]]:
    """Dev accuracy of every run and learning rate on each corpus (of SLA: aggregated), one seed."""
    preset = PRESETS[preset_name]
    tasks = [
        (what, name, preset_name, rate, TUNING_SEED, True)
        for name in preset.corpora
        for what in RUNS
        if what != LONGER  # as plain training
        for rate in preset.rates
    ]
    runs = harness.run_tasks(one_run, tasks, workers)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (what, name, _, rate, _, _), run in zip(tasks, runs, strict=True):
        score = run[AG] if what == SI else run[what]
        found.setdefault(name, {}).setdefault(what, {})[str(rate)] = score
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, help="processes of one thread each; default: the number of cores")
    arguments = parser.parse_args()
    preset, seeds = PRESETS[arguments.preset], arguments.seeds
    workers = arguments.workers if preset.labelled else 1
    record = harness.Experiment("sla", datasets=list(preset.corpora))
    tuning = tune(arguments.preset, workers)
    best = {
        name: {what: float(max(scores, key=lambda rate: scores[rate])) for what, scores in own.items()}
        for name, own in tuning.items()
    }
    for own in best.values():
        own[LONGER] = own[PLAIN]
    tasks = [
        (what, name, arguments.preset, best[name][what], seed, False)
        for name in preset.corpora
        for what in RUNS
        for seed in seeds
    ]
    results = harness.run_tasks(one_run, tasks, workers)
    for name in preset.corpora:
        setting = f"{name}, {preset.labelled or 'all'} labels"
        for what in RUNS:
            runs = [run for task, run in zip(tasks, results, strict=True) if task[:2] == (what, name)]
            for key in (what, *([MEANS[what]] if what in MEANS else [])):
                record.add(key, setting, "accuracy", [run[key] for run in runs], seeds, KINDS.get(key, "baseline"))
        pairs = [(AG, PLAIN), (AG, LONGER), (SD, PLAIN), (SD, LONGER), (SI, PLAIN), (DA, PLAIN), (MT, PLAIN)]
        for one, two in [*pairs, (AG, DA_MEAN)]:
            record.compare(one, two, setting, "accuracy")
    record.notes += notes(preset, best)
    seconds = sum(run["seconds"] for run in results)
    path = record.write(
        None if arguments.preset == "small" else harness.RESULTS / f"sla_{arguments.preset}.json",
        tuning_dev_accuracy=tuning,
        learning_rates=best,
        processor_time_s=round(seconds, 1),
    )
    picture(record.rows, path.with_suffix(".png"))
    print(harness.columns(harness.table_cells(record.rows, "accuracy")), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)), f"\n\n{path.name}")


def picture(rows: list[dict[str, Any]], path: Any) -> None:
    """One panel per corpus: every seed as a dot, the mean and its standard error, plain training as a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = {"method": "tab:blue", "ablation": "tab:cyan", "control": "tab:orange", "baseline": "tab:gray"}
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    figure, axes = plt.subplots(1, len(settings), figsize=(5 * len(settings), 4), sharey=True, squeeze=False)
    for axis, setting in zip(axes[0], settings, strict=True):
        own = [row for row in rows if row["setting"] == setting][::-1]
        for place, row in enumerate(own):
            colour = colours[row["kind"]]
            axis.plot(row["values"], [place] * row["seeds"], ".", color=colour, alpha=0.4)
            axis.errorbar(row["mean"], place, xerr=row["stderr"], fmt="o", capsize=3, color=colour)
        axis.axvline(next(row["mean"] for row in own if row["name"] == PLAIN), color="black", lw=0.8, ls=":")
        axis.set_yticks(range(len(own)), [row["name"] for row in own])
        axis.set_title(setting)
        axis.set_xlabel("accuracy")
        axis.grid(alpha=0.3, axis="x")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def notes(preset: Preset, best: dict[str, dict[str, float]]) -> list[str]:
    """What a reader must know."""
    rates = "; ".join(
        f"{name}: " + ", ".join(f"{what} {rate:g}" for what, rate in own.items()) for name, own in best.items()
    )
    return [
        f"{preset.steps} steps of {preset.batch} images ({preset.batch} x 4 rows for all but plain training), a "
        f"ResNet of three basic blocks, images of 14 x 14. Test: {preset.test} images that no seed trains on.",
        "Aggregated rows spend four passes per test image, all others one.",
        f"Learning rates, tuned on dev images with one seed. {rates}.",
    ]


if __name__ == "__main__":
    main()
