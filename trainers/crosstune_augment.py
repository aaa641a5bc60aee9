"""CrossTune's augmentation: generated texts, the switch that decides which are trained on, and their record."""

import copy
import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import PrinterCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from hf_labels.data.augment import AugmentationReport, Generated, generate_texts
from hf_labels.data.features import no_bars
from hf_labels.losses.crosstune import agree, agree_confident, crosstune_loss, top_k
from hf_labels.models.crosstune import CrossTuneForSequenceClassification
from hf_labels.trainers.places import is_main, wait, write_text

logger = logging.getLogger(__name__)

AUGMENTATION_NAME = "_augmentation.json"  # `push_to_hub` leaves out names that begin with `_`
_RAW = "raw"  # in the file: written, not yet filtered


def augment(trainer: Any, resume: bool) -> None:
    """Set `trainer.augmentation_report` and add the kept texts to `trainer.train_dataset`.

    The main process asks the language model and writes `_augmentation.json` to `output_dir`; all processes read that
    and filter alike. A resumed run reads the file of the interrupted one and asks nothing.

    Raises:
        ValueError: No training texts, or `switch="dataset"` without an evaluation set.
    """
    args = trainer.args
    if not trainer.texts:
        raise ValueError(f"Augmentation needs the training texts: column `{args.text_column}` is missing.")
    if args.switch == "dataset" and not isinstance(trainer.eval_dataset, datasets.Dataset):
        raise ValueError('`switch="dataset"` compares on `eval_dataset`: give one, or use `switch="example"`.')
    path = Path(args.output_dir) / AUGMENTATION_NAME
    if is_main() and not (resume and path.is_file()):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, _generate(trainer).to_json())
    wait()
    report = AugmentationReport.from_json(path.read_text(encoding="utf-8"))
    wait()
    if report.switch == _RAW:
        report.switch = args.switch
        _filter(trainer, report)
        if is_main():
            write_text(path, report.to_json())
    trainer.augmentation_report = report
    logger.info("%s", report)
    if report.used:
        trainer.train_dataset = with_generated(trainer, report.kept)


def _generate(trainer: Any) -> AugmentationReport:
    config, args = trainer.bare_model.config, trainer.args
    report = generate_texts(
        trainer.augment_with,
        config.label_descriptions or {name: name for name in config.id2label.values()},
        list(zip(trainer.texts, trainer.train_dataset["labels"][:], strict=True)),
        per_class=args.generated_per_class,
        demos=args.demos,
        max_new_tokens=args.generated_tokens,
        exclude=[*trainer.held_out_texts, *trainer.exclude_texts],
        seed=args.seed,
    )
    report.switch = _RAW
    return report


def _filter(trainer: Any, report: AugmentationReport) -> None:
    """The switch: mark the generated texts that are not trained on, with the reason."""
    found, args = report.kept, trainer.args
    if report.switch == "dataset" and found:
        scores = {}
        for name, data in (("without", trainer.train_dataset), ("with", with_generated(trainer, found))):
            scores[name] = dev_score(_fit_twin(trainer, data), *trainer.dev_rows())[0]
        report.dev_scores = scores
        for item in found if scores["with"] <= scores["without"] else []:
            item.dropped = "dataset"
    elif report.switch == "example" and found:
        probs, intended = _teacher_probs(trainer, found), torch.tensor([item.label for item in found])
        agreeing = set(agree(probs, intended).tolist())
        best = sure = set(agree_confident(probs, intended, args.min_prob).tolist())
        if args.top_k:
            best = set(top_k(probs, intended, args.top_k, args.min_prob).tolist())
        for row, item in enumerate(found):
            reason = "disagrees" if row not in agreeing else "unsure" if row not in sure else "rank"
            item.dropped = None if row in best else reason
    report.used = bool(report.kept)


def _teacher_probs(trainer: Any, items: list[Generated]) -> torch.Tensor:
    model = trainer.bare_model
    if trainer.teacher is not None:
        probs = torch.as_tensor(np.asarray(trainer.teacher([item.text for item in items])), dtype=torch.float64)
        wanted = (len(items), model.config.num_labels)
        if tuple(probs.shape) != wanted:
            raise ValueError(f"`teacher` must return probabilities of shape {wanted}, got {tuple(probs.shape)}.")
        return probs
    twin = _fit_twin(trainer, trainer.train_dataset).eval()
    rows = _generated_rows(trainer, items).with_format("torch")["features"][:]
    with torch.no_grad():
        return twin.head(rows.to(twin.device)).exp().double().cpu()


def _generated_rows(trainer: Any, items: list[Generated]) -> datasets.Dataset:
    table = {trainer.args.text_column: [item.text for item in items], "labels": [item.label for item in items]}
    return trainer.prepare(datasets.Dataset.from_dict(table), "generated texts")


def with_generated(trainer: Any, items: list[Generated]) -> datasets.Dataset:
    """Labelled rows with weight 1 (or their own), then generated ones with `aug_weight`."""
    parts = []
    for data, weight in ((trainer.train_dataset, 1.0), (_generated_rows(trainer, items), trainer.args.aug_weight)):
        data = data.with_format(None)
        if "sample_weight" not in data.column_names:
            with no_bars(len(data)):
                weights = [float(weight)] * len(data)
                data = data.add_column("sample_weight", weights, feature=datasets.Value("float32"))
        parts.append(data.select_columns(["features", "labels", "sample_weight"]))
    with no_bars(sum(map(len, parts))):
        return datasets.concatenate_datasets([part.cast(parts[1].features) for part in parts])


def _fit_twin(trainer: Any, data: datasets.Dataset) -> CrossTuneForSequenceClassification:
    """A second head from the same start, trained with the same settings on other data."""
    mine = trainer.bare_model
    twin = CrossTuneForSequenceClassification(copy.deepcopy(mine.config))
    twin.load_state_dict(mine.state_dict())
    args = copy.copy(trainer.args)
    args.output_dir = str(Path(trainer.args.output_dir) / "_twin")
    args.save_strategy = SaveStrategy.NO
    args.eval_strategy = args.logging_strategy = IntervalStrategy.NO
    args.push_to_hub = args.load_best_model_at_end = False
    args.report_to, args.disable_tqdm = [], True
    other = type(trainer)(twin, args, train_dataset=data, eval_dataset=trainer.eval_dataset)
    other.remove_callback(PrinterCallback)
    other.train()
    return other.bare_model


@torch.no_grad()
def dev_score(
    model: CrossTuneForSequenceClassification, features: torch.Tensor, labels: torch.Tensor
) -> tuple[float, float]:
    """Accuracy and negative loss on labelled features (N, D), (N,); rows labelled -1 do not count."""
    known = labels >= 0
    training = model.training
    model.eval()
    log_probs = model.head(features[known].to(model.device)).cpu()
    model.train(training)
    labels = labels[known]
    return (log_probs.argmax(1) == labels).double().mean().item(), -crosstune_loss(log_probs, labels).item()
