"""CrossTune: train the label-attention head on features that a frozen black box gives once."""

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import datasets
import numpy as np
import torch
from transformers import TrainerCallback

from hf_labels.data.augment import AugmentationReport
from hf_labels.data.features import add_features, check_finite, no_bars
from hf_labels.data.offline import MINILM, MINILM_HUB_ID
from hf_labels.data.rng import isolated_rng
from hf_labels.labels.kinds import align_labels, check_column, encode_labels, require_columns
from hf_labels.losses.crosstune import crosstune_loss
from hf_labels.metrics.compute_metrics import TrainerMetrics
from hf_labels.models.crosstune import CrossTuneForSequenceClassification
from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments
from hf_labels.trainers.best import BestWeights
from hf_labels.trainers.crosstune_augment import augment, dev_score

logger = logging.getLogger(__name__)


@dataclass
class CrossTuneTrainingArguments(LabelTrainingArguments):
    """Arguments of [`CrossTuneTrainer`].

    Parameters:
        text_column (`str`, *optional*, defaults to `"text"`):
            Column that the backbone encodes. Not needed when the data set has a column `features`.
        select_by (`str`, *optional*, defaults to `"loss"`):
            With an evaluation set: keep the head of the epoch with the lowest `"loss"` or the best `"accuracy"` (ties:
            lower loss) on it, the untrained head included; `"none"` keeps the last one.
        patience (`int`, *optional*, defaults to `0`):
            Stop after so many epochs without a better head; 0 never stops early.
        switch (`str`, *optional*, defaults to `"example"`):
            Use of generated texts: `"example"` keeps those that the teacher gives the intended label, `"dataset"` uses
            all or none, whichever scores higher on the evaluation set, `"none"` keeps all.
        generated_per_class (`int`, *optional*, defaults to `50`):
            Texts that the language model is asked for per class.
        demos (`int`, *optional*, defaults to `4`):
            Labelled texts shown in each request (m in the paper).
        generated_tokens (`int`, *optional*, defaults to `400`):
            Tokens of one answer of the language model at most.
        aug_weight (`float`, *optional*, defaults to `1.0`):
            Weight of a generated text in the mean loss, above 0.
        min_prob (`float`, *optional*, defaults to `0.0`):
            With `switch="example"`: least teacher probability of the intended label, in `[0, 1]`.
        top_k (`int`, *optional*, defaults to `0`):
            With `switch="example"`: keep only so many of the most confident texts per class; 0 keeps all that agree.
        feature_cache_dir (`str`, *optional*):
            Folder of cached features; defaults to the user's cache folder.

    > [!NOTE] Defaults that differ from [`~transformers.TrainingArguments`]: `learning_rate` 1e-4, `weight_decay` 0.01,
    > `num_train_epochs` 100, `per_device_train_batch_size` 512 (a few-shot set is one batch),
    > `per_device_eval_batch_size` 512, `logging_steps` 25.
    """

    text_column: str = field(default="text", metadata={"help": "Column that the backbone encodes."})
    select_by: str = field(
        default="loss",
        metadata={
            "help": "Keep the best head on the evaluation set by this.",
            "choices": ["loss", "accuracy", "none"],
        },
    )
    patience: int = field(default=0, metadata={"help": "Epochs without a better head before stopping; 0 = never."})
    switch: str = field(
        default="example",
        metadata={"help": "How generated texts are filtered.", "choices": ["example", "dataset", "none"]},
    )
    generated_per_class: int = field(default=50, metadata={"help": "Generated texts asked for per class, at least 1."})
    demos: int = field(default=4, metadata={"help": "Labelled texts shown in each request, at least 0."})
    generated_tokens: int = field(default=400, metadata={"help": "Tokens of one answer at most, at least 1."})
    aug_weight: float = field(default=1.0, metadata={"help": "Weight of a generated text in the loss, above 0."})
    min_prob: float = field(default=0.0, metadata={"help": "Least teacher probability, in [0, 1]."})
    top_k: int = field(default=0, metadata={"help": "Most confident generated texts kept per class; 0 = all."})
    feature_cache_dir: str | None = field(default=None, metadata={"help": "Folder of cached features."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate of the head."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of the head."})
    num_train_epochs: float = field(default=100.0, metadata={"help": "Passes over the labelled texts."})
    per_device_train_batch_size: int = field(default=512, metadata={"help": "Texts per step and device."})
    per_device_eval_batch_size: int = field(default=512, metadata={"help": "Texts per evaluation step and device."})
    logging_steps: float = field(default=25, metadata={"help": "Steps between two logs."})

    def __post_init__(self):
        super().__post_init__()
        for name, choices in (("select_by", ("accuracy", "loss", "none")), ("switch", ("example", "dataset", "none"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {getattr(self, name)!r}.")
        for name, least in (
            ("patience", 0),
            ("generated_per_class", 1),
            ("generated_tokens", 1),
            ("demos", 0),
            ("top_k", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}.")
        if not self.aug_weight > 0:
            raise ValueError(f"`aug_weight` must be above 0, got {self.aug_weight}.")
        if not 0 <= self.min_prob <= 1:
            raise ValueError(f"`min_prob` must be in [0, 1], got {self.min_prob}.")


class _SelectHead(TrainerCallback):
    def __init__(self, trainer: "CrossTuneTrainer"):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if self.trainer.method_state is not None and state.global_step == 0:
            self.trainer.offer_head()

    def on_epoch_end(self, args, state, control, **kwargs):
        best = self.trainer.method_state
        if best is not None:
            self.trainer.offer_head()
            if args.patience and int(best.epochs_since) >= args.patience:
                control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs):
        if self.trainer.method_state is not None:
            self.trainer.method_state.put_back(self.trainer.bare_model)


class CrossTuneTrainer(LabelTrainer):
    """Trains the head of a [`CrossTuneForSequenceClassification`].

    Inputs: `text` (encoded once, cached on disk) or `features` (D,) | `labels`, -1 = missing (row is not used) |
    `sample_weight`, optional.

    Labels may be ids in the order of the model's labels, a `ClassLabel` in any order, or the label names as text.
    With an evaluation set (as many texts per class as in training is customary) the best epoch's head is kept.

    With `augment_with=lm` the language model first writes texts for each label; the switch decides which of them are
    trained on; [`augmentation_report`] says what became of each. The default teacher of the switch is the head
    trained on the labelled texts alone.

    Args:
        model, args, data_collator, train_dataset, eval_dataset, ...: As in `Trainer`.
        augment_with ([`~hf_labels.lm.BlackBoxLM`], *optional*): Writes texts.
        switch (`str`, *optional*): Overrides `args.switch`.
        teacher (*optional*): `texts -> probabilities (N, C)`: filters generated texts.
        exclude_texts (*optional*): Texts, such as test texts, that generated ones must not repeat.

    Raises:
        TypeError: If the model is no CrossTune model.
        KeyError: If the data has neither the text column nor `features`, or no `labels`.
        ValueError: For labels that the model does not know, or `switch="dataset"` without an evaluation set.

    Source: Luo et al. 2024, arXiv:2403.12468; see [`hf_labels.models.crosstune`] for what is our own choice.
    """

    args: CrossTuneTrainingArguments
    eval_dataset: Any
    method_state: BestWeights | None

    _slug = "crosstune"
    _extra_columns = ("sample_weight",)
    _required_columns = ("features",)
    _label_kinds = {"labels": "hard"}

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *rest: Any,
        augment_with: Any = None,
        switch: str | None = None,
        teacher: Callable[[list[str]], Any] | None = None,
        exclude_texts: Any = (),
        **kwargs: Any,
    ):
        if not isinstance(model, CrossTuneForSequenceClassification):
            raise TypeError(
                f"`CrossTuneTrainer` trains a `CrossTuneForSequenceClassification`, got {type(model).__name__}. "
                "Make one with `CrossTuneForSequenceClassification.from_backbone(backbone, label_descriptions)`."
            )
        args = args if args is not None else CrossTuneTrainingArguments()
        if switch is not None:
            args = copy.copy(args)
            args.switch = switch
            args.__post_init__()
        kwargs.setdefault("compute_metrics", TrainerMetrics(classification_scores))
        super().__init__(model, args, data_collator, train_dataset, eval_dataset, *rest, **kwargs)
        self.augment_with, self.teacher, self.exclude_texts = augment_with, teacher, list(exclude_texts)
        self.augmentation_report: AugmentationReport | None = None
        self.texts = _texts_of(train_dataset, args.text_column)
        self.held_out_texts = _texts_of(eval_dataset, args.text_column)
        self.train_dataset = self.prepare(train_dataset, "train_dataset")
        self.eval_dataset = self.prepare(eval_dataset, "eval_dataset")
        self._dev: tuple[torch.Tensor, torch.Tensor] | None = None
        self.add_callback(_SelectHead(self))

    # Data

    @property
    def bare_model(self) -> CrossTuneForSequenceClassification:
        """The model without wrappers."""
        return self.accelerator.unwrap_model(self.model)

    def label_list(self) -> list[str]:
        """Label names in the order of the class ids."""
        names = cast(dict[int, str], self.bare_model.config.id2label)
        return [names[i] for i in range(len(names))]

    def prepare(self, dataset: Any, name: str = "dataset") -> Any:
        """A copy with `features` and with `labels` in the order of the model's labels; `None` stays `None`.

        Raises:
            KeyError: If neither `features` nor the text column is there.
            ValueError: For a label that the model does not know, or features with NaN (the row is named).
        """
        if isinstance(dataset, Mapping):
            kind: Any = type(dataset)
            return kind({key: self.prepare(part, f"{name}[{key!r}]") for key, part in dataset.items()})
        if not isinstance(dataset, datasets.Dataset):
            return dataset
        if "labels" in dataset.column_names:
            with no_bars(len(dataset)):
                dataset = self._with_own_labels(dataset)
        if "features" in dataset.column_names:
            check_finite(np.asarray(dataset.with_format("numpy")["features"][:]), f"features of {name}")
            return dataset
        if not len(dataset):
            return dataset  # said before training, with its name
        require_columns(dataset, [self.args.text_column])
        encoder = self.bare_model.encoder
        with self.args.main_process_first(desc="frozen features"):  # the others read the cache
            progress = False if self.args.disable_tqdm else None
            cache, column = self.args.feature_cache_dir, self.args.text_column
            return add_features(
                dataset, encoder.encode, encoder.key(), column=column, cache_dir=cache, progress=progress
            )

    def _with_own_labels(self, dataset: datasets.Dataset) -> datasets.Dataset:
        names = self.label_list()
        kind = dataset.features["labels"]
        if isinstance(kind, datasets.ClassLabel):
            return dataset if list(kind.names) == names else align_labels(dataset, "labels", names)
        if getattr(kind, "dtype", "") in ("string", "large_string"):
            return encode_labels(dataset, "labels", names)
        if len(dataset):
            check_column(dataset, "hard", "labels", num_labels=len(names))
        return dataset.cast_column("labels", datasets.ClassLabel(names=names))

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As `Trainer.evaluate`; takes texts too."""
        given: Any = eval_dataset if isinstance(eval_dataset, str) else self.prepare(eval_dataset, "eval_dataset")
        return super().evaluate(given, *args, **kwargs)

    def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.predict`; takes texts too."""
        return super().predict(self.prepare(test_dataset, "test_dataset"), *args, **kwargs)

    # Loss and selection

    def count_items(self, inputs):
        return {"rows": (inputs["labels"] != -100).sum()}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs["labels"]
        outputs = model(**self.model_inputs(inputs))
        total = crosstune_loss(outputs.logits, labels, inputs.get("sample_weight"), reduction="sum")
        loss = self.mean_over_update(total, "rows", (labels != -100).sum())
        return (loss, outputs) if return_outputs else loss

    def init_method_state(self) -> None:
        chosen = self.args.select_by != "none" and isinstance(self.eval_dataset, datasets.Dataset)
        self.method_state = BestWeights(self.bare_model) if chosen and len(self.eval_dataset) else None

    def offer_head(self) -> None:
        """Score the head on the evaluation set (all of it, on every process) and remember it if it is the best."""
        score = dev_score(self.bare_model, *self.dev_rows())
        assert self.method_state is not None
        self.method_state.offer(self.bare_model, score if self.args.select_by == "accuracy" else score[::-1])

    def dev_rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (N, D) and labels (N,) of the evaluation set, in memory."""
        if self._dev is None:
            rows = self.eval_dataset.with_format("torch")
            self._dev = rows["features"][:].float(), rows["labels"][:]
        return self._dev

    # Training, with augmentation first

    def train(self, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None):
        """As `Trainer.train`. With `augment_with`, generated texts are made, filtered and added first; a resumed run
        takes those of the interrupted one from `output_dir`."""
        self._warn_of_empty_classes()
        if self.augment_with is not None and self.augmentation_report is None:
            with isolated_rng(device=self.args.device):
                augment(self, bool(resume_from_checkpoint))
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def _warn_of_empty_classes(self) -> None:
        data = self.train_dataset
        if isinstance(data, datasets.Dataset) and "labels" in data.column_names and len(data):
            seen = set(data["labels"][:])
            empty = [name for i, name in enumerate(self.label_list()) if i not in seen]
            if empty:
                logger.warning("No labelled text for: %s. Their descriptions are all the head has.", empty)

    # Card

    def card_facts(self, finetuned_from: str | None = None) -> dict[str, Any]:
        """The black box, the descriptions and the generated texts."""
        config = self.bare_model.config
        # The encoder from the package has the weights of a Hub model: name what the Hub can link.
        backbone = MINILM_HUB_ID if config.backbone == MINILM else config.backbone
        facts = {"base_model": finetuned_from or backbone, "extra": black_box_facts(config, self.augmentation_report)}
        return facts | ({"labels": config.label_descriptions} if config.label_descriptions else {})


def black_box_facts(config: Any, report: AugmentationReport | None = None) -> dict[str, Any]:
    """Rows for a card: the frozen black box, how it is read, and the generated texts."""
    facts = {
        "black box": f"{config.backbone or 'features given from outside'} (frozen, not part of the model file)",
        "revision of the black box": config.backbone_revision,
        "hash of its weights": config.backbone_fingerprint,
        "pooling of texts / labels": f"{config.text_pooling} / {config.label_pooling}",
        "template": config.template,
        "longest text": f"{config.max_length} tokens",
        "heads": config.num_heads,
    }
    if report is not None:
        facts["generated texts"] = (
            f"{len(report.texts)} written by {report.model_id or 'a language model'}, "
            f"{len(report.kept) if report.used else 0} trained on (switch: {report.switch})"
        )
    return {name: value for name, value in facts.items() if value is not None}


def classification_scores(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, macro F1, `ece` and `nll` of log-probabilities (N, C); rows labelled -100 do not count."""
    from sklearn.metrics import f1_score

    from hf_labels.metrics.functional.calibration import calibration_scores

    known = labels >= 0
    predictions, labels = predictions[known], labels[known]
    scores = calibration_scores(predictions, labels, from_logits=True)
    scores = {name: float(scores[name]) for name in ("accuracy", "ece", "nll")}
    return scores | {"f1_macro": float(f1_score(labels, predictions.argmax(1), average="macro"))}


def _texts_of(dataset: Any, column: str) -> list[str]:
    if isinstance(dataset, datasets.Dataset) and column in dataset.column_names:
        return list(dataset[column][:])
    return []


def cli_setup(
    script_args: Any, training_args: CrossTuneTrainingArguments, dataset: Mapping[str, Any]
) -> CrossTuneTrainer:
    """The trainer of `hf-labels train crosstune`: a new head on the frozen model that `--model` names.

    Labels that only have a description and no row keep their place after the others.

    Raises:
        OSError: If the backbone cannot be found.
        ValueError: As [`CrossTuneForSequenceClassification.from_backbone`] and [`CrossTuneTrainer`].
    """
    described = dict(script_args.label_descriptions)
    names = list(dict.fromkeys([*script_args.label_names, *described]))
    model = CrossTuneForSequenceClassification.from_backbone(
        script_args.model,
        label_descriptions={name: described.get(name, "") for name in names} if described else names,
        revision=script_args.model_revision,
        max_length=script_args.max_length or 128,
    )
    training_args.text_column = script_args.text_column
    return CrossTuneTrainer(model, training_args, train_dataset=dataset["train"], eval_dataset=dataset["eval"])
