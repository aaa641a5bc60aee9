"""LAD on scenes of real digits: is a teacher that sees noised labels a better teacher than one that sees images?

    python examples/lad.py                  # two MNIST digits per scene under noise, a small CNN, no Hub
    python examples/lad.py --preset full    # ADE20K with SegFormer-B0; needs the Hub and a GPU

As in the paper a student is trained first (stage 0) and goes on from there, for as many steps again: with
cross-entropy alone, with channel-wise distillation from an image-only teacher of its own size (the fair control), or
from a LAD teacher. All rows of one seed share scenes, first weights and the order of the batches. The learning rate of
stage 0 is tuned on dev scenes with a seed of its own, that of the LAD teacher on its pixel accuracy with the fixed
code. Test scenes are read once, at the end.
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
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput

import harness

START, MORE, KD, LAD = "stage 0", "cross-entropy alone", "CWD, image-only teacher", "CWD, LAD teacher"
IMAGE_TEACHER, LAD_TEACHER = "teacher, image only", "teacher, LAD (sees the label)"
WRONG = "teacher, LAD, wrong codes"
KINDS = {LAD: "method", KD: "control", START: "baseline", MORE: "baseline"}
DIGITS, TUNING_SEED = 4, 100


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
    model: str = ""


PRESETS = {
    "small": Preset(600, 400, 0.6, 12, 500, 1200, 16, (1e-2, 3e-2)),
    "full": Preset(0, 0, 0.0, 0, 40_000, 40_000, 16, (6e-5,), model="nvidia/mit-b0"),
}


class DilatedConfig(PreTrainedConfig):
    """A CNN of five convolutions with dilation."""

    model_type = "dilated-scenes"

    def __init__(self, num_channels: int = 1, width: int = 12, semantic_loss_ignore_index: int = 255, **kwargs: Any):
        self.num_channels, self.width = num_channels, width
        self.semantic_loss_ignore_index = semantic_loss_ignore_index
        super().__init__(**kwargs)


class DilatedForSemanticSegmentation(PreTrainedModel):
    """Logits at the size of the image; each output sees 31 x 31 pixels, more than a digit."""

    config_class = DilatedConfig

    def __init__(self, config: DilatedConfig):
        super().__init__(config)
        channels, layers = config.num_channels, []
        for dilation in (1, 2, 4, 8):
            layers += [nn.Conv2d(channels, config.width, 3, padding=dilation, dilation=dilation)]
            layers += [nn.BatchNorm2d(config.width), nn.ReLU()]
            channels = config.width
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Conv2d(channels, config.num_labels, 1)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> SemanticSegmenterOutput:
        return SemanticSegmenterOutput(logits=self.classifier(self.layers(pixel_values)))


@functools.cache
def digits() -> dict[str, tuple[Any, Any]]:
    """Digits 0 to 3 of 14 x 14 pixels in [0, 1], in three parts that share none."""
    import numpy as np

    from hf_labels.data import offline_images as offline

    data = offline.load_mnist_5k()
    labels = np.array(data["labels"][:])
    pixels = torch.from_numpy(offline.pixels(data)).float()[:, None] / 255
    pixels = torch.nn.functional.avg_pool2d(pixels, 2)[:, 0]
    keep = np.random.default_rng(0).permutation(np.flatnonzero(labels < DIGITS))
    cuts = {"train": keep[:1000], "dev": keep[1000:1400], "test": keep[1400:]}
    return {name: (pixels[rows], torch.from_numpy(labels[rows])) for name, rows in cuts.items()}


@functools.cache
def scenes(part: str, number: int, noise: float, seed: int) -> Any:
    """Scenes of 14 x 28 pixels: each half holds a digit with probability 0.75; label 0 is background."""
    from datasets import Dataset

    images, classes = digits()[part]
    generator = torch.Generator().manual_seed(seed)
    pixels, labels = torch.zeros(number, 1, 14, 28), torch.zeros(number, 14, 28, dtype=torch.int64)
    for half in (0, 14):
        rows = torch.randint(0, len(images), (number,), generator=generator)
        there = torch.rand(number, generator=generator) < 0.75
        chosen = images[rows] * there[:, None, None]
        pixels[:, 0, :, half : half + 14] = chosen
        labels[:, :, half : half + 14] = (chosen > 0.3) * (1 + classes[rows])[:, None, None]
    pixels += noise * torch.randn(pixels.shape, generator=generator)
    pixels = (pixels - 0.1) / (noise**2 + 0.25**2) ** 0.5
    data = Dataset.from_dict({"row": list(range(number))})

    def read(batch: dict[str, list[int]]) -> dict[str, Any]:
        return {"pixel_values": list(pixels[batch["row"]]), "labels": list(labels[batch["row"]])}

    return data.with_transform(read)


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


def fit(trainer_class: Any, model: Any, preset: Preset, seed: int, steps: int, rate: float, **options: Any) -> Any:
    """A trainer after `train()`."""
    from transformers import PrinterCallback

    from hf_labels.trainers.lad import LADTrainingArguments

    settings = {"distill_weight": 0.0} if options.get("teacher") is None else {}
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
            **settings,
        )
        trainer = trainer_class(model, args, train_dataset=part_of(preset, "train", seed), **options)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    trainer.bare_model.eval()
    return trainer


def teach(preset: Preset, seed: int, rate: float) -> Any:
    """The trainer of a LAD teacher after training."""
    from hf_labels.models.lad import add_input_channel
    from hf_labels.trainers.lad import LADTeacherTrainer

    generator = torch.Generator().manual_seed(seed)
    model = add_input_channel(new_model(preset, seed), generator=generator)
    return fit(LADTeacherTrainer, model, preset, seed, preset.teacher_steps, rate)


def scores(trainer: Any, data: Any) -> dict[str, float]:
    """Mean IoU and pixel accuracy."""
    found = trainer.evaluate(data)
    return {"mean_iou": found["eval_mean_iou"], "accuracy": found["eval_overall_accuracy"]}


def tune_run(task: tuple[str, str, float]) -> float:
    """Dev score of one learning rate: mean IoU of stage 0, or the fixed-code pixel accuracy of a LAD teacher."""
    from hf_labels.trainers.lad import CWDDistillTrainer

    quiet()
    what, preset_name, rate = task
    preset = PRESETS[preset_name]
    data = part_of(preset, "dev", 0)
    if what == START:
        model = new_model(preset, TUNING_SEED)
        return scores(fit(CWDDistillTrainer, model, preset, TUNING_SEED, preset.steps, rate), data)["mean_iou"]
    return scores(teach(preset, TUNING_SEED, rate), data)["accuracy"]


def one_run(task: tuple[str, int, dict[str, float]]) -> dict[str, Any]:
    """All rows of one seed, on test scenes."""
    from hf_labels.trainers.lad import CWDDistillTrainer

    quiet()
    preset_name, seed, rates = task
    preset, clock = PRESETS[preset_name], time.process_time()
    test = part_of(preset, "test", seed)
    learn = functools.partial(fit, CWDDistillTrainer, preset=preset, seed=seed)
    start = learn(new_model(preset, seed), steps=preset.steps, rate=rates[START])
    images = learn(new_model(preset, 1000 + seed), steps=preset.teacher_steps, rate=rates[START])
    labels = teach(preset, 1000 + seed, rates[LAD_TEACHER])
    found = {START: scores(start, test), IMAGE_TEACHER: scores(images, test), LAD_TEACHER: scores(labels, test)}
    found[WRONG] = {"mean_iou": labels.copy_gap(test)["wrong_code"]}
    more = {"steps": preset.steps, "rate": rates[START] / 3}
    for name, teacher in ((MORE, None), (KD, images), (LAD, labels)):
        student = copy.deepcopy(start.bare_model)
        given = None if teacher is None else teacher.bare_model
        found[name] = scores(learn(student, teacher=given, **more), test)
    return found | {"seconds": time.process_time() - clock}


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
    name = "scenes of two MNIST digits under noise" if not preset.model else "ADE20K"
    record = harness.Experiment("lad", datasets=[name])
    tasks = [(what, arguments.preset, rate) for what in (START, LAD_TEACHER) for rate in preset.rates]
    found = harness.run_tasks(tune_run, tasks, workers)
    tuning: dict[str, dict[str, float]] = {START: {}, LAD_TEACHER: {}}
    for (what, _, rate), value in zip(tasks, found, strict=True):
        tuning[what][str(rate)] = value
    rates = {what: float(max(own, key=lambda rate: own[rate])) for what, own in tuning.items()}
    runs = harness.run_tasks(one_run, [(arguments.preset, seed, rates) for seed in seeds], workers)
    for key in (START, MORE, KD, LAD):
        for metric in ("mean_iou", "accuracy"):
            setting = "students"
            record.add(key, setting, metric, [run[key][metric] for run in runs], seeds, KINDS[key])
    for key in (IMAGE_TEACHER, LAD_TEACHER):
        record.add(key, "teachers", "accuracy", [run[key]["accuracy"] for run in runs], seeds, "control")
    for key in (LAD_TEACHER, WRONG):
        record.add(key, "teachers", "mean_iou", [run[key]["mean_iou"] for run in runs], seeds, "control")
    for one, two in ((LAD, KD), (LAD, MORE), (KD, MORE), (LAD, START)):
        record.compare(one, two, "students", "mean_iou")
    record.compare(LAD_TEACHER, IMAGE_TEACHER, "teachers", "accuracy")
    record.notes += notes(preset, rates, record)
    path = record.write(
        None if arguments.preset == "small" else harness.RESULTS / f"lad_{arguments.preset}.json",
        tuning_dev=tuning,
        learning_rates=rates,
        processor_time_s=round(sum(run["seconds"] for run in runs), 1),
    )
    for metric in ("mean_iou", "accuracy"):
        print(harness.columns(harness.table_cells(record.rows, metric)), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)), f"\n\n{path.name}")


def notes(preset: Preset, rates: dict[str, float], record: harness.Experiment) -> list[str]:
    """What a reader must know; the verdict follows the numbers."""
    pair = next(pair for pair in record.paired if (pair["a"], pair["b"]) == (LAD, KD))
    clear = abs(pair["mean_difference"]) > 2 * pair["stderr"]
    better = "higher" if pair["mean_difference"] > 0 else "lower"
    verdict = f"{better} than" if clear else "no different, within two standard errors, from"
    return [
        f"Stage 0: {preset.steps} steps of {preset.batch} scenes; then {preset.steps} more from there at a third of "
        f"the rate. Teachers: {preset.teacher_steps} steps, of the student's size, other first weights.",
        f"With a LAD teacher the mean IoU is {verdict} that with an image-only teacher "
        f"({pair['mean_difference']:+.4f} +- {pair['stderr']:.4f}).",
        "The LAD teacher sees the true labels: its accuracy says that it can teach, and is no result of a model. With "
        "each class under the code of the next one its mean IoU falls as far as it reads the class from the code.",
        f"Learning rates, tuned on dev scenes with one seed: {', '.join(f'{k} {v:g}' for k, v in rates.items())}.",
    ]


if __name__ == "__main__":
    main()
