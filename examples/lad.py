"""LAD on scenes of real digits: is a teacher that sees noised labels a better teacher than one that sees images?

    python examples/lad.py                  # two MNIST digits per scene under noise, a small CNN, no Hub
    python examples/lad.py --preset full    # ADE20K with SegFormer-B0; needs the Hub and a GPU

As in the paper a student is trained first (stage 0) and goes on from there, for as many steps again: with
cross-entropy alone, with channel-wise distillation from an image-only teacher of its own size (the fair control), or
from a LAD teacher. All rows of one seed share scenes, first weights and the order of the batches.

Three things are tuned, on dev scenes and with a seed of their own: the learning rate, on stage 0; the weight of the
consistency, on the LAD teacher's pixel accuracy with the fixed code; and the weight of the distillation, for each
teacher alike. The fixed codes span what they span on VOC. The paper's own weights and codes are rows of their own.
"""

import argparse
import copy
import functools
import logging
import tempfile
import time
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from digit_scenes import DIGITS, DilatedConfig, DilatedForSemanticSegmentation, scenes

import harness

START, MORE, KD, LAD = "stage 0", "cross-entropy alone", "CWD, image-only teacher", "CWD, LAD teacher"
KD_PAPER, LAD_PAPER = "CWD, image-only teacher, paper's weight", "CWD, LAD teacher, paper's settings"
IMAGE_TEACHER, LAD_TEACHER = "teacher, image only", "teacher, LAD (sees the label)"
PAPER_TEACHER = "teacher, LAD, paper's settings (sees the label)"
WRONG, NO_CODE = "teacher, LAD, wrong codes", "teacher, LAD, no code"
KINDS = {LAD: "method", LAD_PAPER: "method", KD: "control", KD_PAPER: "control", START: "baseline", MORE: "baseline"}
TUNING_SEED, OTHER = 100, 1000  # seed of the tuning; added to a seed for the teachers' first weights
PAPER = {"consistency_weight": 5.0, "code_step": 0.1, "distill_weight": 3.0}


@dataclass(frozen=True)
class Preset:
    """Sizes of one experiment."""

    scenes: int
    test: int
    noise: float
    width: int
    steps: int
    teacher_steps: int
    batch: int
    rates: tuple[float, ...]
    consistency: tuple[float, ...]
    weights: tuple[float, ...]
    code_step: float
    model: str = ""


PRESETS = {
    "small": Preset(600, 400, 0.6, 12, 400, 800, 16, (1e-2, 3e-2), (0.0, 0.5, 5.0), (0.1, 0.3, 3.0), 2.1 / 5),
    "full": Preset(0, 0, 0.0, 0, 40_000, 40_000, 16, (6e-5,), (5.0,), (3.0,), 0.1, model="nvidia/mit-b0"),
}


@functools.cache
def ade20k(part: str) -> Any:
    """ADE20K at 512 x 512 for the full preset."""
    from datasets import load_dataset
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained("nvidia/segformer-b0-finetuned-ade-512-512", do_reduce_labels=True)
    data = load_dataset("zhoubolei/scene_parse_150", split="train" if part == "train" else "validation")

    def read(batch: dict[str, list[Any]]) -> dict[str, Any]:
        images = [image.convert("RGB") for image in batch["image"]]
        return dict(processor(images, segmentation_maps=batch["annotation"], return_tensors="pt"))

    return data.with_transform(read)


def part_of(preset: Preset, part: str, seed: int) -> Any:
    """Training scenes are drawn anew for each seed; dev and test scenes are the same for all."""
    if preset.model:
        return ade20k(part)
    number = preset.scenes if part == "train" else preset.test
    return scenes(part, number, preset.noise, 10 + seed if part == "train" else {"dev": 1, "test": 2}[part])


def new_model(preset: Preset, seed: int) -> Any:
    """An untrained model of the seed."""
    from transformers import AutoModelForSemanticSegmentation, set_seed

    set_seed(seed)
    if preset.model:
        return AutoModelForSemanticSegmentation.from_pretrained(preset.model, num_labels=150)
    return DilatedForSemanticSegmentation(DilatedConfig(width=preset.width, num_labels=DIGITS + 1))


def fit(
    trainer_class: Any, model: Any, preset: Preset, seed: int, steps: int, rate: float, weights: Any, **options: Any
) -> Any:
    """A trainer after `train()`; `weights` are further arguments."""
    from transformers import PrinterCallback

    from hf_labels.trainers.lad import LADTrainingArguments

    with tempfile.TemporaryDirectory() as folder:
        args = LADTrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=preset.batch,
            per_device_eval_batch_size=100 if not preset.model else 8,
            learning_rate=rate,
            lr_scheduler_type="polynomial",
            lr_scheduler_kwargs={"power": 0.9, "lr_end": 0.0},
            seed=seed,
            use_cpu=not preset.model,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            **weights,
        )
        trainer = trainer_class(model, args, train_dataset=part_of(preset, "train", seed), **options)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    trainer.bare_model.eval()
    return trainer


def learn(
    preset: Preset, seed: int, model: Any, steps: int, rate: float, teacher: Any = None, weight: float = 0.0
) -> Any:
    """The trainer of a student, or of an image-only teacher, after training."""
    from hf_labels.trainers.lad import CWDDistillTrainer

    given = None if teacher is None else teacher.bare_model
    return fit(CWDDistillTrainer, model, preset, seed, steps, rate, {"distill_weight": weight}, teacher=given)


def teach(preset: Preset, seed: int, rate: float, consistency: float, code_step: float) -> Any:
    """The trainer of a LAD teacher after training."""
    from hf_labels.losses.lad import LabelNoiser
    from hf_labels.models.lad import add_input_channel
    from hf_labels.trainers.lad import LADTeacherTrainer

    generator = torch.Generator().manual_seed(OTHER + seed)
    model = add_input_channel(new_model(preset, OTHER + seed), generator=generator)
    noiser = LabelNoiser(model.config.num_labels, model.config.semantic_loss_ignore_index, code_step=code_step)
    weights = {"consistency_weight": consistency}
    return fit(LADTeacherTrainer, model, preset, seed, preset.teacher_steps, rate, weights, label_noiser=noiser)


def scores(trainer: Any, data: Any) -> dict[str, float]:
    """Mean IoU and pixel accuracy."""
    found = trainer.evaluate(data)
    return {"mean_iou": found["eval_mean_iou"], "accuracy": found["eval_overall_accuracy"]}


def tune(preset: Preset) -> tuple[dict[str, Any], dict[str, Any]]:
    """The best of each setting on dev scenes, and all dev scores. What has one option is not tuned."""
    quiet()
    data, seed = part_of(preset, "dev", 0), TUNING_SEED
    best: dict[str, Any] = {"rate": preset.rates[0], "consistency": preset.consistency[0]}
    best |= {KD: preset.weights[0], LAD: preset.weights[0]}
    if preset.model:
        return best, {}
    found: dict[str, Any] = {}
    starts = {rate: learn(preset, seed, new_model(preset, seed), preset.steps, rate) for rate in preset.rates}
    found["mean IoU of stage 0, by learning rate"] = {r: scores(t, data)["mean_iou"] for r, t in starts.items()}
    rate = best["rate"] = _best(found["mean IoU of stage 0, by learning rate"])
    labels = {c: teach(preset, seed, rate, c, preset.code_step) for c in preset.consistency}
    key = "accuracy of the LAD teacher, by weight of the consistency"
    found[key] = {c: scores(t, data)["accuracy"] for c, t in labels.items()}
    best["consistency"] = _best(found[key])
    images = learn(preset, seed, new_model(preset, OTHER + seed), preset.teacher_steps, rate)
    for name, teacher in ((KD, images), (LAD, labels[best["consistency"]])):
        own = {}
        for weight in preset.weights:
            student = copy.deepcopy(starts[rate].bare_model)
            own[weight] = scores(learn(preset, seed, student, preset.steps, rate / 3, teacher, weight), data)
        found[f"{name}: mean IoU by weight of the distillation"] = {w: s["mean_iou"] for w, s in own.items()}
        best[name] = _best(found[f"{name}: mean IoU by weight of the distillation"])
    return best, found


def _best(found: dict[float, float]) -> float:
    return max(found, key=lambda option: found[option])


def one_run(task: tuple[str, int, dict[str, Any]]) -> dict[str, Any]:
    """All rows of one seed, on test scenes."""
    quiet()
    preset_name, seed, best = task
    preset, clock, rate = PRESETS[preset_name], time.process_time(), best["rate"]
    test = part_of(preset, "test", seed)
    start = learn(preset, seed, new_model(preset, seed), preset.steps, rate)
    images = learn(preset, seed, new_model(preset, OTHER + seed), preset.teacher_steps, rate)
    labels = teach(preset, seed, rate, best["consistency"], preset.code_step)
    teachers = {IMAGE_TEACHER: images, LAD_TEACHER: labels}
    arms = {MORE: (None, 0.0), KD: (images, best[KD]), LAD: (labels, best[LAD])}
    if not preset.model:  # there they are the same
        teachers[PAPER_TEACHER] = teach(preset, seed, rate, PAPER["consistency_weight"], PAPER["code_step"])
        arms[KD_PAPER] = images, PAPER["distill_weight"]
        arms[LAD_PAPER] = teachers[PAPER_TEACHER], PAPER["distill_weight"]
    found: dict[str, Any] = {name: scores(trainer, test) for name, trainer in {START: start, **teachers}.items()}
    gap = labels.copy_gap(test)
    found |= {WRONG: {"mean_iou": gap["wrong_code"]}, NO_CODE: {"mean_iou": gap["no_code"]}}
    shown = {}
    for name, (teacher, weight) in arms.items():
        student = learn(preset, seed, copy.deepcopy(start.bare_model), preset.steps, rate / 3, teacher, weight)
        found[name] = scores(student, test)
        shown[name] = student
    views = {} if preset.model else what_they_see(test, labels, {"image-only teacher": images, "student": shown[LAD]})
    return found | {"seconds": time.process_time() - clock, "views": views}


@torch.no_grad()
def what_they_see(data: Any, teacher: Any, others: dict[str, Any], number: int = 4) -> dict[str, Any]:
    """Maps of the first scenes: the image, its label, both label channels, and what each model finds."""
    rows = data[:number]
    images, labels = torch.stack(rows["pixel_values"]), torch.stack(rows["labels"])
    noiser = teacher.label_noiser
    channels = [make(labels, torch.Generator().manual_seed(0)) for make in (noiser.random, noiser.fixed)]
    views = {"image": images[:, 0], "label": labels, "channel, training": channels[0][:, 0]}
    views |= {"channel, teaching": channels[1][:, 0]}
    views["LAD teacher"] = teacher.bare_model(torch.cat([images, channels[1]], 1)).logits.argmax(1)
    views |= {name: trainer.bare_model(images).logits.argmax(1) for name, trainer in others.items()}
    return {name: maps.numpy() for name, maps in views.items()}


def picture(views: dict[str, Any], path: Any) -> None:
    """One row per scene, one column per map."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    number = len(views["image"])
    figure, axes = plt.subplots(number, len(views), figsize=(2.2 * len(views), 1.25 * number), squeeze=False)
    for column, (name, maps) in enumerate(views.items()):
        classes = maps.dtype.kind == "i"
        look = {"cmap": "tab10", "vmin": 0, "vmax": 9} if classes else {"cmap": "gray"}
        for row, one in enumerate(maps):
            axes[row][column].imshow(one, interpolation="nearest", **look)
            axes[row][column].set_axis_off()
        axes[0][column].set_title(name, fontsize=9)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def quiet() -> None:
    """No warnings and bars of single runs."""
    import datasets
    import transformers

    warnings.filterwarnings("ignore")
    logging.getLogger("hf_labels").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, help="processes of one thread each; default: the number of cores")
    arguments = parser.parse_args()
    preset, seeds = PRESETS[arguments.preset], arguments.seeds
    workers = arguments.workers if not preset.model else 1
    record = harness.Experiment(
        "lad", datasets=["ADE20K" if preset.model else "scenes of two MNIST digits under noise"]
    )
    best, tuning = tune(preset)
    runs = harness.run_tasks(one_run, [(arguments.preset, seed, best) for seed in seeds], workers)

    def add(keys: Any, setting: str, metric: str) -> None:
        for key in keys:
            if key in runs[0]:
                record.add(key, setting, metric, [run[key][metric] for run in runs], seeds, KINDS.get(key, "control"))

    for metric in ("mean_iou", "accuracy"):
        add((START, MORE, KD, LAD, KD_PAPER, LAD_PAPER), "students", metric)
        add((IMAGE_TEACHER, LAD_TEACHER, PAPER_TEACHER), "teachers", metric)
    add((WRONG, NO_CODE), "teachers", "mean_iou")
    students = [(LAD, KD), (LAD, MORE), (KD, MORE), (LAD, START), (LAD_PAPER, KD_PAPER), (LAD_PAPER, MORE)]
    teachers = [(LAD_TEACHER, IMAGE_TEACHER), (PAPER_TEACHER, IMAGE_TEACHER)]
    for pairs, setting, metric in ((students, "students", "mean_iou"), (teachers, "teachers", "accuracy")):
        for one, two in pairs:
            if one in runs[0] and two in runs[0]:
                record.compare(one, two, setting, metric)
    record.notes += notes(preset, best, record)
    path = record.write(
        None if arguments.preset == "small" else harness.RESULTS / f"lad_{arguments.preset}.json",
        tuning_dev=tuning,
        chosen=best,
        processor_time_s=round(sum(run["seconds"] for run in runs), 1),
    )
    if runs[0]["views"]:
        picture(runs[0]["views"], path.with_suffix(".png"))
    for metric in ("mean_iou", "accuracy"):
        print(harness.columns(harness.table_cells(record.rows, metric)), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)), f"\n\n{path.name}")


def notes(preset: Preset, best: dict[str, Any], record: harness.Experiment) -> list[str]:
    """What a reader must know; every verdict follows the numbers."""
    found = [
        f"Stage 0: {preset.steps} steps of {preset.batch} scenes; then {preset.steps} more from there at a third of "
        f"the rate. Teachers: {preset.teacher_steps} steps, of the student's size, other first weights.",
        f"Students: {verdict(record, LAD, KD)}; {verdict(record, LAD, MORE)}.",
        f"Teachers, pixel accuracy: {verdict(record, LAD_TEACHER, IMAGE_TEACHER)}.",
        "LAD teachers see the true labels: their numbers say whether they can teach, and are no results of a model.",
        f"Learning rate {best['rate']:g}, weight of the consistency {best['consistency']:g}, of the distillation "
        f"{best[LAD]:g} (LAD) and {best[KD]:g} (image-only), distance of the codes {preset.code_step:g}. All but the "
        "last are tuned on dev scenes with one seed.",
    ]
    if not preset.model:
        found += [
            f"With the paper's settings (weights 5 and 3, distance 0.1): {verdict(record, LAD_PAPER, KD_PAPER)}; "
            f"of the teachers, {verdict(record, PAPER_TEACHER, IMAGE_TEACHER)}.",
            "An earlier run on these test scenes had the paper's settings alone; the tuned rows were added after it.",
        ]
    return found


def verdict(record: harness.Experiment, one: str, two: str) -> str:
    """Which of two rows is higher, when their difference exceeds two standard errors."""
    pair = next(pair for pair in record.paired if (pair["a"], pair["b"]) == (one, two))
    clear = abs(pair["mean_difference"]) > 2 * pair["stderr"]
    relation = "is not told apart from" if not clear else "is above" if pair["mean_difference"] > 0 else "is below"
    return f'"{one}" {relation} "{two}" ({pair["mean_difference"]:+.4f} +- {pair["stderr"]:.4f})'


if __name__ == "__main__":
    main()
