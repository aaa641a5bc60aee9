"""HeLlO on emoji: soft labels from a small adapter instead of a file, accuracy against bytes.

    python examples/hello.py                       # about five minutes of one core
    python examples/hello.py --preset full         # ImageNet-100 and CLIP ViT-B/32: needs a GPU and the Hub

A small CLIP is pre-trained on Google's drawings of emoji and their names (once, minutes; kept in the cache). The task:
the nine categories of the emoji that Twitter drew. A teacher is trained on 1 156 of them, ten images per class are
distilled from those, and a student learns from these 90 images alone, with labels of several kinds and sizes.
"""

import argparse
import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from emoji_clip.tasks import Task, task

import harness

HARD = "hard labels"
ZERO = "zero-shot projector"
LORA = "LoRA projector (HeLlO)"
LORA_KL = "LoRA projector, KL"
SHUFFLED = "LoRA projector, classes permuted"
DENSE = "stored dense float16"
TOP = {k: f"stored top-{k}, 8 bits" for k in (1, 2, 4)}
KINDS = {LORA: "method", ZERO: "ablation", LORA_KL: "ablation", SHUFFLED: "control"}

SCALE = (0.5, 1.0)  # area of the student's crops: 1 / factor to 1


def settings_of(folder: str | Path, **options: Any) -> dict[str, Any]:
    """Training arguments of all runs here."""
    silent = {"disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no", "dataloader_pin_memory": False}
    return {"output_dir": str(folder), "lr_scheduler_type": "cosine", "weight_decay": 0.01} | silent | options


def views(work: Task, scale: tuple[float, float] = SCALE) -> Any:
    """Random crops and flips. Tiles are not shuffled: stored crops know no shuffling, and all rows see one kind."""
    from hf_labels.data.hello_views import DistilledCollator

    return DistilledCollator(work.settings["side"], work.normalizer, factor=1, scale=scale)


def fit(trainer: Any) -> Any:
    """Train without a line per run."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer.accelerator.unwrap_model(trainer.model).eval()


def logits_of(model: Any, data: Any, collate: Any) -> Any:
    """Logits and labels of all rows, on one view each."""
    import torch

    found, labels = [], []
    for start in range(0, len(data), 250):
        batch = collate([data[i] for i in range(start, min(start + 250, len(data)))])
        with torch.no_grad():
            found.append(model(pixel_values=batch["pixel_values"].to(next(model.parameters()).device)).logits.cpu())
        labels.append(batch["labels"])
    return torch.cat(found), torch.cat(labels)


def accuracy(work: Task, model: Any, data: Any) -> float:
    """Share of right answers on whole images."""
    logits, labels = logits_of(model, data, views(work).evaluation_collator)
    return float((logits.argmax(-1) == labels).double().mean())


def kl_on_views(work: Task, model: Any, teacher: Any, data: Any) -> float:
    """KL divergence of a projector from the teacher on random views of images that neither has seen."""
    import torch

    from hf_labels.losses.soft_targets import soft_cross_entropy

    answers = []
    for network in (model, teacher):
        torch.manual_seed(0)  # the same views
        answers.append(logits_of(network, data, views(work))[0])
    return float(soft_cross_entropy(answers[0], answers[1], divergence="kl", targets_are_logits=True))


def train_teachers(work: Task, seed: int, folder: Path) -> list[Any]:
    """Nine checkpoints of one run on the real images; the last is the teacher."""
    from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments
    from hf_labels.trainers.hello import weak_teachers

    chosen = work.settings
    batch, epochs, count = chosen["real_batch"], chosen["teacher_epochs"], chosen["teachers"]
    steps = epochs * -(-len(work.train) // batch)
    options = {"save_strategy": "steps", "save_steps": max(1, steps // count), "save_only_model": True, "seed": seed}
    options |= {
        "per_device_train_batch_size": batch,
        "num_train_epochs": epochs,
        "learning_rate": chosen["teacher_rate"],
    }
    args = LabelTrainingArguments(**settings_of(folder, **options))
    fit(LabelTrainer(work.network(seed), args, views(work, (0.35, 1.0)), train_dataset=work.train))
    return [model.eval() for model in weak_teachers(folder, count)]


def zero_shot(work: Task) -> Any:
    """The projector before training."""
    from hf_labels.models.hello import LabelProjector

    known = work.clip if isinstance(work.clip, str) else "emoji-clip"
    return LabelProjector.from_clip(work.clip, work.words, work.prompt, clip_id=known)


def train_projector(work: Task, teachers: list[Any], seed: int, folder: Path) -> Any:
    """LoRA on the real images, towards the mean logits of the weak teachers; the adapter is saved."""
    import torch
    from peft import get_peft_model

    from hf_labels.models.hello_adapter import hello_lora_config
    from hf_labels.trainers.hello import ProjectorTrainer, ProjectorTrainingArguments

    chosen = work.settings
    torch.manual_seed(seed)
    base = zero_shot(work)
    model = get_peft_model(base, hello_lora_config(base, chosen["rank"], target_modules=chosen["targets"]))
    options = {"per_device_train_batch_size": chosen["real_batch"], "num_train_epochs": chosen["projector_epochs"]}
    options |= {"learning_rate": chosen["projector_rate"], "hard_label_weight": chosen["lam"], "seed": seed}
    args = ProjectorTrainingArguments(**settings_of(folder / "run", **options))
    collate = views(work, (0.35, 1.0))
    trainer = ProjectorTrainer(model, args, collate, train_dataset=work.train, teachers=teachers)
    fitted = fit(trainer)
    trainer.save_model(str(folder / "adapter"))
    return fitted


def stores(work: Task, teacher: Any, distilled: Any, seed: int) -> dict[str, Any]:
    """The teacher's labels of every view, stored: dense, and the k largest in 8 bits."""
    import torch

    from hf_labels.data.images import RandomResizedCrop
    from hf_labels.data.soft_label_info import StoreInfo
    from hf_labels.data.soft_label_store import SoftLabelStore

    crop, hot = RandomResizedCrop(work.settings["side"], SCALE), work.settings["temperature"]
    dense = SoftLabelStore.build(
        teacher,
        distilled,
        views=work.settings["views"],
        crop=crop,
        image_processor=work.normalizer,
        kind="dense",
        value_space="logit",
        temperature=hot,
        batch_size=500,
        seed=seed,
    )
    found = {DENSE: dense}
    rows = next(dense.iter_batches(len(dense)))
    shared = {"views_per_example": work.settings["views"], "has_crops": True, "has_labels": True, "temperature": hot}
    shared |= {"id2label": dense.info.id2label, "image_size": work.settings["side"], "interpolation": "bilinear"}
    answers = {"logits": torch.from_numpy(rows["dense_values"].astype("float32")), "views": rows["view"].tolist()}
    answers |= {"labels": rows["label"].tolist(), "crops": rows["crop"], "flips": rows["flip"]}
    for k, name in TOP.items():
        info = StoreInfo("topk", dense.info.num_labels, k=k, codec="u8_log", **shared)
        found[name] = SoftLabelStore.from_arrays(info, example_ids=rows["example_id"].tolist(), **answers)
    return found


def student(work: Task, distilled: Any, seed: int, **how: Any) -> Any:
    """A student on the distilled images: `store`, or `source` (a projector), or neither (hard labels)."""
    from hf_labels.data.soft_label_collator import SoftLabelCollator
    from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments
    from hf_labels.trainers.soft_labels import SoftLabelTrainer, SoftLabelTrainingArguments

    chosen = work.settings
    options = {"per_device_train_batch_size": chosen["batch"], "num_train_epochs": chosen["views"], "seed": seed}
    options |= {"learning_rate": chosen["rate"]}
    store, source = how.get("store"), how.get("source")
    model = work.network(1000 + seed)
    with tempfile.TemporaryDirectory() as folder:
        if store is None and source is None:
            plain = LabelTrainingArguments(**settings_of(folder, **options))
            return fit(LabelTrainer(model, plain, views(work), train_dataset=distilled))
        soft = {"soft_loss": how.get("loss", "kl"), "hard_label_weight": chosen["beta"]}
        if soft["soft_loss"] == "kl":
            soft |= {"temperature": chosen["temperature"], "scale_by_temperature": True}
        args = SoftLabelTrainingArguments(**settings_of(folder, **options, **soft))
        collate = views(work)
        if store is not None:
            collate = SoftLabelCollator(store, work.normalizer, dense=store.info.kind == "dense", seed=seed)
        trainer = SoftLabelTrainer(model, args, collate, train_dataset=distilled, label_source=source)
        return fit(trainer)


def byte_report(work: Task, folder: Path, found: dict[str, Any], images: int) -> dict[str, dict[str, float]]:
    """Bytes of the labels of each row, from real files and buffers."""
    from hf_labels.data.soft_label_report import label_storage_report
    from hf_labels.data.soft_label_store import SoftLabelStore

    classes = len(work.words)
    out: dict[str, dict[str, float]] = {HARD: {"labels": 2.0 * images, "crops": 0.0}}
    for name, store in found.items():
        report = label_storage_report(store)
        out[name] = {"labels": report["label_bytes"], "crops": report["view_bytes"]}
    projector = SoftLabelStore.from_projector("me/projector", classes)
    size = label_storage_report(projector, folder / "adapter")["file_bytes"]
    out[LORA] = {"labels": size, "crops": 0.0, "with CLIP": size + work.clip_bytes}
    words = len(str(work.words).encode()) + len(work.prompt.encode())
    out[ZERO] = {"labels": words, "crops": 0.0, "with CLIP": words + work.clip_bytes}
    return out


def permuted(projector: Any, seed: int) -> Any:
    """A label source whose classes are another permutation: as many bits per label, about nothing."""
    import numpy as np
    import torch

    order = torch.from_numpy(np.random.default_rng(seed).permutation(projector.config.num_labels))

    class Permuted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.projector = projector

        def forward(self, pixel_values: Any) -> Any:
            return self.projector(pixel_values=pixel_values).logits[:, order]

    return Permuted()


def one_run(job: tuple[str, int, str]) -> dict[str, Any]:
    """All rows of one seed, scored on `part` ("dev" while tuning): row -> metric -> value."""
    from hf_labels.data.hello import distill_images

    preset, seed, part = job
    quiet()
    work = task(preset)
    chosen, judge = work.settings, getattr(work, part)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        teachers = train_teachers(work, seed, folder / "teacher")
        teacher, plain = teachers[-1], zero_shot(work)
        tuned = train_projector(work, teachers, seed, folder)
        update = {
            "encoder": tuned,
            "encoder_normalizer": work.normalizer,
            "image_update_steps": chosen["update_steps"],
        }
        distilled = distill_images(
            work.train,
            lambda batch: teacher(**batch),
            chosen["ipc"],
            chosen["factor"],
            size=chosen["side"],
            image_processor=work.normalizer,
            seed=seed,
            **(update if chosen["update_steps"] else {}),
        )
        stored = stores(work, teacher, distilled, seed)
        sizes = byte_report(work, folder, stored, len(distilled))
    ways: dict[str, dict[str, Any]] = {HARD: {}, ZERO: {"source": plain, "loss": "mse"}}
    ways |= {LORA: {"source": tuned, "loss": "mse"}, LORA_KL: {"source": tuned}}
    ways |= {SHUFFLED: {"source": permuted(tuned, seed), "loss": "mse"}}
    ways |= {name: {"store": store} for name, store in stored.items()}
    found: dict[str, dict[str, float]] = {}
    for name, how in ways.items():
        found[name] = {"accuracy": accuracy(work, student(work, distilled, seed, **how), judge)}
    for name, projector in ((ZERO, plain), (LORA, tuned)):
        found[name]["projector accuracy"] = accuracy(work, projector, judge)
        found[name]["projector KL"] = kl_on_views(work, projector, teacher, judge)
    return {"rows": found, "bytes": sizes, "teacher": accuracy(work, teacher, judge)}


def plot(record: Any, sizes: dict[str, dict[str, float]], path: Path) -> None:
    """Accuracy of the student against the bytes of its labels."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.2))
    rows = {row["name"]: row for row in record.rows if row["metric"] == "accuracy"}
    for name, size in sizes.items():
        style = {"marker": "D" if name == LORA else "o", "capsize": 3, "linestyle": "none"}
        axis.errorbar(size["labels"], rows[name]["mean"], yerr=rows[name]["stderr"], label=name, **style)
    axis.set_xscale("log")
    axis.set_xlabel("bytes of the labels (without CLIP, crops and images)")
    axis.set_ylabel("accuracy of the student")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def byte_cells(record: Any, sizes: dict[str, dict[str, float]]) -> list[list[str]]:
    """Cells of the table of accuracy against bytes; the first line is the head."""
    rows = {row["name"]: row for row in record.rows if row["metric"] == "accuracy"}
    lines = [["labels", "bytes", "with crops", "with CLIP", "accuracy"]]
    for name, size in sorted(sizes.items(), key=lambda item: item[1]["labels"]):
        row, clip = rows[name], size.get("with CLIP")
        shown = [
            f"{size['labels']:.0f}",
            f"{size['labels'] + size['crops']:.0f}",
            "-" if clip is None else f"{clip:.0f}",
        ]
        lines.append([name, *shown, f"{row['mean']:.3f} +- {row['stderr']:.3f}"])
    return lines


def quiet() -> None:
    """No warnings and bars of single runs: the harness shows one bar."""
    import datasets
    import transformers

    warnings.filterwarnings("ignore")
    logging.getLogger("hf_labels").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("small", "full"), default="small")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0 (default: 5)")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one per core)")
    parser.add_argument("--output", default=None, help="result file (default: examples/results/hello.json)")
    args = parser.parse_args(argv)
    quiet()
    work, seeds = task(args.preset), list(range(args.seeds))
    name = "emoji of Twitter, 9 categories" if args.preset == "small" else "ImageNet-100"
    record = harness.Experiment("hello", [name], notes=NOTES if args.preset == "small" else ())
    runs = harness.run_tasks(one_run, [(args.preset, seed, "test") for seed in seeds], args.workers)
    setting = f"{name}, {work.settings['ipc']} images per class"
    for row in runs[0]["rows"]:
        for metric in runs[0]["rows"][row]:
            values = [run["rows"][row][metric] for run in runs]
            record.add(row, setting, metric, values, seeds, KINDS.get(row, "baseline"))
    record.add("teacher, all real images", setting, "accuracy", [run["teacher"] for run in runs], seeds, "baseline")
    for rival in (HARD, ZERO, LORA_KL, SHUFFLED, DENSE, *TOP.values()):
        record.compare(LORA, rival, setting, "accuracy")
    record.compare(DENSE, HARD, setting, "accuracy")
    record.compare(LORA, ZERO, setting, "projector KL", higher_is_better=False)
    sizes = runs[0]["bytes"]
    path = record.write(args.output, bytes=sizes, clip_bytes=work.clip_bytes, settings=work.settings)
    plot(record, sizes, path.with_suffix(".png"))
    print(harness.columns(byte_cells(record, sizes)), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)), end=f"\n\nwritten: {os.path.relpath(path)}\n")


NOTES = (
    "A small CLIP was pre-trained on Google's drawings of emoji and their names; the task is the nine categories "
    "of the drawings by Twitter, 10 images per class distilled from 1 156.",
    "All students see 50 epochs of crops of the same 90 images; the stored labels hold one answer of the teacher "
    "for each of these 4 500 views, the projector makes its answers anew.",
    "Bytes of labels do not count images, crops or CLIP, which is taken to be there already; the table of the "
    "example shows them apart. With nine classes stored labels are small: their size grows with classes times "
    "views, that of the adapter with neither.",
    "Settings were chosen on the dev images.",
)

if __name__ == "__main__":
    main()
