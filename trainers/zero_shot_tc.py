"""`EntailmentTrainer`: teach a model whether a text entails a label, on the labels that have texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
from transformers import PreTrainedModel

from hf_labels.data.features import add_features, no_bars
from hf_labels.data.zero_shot_tc import PAIR_NAMES, all_pairs, entailment_pairs, label_sets
from hf_labels.data.zero_shot_tc_hypotheses import ASPECTS, complete_hypotheses, wordnet_hypotheses
from hf_labels.labels.columns import class_names, require_columns
from hf_labels.labels.kinds import IGNORE_INDEX
from hf_labels.labels.verbalize import DEFAULT_TEMPLATE
from hf_labels.labels.zero_shot_tc import DECISIONS, alternate_labels, decide, entailment_probs
from hf_labels.losses.zero_shot_tc import entailment_loss
from hf_labels.metrics.compute_metrics import TrainerMetrics
from hf_labels.metrics.functional.zero_shot import zero_shot_accuracy, zero_shot_f1
from hf_labels.models.zero_shot_tc import find_entailment_id, make_plan, name_decisions, plan_settings
from hf_labels.models.zero_shot_tc_pairs import PairEncoderForSequenceClassification
from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments


@dataclass
class EntailmentTrainingArguments(LabelTrainingArguments):
    """Arguments of [`EntailmentTrainer`].

    Parameters:
        text_column (`str`, *optional*, defaults to `"text"`):
            Column of the texts, when the data are texts with labels and not pairs.
        seen_labels (`str`, *optional*, defaults to `"all"`):
            Labels to train on: `"all"`, `"v0"` or `"v1"` (every other label), or names separated by `;`.
        negatives (`int`, *optional*, defaults to `0`):
            Negative labels per training text; 0 takes all other seen labels.
        max_length (`int`, *optional*, defaults to `128`):
            Tokens of a pair at most; the text is cut, never the hypothesis.
        aspect (`str`, *optional*, defaults to `"topic"`):
            Patterns of the hypotheses made on the command line: `topic`, `emotion` or `situation`.
        wordnet (`bool`, *optional*, defaults to `False`):
            On the command line: look definitions up in WordNet.
        decision (`str`, *optional*, defaults to `"single_phase"`):
            Decision rule for evaluation and for the saved model: `single_phase` or `two_phase`.
        none_label (`str`, *optional*):
            What "no label" is called; without it every text of a single-label task gets a label.
        seen_margin (`float`, *optional*, defaults to `0.1`):
            Lead that a seen label needs over an unseen one, in `[0, 1]`.
        seen_threshold (`float`, *optional*, defaults to `0.6`):
            Multi-label: probability above which a seen label is taken, in `[0, 1]`.
        feature_cache_dir (`str`, *optional*):
            Folder of cached vectors of a frozen pair encoder; defaults to the user's cache folder.

    > [!NOTE] Defaults that differ from [`~transformers.TrainingArguments`]: `learning_rate` 2e-5, `weight_decay` 0.01,
    > `per_device_train_batch_size` 32, `per_device_eval_batch_size` 64 (those of the paper's code).
    """

    text_column: str = field(default="text", metadata={"help": "Column of the texts."})
    seen_labels: str = field(default="all", metadata={"help": "all, v0, v1, or names separated by `;`."})
    negatives: int = field(default=0, metadata={"help": "Negative labels per training text; 0 = all other seen ones."})
    max_length: int = field(default=128, metadata={"help": "Tokens of a pair at most, at least 8."})
    aspect: str = field(default="topic", metadata={"help": "Patterns of hypotheses.", "choices": sorted(ASPECTS)})
    wordnet: bool = field(default=False, metadata={"help": "Look definitions of the labels up in WordNet."})
    decision: str = field(default="single_phase", metadata={"help": "Decision rule.", "choices": list(DECISIONS)})
    none_label: str | None = field(default=None, metadata={"help": "What `no label` is called."})
    seen_margin: float = field(default=0.1, metadata={"help": "Lead of a seen label over an unseen one, in [0, 1]."})
    seen_threshold: float = field(default=0.6, metadata={"help": "Multi-label threshold of seen labels, in [0, 1]."})
    feature_cache_dir: str | None = field(default=None, metadata={"help": "Folder of cached vectors."})
    learning_rate: float = field(default=2e-5, metadata={"help": "Peak learning rate."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay, not of biases and layer norms."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Pairs per step and device."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Pairs per evaluation step and device."})

    def __post_init__(self):
        super().__post_init__()
        for name, choices in (("aspect", sorted(ASPECTS)), ("decision", DECISIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {getattr(self, name)!r}.")
        for name, least in (("negatives", 0), ("max_length", 8)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}.")
        for name in ("seen_margin", "seen_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be in [0, 1], got {getattr(self, name)}.")


class EntailmentTrainer(LabelTrainer):
    """Trains an entailment model on (text, hypothesis) pairs of seen labels.

    Inputs: texts: `text` | `labels`, one label or a list of labels each (a `ClassLabel`, or names) — or pairs:
    `premise` | `hypothesis` | `labels` (B,): 0 = entailment, 1 = not, -1 = unknown.

    The model is any `AutoModelForSequenceClassification`: a new head of two classes, or an entailment (NLI) model of
    three, whose other classes together are "not entailment". A [`PairEncoderForSequenceClassification`] with a frozen
    encoder is trained on vectors that are computed once; its head wants a `learning_rate` of about 1e-2.

    The hypotheses, the seen labels and the decision rule are saved in `config.zero_shot`, where
    [`HypothesisZeroShotPipeline`] finds them.

    **Evaluation** on texts scores every hypothesis of every label, seen and unseen: `eval_seen_accuracy`,
    `eval_unseen_accuracy`, `eval_harmonic_mean` (`eval_seen_f1` and so on when texts have lists of labels). Evaluation
    on pairs gives `eval_pair_accuracy`. To choose a checkpoint, use development texts, never the test set (the
    published code prints the best test score over checkpoints).

    Args:
        model, args, data_collator, train_dataset, eval_dataset, ...: As for `Trainer`; `processing_class` is the
            tokenizer.
        hypotheses (`dict[str, list[str]]`, *optional*): Label -> sentences; needed for texts unless their labels have
            names, which then get the default template.

    Raises:
        ValueError: No tokenizer; a model without an entailment class; an unknown label; no label is seen; a hypothesis
            longer than `max_length`.
        MissingColumnError: (a `KeyError`) Neither texts nor pairs.

    Source: Yin, Hay and Roth, EMNLP 2019 (arXiv:1909.00161), section 5.
    """

    args: EntailmentTrainingArguments
    _slug = "zero_shot_tc"
    _label_kinds = {"labels": "hard"}

    def __init__(
        self,
        model: Any = None,
        args: EntailmentTrainingArguments | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *rest: Any,
        hypotheses: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ):
        args = EntailmentTrainingArguments() if args is None else args
        if processing_class is None:
            raise ValueError("`EntailmentTrainer` needs the tokenizer of the model: `processing_class=tokenizer`.")
        self.entailment_id = prepare_head(model)
        self._settings, self._model, self._tokenizer = args, model, processing_class
        self.hypotheses = self._hypotheses(hypotheses, train_dataset)
        self.seen_labels = seen_of(args.seen_labels, tuple(self.hypotheses or ()))
        self._encoder: Any = None
        self._forms: dict[str, tuple[list[set[str]], bool]] = {}
        self._current: tuple[list[set[str]], bool] | None = None
        self.plan = None
        if self.hypotheses:
            self.plan = make_plan(
                hypotheses=self.hypotheses,
                none_label=args.none_label,
                seen_labels=self.seen_labels,
                decision=args.decision,
                seen_margin=args.seen_margin,
                seen_threshold=args.seen_threshold,
                multi_label=self._is_multi(train_dataset),
            )
            model.config.zero_shot = plan_settings(self.plan)
        train_dataset = self.prepare(train_dataset, training=True)
        if isinstance(eval_dataset, Mapping):
            eval_dataset = {name: self.prepare(part) for name, part in eval_dataset.items()}
        else:
            eval_dataset = self.prepare(eval_dataset)
        kwargs.setdefault("compute_metrics", TrainerMetrics(self._scores))
        super().__init__(model, args, data_collator, train_dataset, eval_dataset, processing_class, *rest, **kwargs)

    def num_classes(self) -> int | None:
        """Pairs have two classes, whatever the head has."""
        return len(PAIR_NAMES)

    # Data

    def prepare(self, dataset: Any, training: bool = False) -> Any:
        """Texts or pairs as model inputs; what is prepared already, and what is no table, passes.

        Training texts give the pairs of seen labels, other texts all pairs.
        """
        if not isinstance(dataset, datasets.Dataset) or {"input_ids", "premise_features"} & set(dataset.column_names):
            return dataset
        if not len(dataset):
            return dataset  # said before training, with its name
        form = None
        if self._settings.text_column in dataset.column_names and "premise" not in dataset.column_names:
            require_columns(dataset, ["labels"])
            if training:
                negatives = self._settings.negatives or "all"
                dataset = entailment_pairs(
                    dataset,
                    self.hypotheses or {},
                    self.seen_labels,
                    negatives,
                    self._settings.seed,
                    text_column=self._settings.text_column,
                    none_label=self._settings.none_label,
                )
            else:
                form = label_sets(dataset, list(self.hypotheses or {}), none_label=self._settings.none_label)
                dataset = all_pairs(dataset[self._settings.text_column][:], form, self.hypotheses or {})
        require_columns(dataset, ["premise", "hypothesis"])
        ready = self._vectors(dataset) if self._is_frozen() else self._tokens(dataset)
        if form is not None and self.plan is not None:
            self._forms[ready._fingerprint] = form, self.plan.rule.multi_label
        return ready

    def _tokens(self, dataset: datasets.Dataset) -> datasets.Dataset:
        def tokenize(rows: Mapping[str, list[str]]) -> Any:
            return self._tokenizer(
                rows["premise"], rows["hypothesis"], truncation="only_first", max_length=self._settings.max_length
            )

        length = self._settings.max_length
        longest = max(set(dataset["hypothesis"][:]), key=lambda text: len(self._tokenizer("", text)["input_ids"]))
        if len(self._tokenizer("", longest)["input_ids"]) >= length:
            raise ValueError(f"`max_length` {length} leaves no room for text beside the hypothesis {longest!r}.")
        with no_bars(len(dataset)):
            return dataset.map(tokenize, batched=True, keep_in_memory=True)

    def _vectors(self, dataset: datasets.Dataset) -> datasets.Dataset:
        from hf_labels.data.encoders import TextEncoder

        if self._encoder is None:
            self._encoder = TextEncoder(
                self._model.encoder, self._tokenizer, pooling="mean", max_length=self._settings.max_length
            )
        for column in ("premise", "hypothesis"):
            dataset = add_features(
                dataset,
                self._encoder.encode,
                self._encoder.key(),
                column=column,
                names={"features": f"{column}_features"},
                cache_dir=self._settings.feature_cache_dir,
                progress=False if self._settings.disable_tqdm else None,
            )
        return dataset.with_format("numpy")  # lists of floats are slow to collate

    def _is_frozen(self) -> bool:
        model = self._model
        return isinstance(model, PairEncoderForSequenceClassification) and model.config.freeze_encoder

    def _hypotheses(self, given: Any, dataset: Any) -> dict[str, list[str]] | None:
        if given is not None:
            return complete_hypotheses(list(given), given, DEFAULT_TEMPLATE)
        is_pairs = "premise" in (getattr(dataset, "column_names", None) or ())
        found = None if is_pairs or dataset is None else class_names(dataset, "labels")
        names = [name for name in found or () if name != self._settings.none_label]
        return complete_hypotheses(names, None, DEFAULT_TEMPLATE) if names else None

    def _is_multi(self, dataset: Any) -> bool:
        is_pairs = "premise" in (getattr(dataset, "column_names", None) or ())
        if is_pairs or not isinstance(dataset, datasets.Dataset) or "labels" not in dataset.column_names:
            return False
        return len(dataset) > 0 and isinstance(dataset[0]["labels"], list)

    # Loss and scores

    def count_items(self, inputs):
        return {"pairs": (inputs["labels"] != IGNORE_INDEX).sum()}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs["labels"]
        outputs = model(**self.model_inputs(inputs))
        total = entailment_loss(outputs["logits"], labels, self.entailment_id, "sum")
        loss = self.mean_over_update(total, "pairs", (labels != IGNORE_INDEX).sum())
        return (loss, outputs) if return_outputs else loss

    def _get_eval_sampler(self, eval_dataset):
        """In order, also when training groups by length: a decision needs all pairs of a text."""
        return None

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As `Trainer.evaluate`; takes texts and pairs."""
        given: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(given, Mapping):
            return super().evaluate(dict(given), *args, **kwargs)  # comes back here for each part
        parts: Any = self.eval_dataset
        ready = self.prepare(parts[given] if isinstance(given, str) else given)
        self._current = self._forms.get(getattr(ready, "_fingerprint", ""))
        passed: Any = given if isinstance(given, str) else ready
        return super().evaluate(passed, *args, **kwargs)

    def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.predict`; takes texts and pairs."""
        ready = self.prepare(test_dataset)
        self._current = self._forms.get(getattr(ready, "_fingerprint", ""))
        return super().predict(ready, *args, **kwargs)

    def _scores(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        probs, known = entailment_probs(predictions, self.entailment_id), labels >= 0
        scores = {}
        if known.any():
            scores["pair_accuracy"] = float(((probs > 0.5) == (labels == 0))[known].mean())
        if self._current is None or self.plan is None:
            return scores
        gold, multi_label = self._current
        plan = self.plan
        if len(probs) != len(gold) * len(plan.hypotheses):
            raise ValueError("Some pairs were not evaluated: set `dataloader_drop_last=False`.")
        table = probs.reshape(len(gold), len(plan.hypotheses))
        found = name_decisions(decide(table, plan.owner, plan.seen, plan.rule), plan)
        seen = [plan.labels[place] for place in plan.seen]
        measure: Any = zero_shot_f1 if multi_label else zero_shot_accuracy
        return scores | measure(found, gold, seen, labels=plan.labels, none_label=plan.none_label or "(none)")

    # Card

    def card_facts(self, finetuned_from: str | None = None) -> dict[str, Any]:
        """Labels with their first hypothesis, and which of them were seen."""
        facts: dict[str, Any] = {"pipeline_tag": "zero-shot-classification"}
        if self.hypotheses:
            facts["labels"] = {name: texts[0] for name, texts in self.hypotheses.items()}
            facts["extra"] = {"labels with training texts": ", ".join(self.seen_labels)}
        return facts


def prepare_head(model: Any) -> int:
    """Class of entailment of a model; a head of two unnamed classes gets its names.

    Raises:
        ValueError: No class is called entailment.
    """
    config = getattr(model, "config", None)
    if not isinstance(model, PreTrainedModel) or config is None:
        raise ValueError(f"`EntailmentTrainer` trains a transformers model, got {type(model).__name__}.")
    if config.num_labels == 2 and all(name == f"LABEL_{place}" for place, name in config.id2label.items()):
        config.id2label, config.label2id = dict(enumerate(PAIR_NAMES)), None
    if not config.label2id:  # the stock pipeline reads this one
        config.label2id = {name: place for place, name in config.id2label.items()}
    place = find_entailment_id(config)
    if place is None:
        raise ValueError(
            f"No class of the model is called entailment: {config.label2id}. Load an entailment (NLI) model, or make "
            "a new head: `AutoModelForSequenceClassification.from_pretrained(name, num_labels=2, "
            'id2label={0: "entailment", 1: "not_entailment"})`.'
        )
    return place


def seen_of(text: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Seen labels that `seen_labels` of the arguments says.

    Raises:
        ValueError: A name that is no label.
    """
    if text == "all" or not names:
        return names
    if text in ("v0", "v1"):
        return alternate_labels(names, text)
    seen = tuple(part.strip() for part in text.split(";") if part.strip())
    strange = [name for name in seen if name not in names]
    if strange or not seen:
        raise ValueError(
            f"`seen_labels` names {(strange or [text])[0]!r}, which is not a label: {', '.join(names[:8])}."
        )
    return seen


def cli_setup(
    script_args: Any, training_args: EntailmentTrainingArguments, dataset: Mapping[str, Any]
) -> EntailmentTrainer:
    """The trainer of `hf-labels train zero_shot_tc`: an entailment model, or a new head of two classes.

    Hypotheses are made from the label names and descriptions with the patterns of `aspect`.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    name, revision = script_args.model, script_args.model_revision or "main"
    head: dict[str, Any] = {}
    if find_entailment_id(AutoConfig.from_pretrained(name, revision=revision)) is None:
        pair = dict(enumerate(PAIR_NAMES))
        head = {"id2label": pair, "label2id": {v: k for k, v in pair.items()}, "ignore_mismatched_sizes": True}
    model = AutoModelForSequenceClassification.from_pretrained(name, revision=revision, **head)
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    training_args.text_column = script_args.text_column
    training_args.max_length = script_args.max_length or training_args.max_length
    described = {key: text for key, text in dict(script_args.label_descriptions).items() if text}
    names = list(dict.fromkeys([*script_args.label_names, *described]))
    hypotheses = wordnet_hypotheses(
        names, training_args.aspect, definitions=described, wordnet=None if training_args.wordnet else False
    )
    return EntailmentTrainer(
        model,
        training_args,
        train_dataset=dataset["train"],
        eval_dataset=dataset["eval"],
        processing_class=tokenizer,
        hypotheses=hypotheses,
    )
