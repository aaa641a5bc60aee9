"""MCL: pre-train an ELECTRA discriminator on the labels that its own generator makes."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import AutoConfig, AutoTokenizer, DataCollatorWithPadding, ElectraForPreTraining

from hf_labels.data.rng import derive_seed
from hf_labels.losses.mcl_electra import COURSES, total_loss
from hf_labels.losses.mcl_electra_noise import RowNoise
from hf_labels.models.mcl_electra import MCLElectraForPreTraining
from hf_labels.models.mcl_electra_config import MCLElectraConfig, scheduled_courses
from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments

CLI_KINDS: dict[str, str] = {}  # text is enough
_EVALUATION = 2**31  # the step number of evaluation draws: none that training reaches


@dataclass
class MCLElectraTrainingArguments(LabelTrainingArguments):
    """Arguments of [`MCLElectraTrainer`]. Courses, weights and schedule are fields of the model's config.

    Parameters:
        correction_start (`float`, *optional*, defaults to `0.0`):
            Share of the steps after which the correction courses begin, in `[0, 1)`.
        push_part (`str`, *optional*, defaults to `"discriminator"`):
            What `push_to_hub` uploads: `"discriminator"` (a stock encoder), `"generator"` (a stock masked language
            model) or `"both"` (to train on; needs `hf_labels` to load).

    > [!NOTE] Defaults that differ from [`~transformers.TrainingArguments`]: `learning_rate` 5e-4, `weight_decay` 0.01,
    > `warmup_steps` 0.08, `adam_beta2` 0.98, `adam_epsilon` 1e-6, `max_grad_norm` 2.
    """

    correction_start: float = field(
        default=0.0, metadata={"help": "Share of the steps after which corrections begin, in [0, 1)."}
    )
    push_part: str = field(
        default="discriminator",
        metadata={"help": "What is pushed to the Hub.", "choices": ["discriminator", "generator", "both"]},
    )
    learning_rate: float = field(default=5e-4, metadata={"help": "Peak learning rate."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay."})
    warmup_steps: float = field(default=0.08, metadata={"help": "Warm-up: steps, or a share of them below 1."})
    adam_beta2: float = field(default=0.98, metadata={"help": "Second beta of Adam."})
    adam_epsilon: float = field(default=1e-6, metadata={"help": "Epsilon of Adam."})
    max_grad_norm: float = field(default=2.0, metadata={"help": "Largest norm of the gradient."})

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.correction_start < 1:
            raise ValueError(f"`correction_start` must be in [0, 1), got {self.correction_start}.")
        if self.push_part not in ("discriminator", "generator", "both"):
            raise ValueError(f"`push_part` must be 'discriminator', 'generator' or 'both', got {self.push_part!r}.")


class MCLElectraTrainer(LabelTrainer):
    """Trains an [`MCLElectraForPreTraining`].

    Inputs: `input_ids` (T,) with special tokens | `attention_mask`, `special_tokens_mask`, `token_type_ids`, optional.

    No label is read: the labels are made in each step. What a text draws depends on the seed, the step and the text
    alone, so a resumed run, accumulated batches and several processes see the corruptions of one plain run. The losses
    of the first courses are means over all tokens of an update. Those of the corrections are means over the notebook
    of each device batch, whose size is only known after the first pass: accumulated batches count alike there.

    Logged for each course: `<course>_gen_loss`, `<course>_disc_loss`, `<course>_label_balance` (share of label 1, see
    [`plot_label_balance`]), `<course>_accuracy`. Evaluation runs all courses on draws that never change.

    Raises:
        TypeError: If the model is no `MCLElectraForPreTraining`.
        KeyError: If the data has no `input_ids`.
        ValueError: For empty data, rows that are too long or have a token id outside the vocabulary (row named), or
            data without any maskable token.

    Source: Chen et al. 2023, arXiv:2305.03981; see [`hf_labels.losses.mcl_electra`] for what is our own definition.
    """

    _slug = "mcl_electra"
    _required_columns = ("input_ids",)
    args: MCLElectraTrainingArguments

    def __init__(self, model: Any = None, args: Any = None, data_collator: Any = None, *rest: Any, **kwargs: Any):
        if not isinstance(model, MCLElectraForPreTraining):
            raise TypeError(
                f"`MCLElectraTrainer` trains an `MCLElectraForPreTraining`, got {type(model).__name__}. Make one with "
                "`MCLElectraForPreTraining.from_electra(generator, discriminator)` or from a `MCLElectraConfig`."
            )
        args = args if args is not None else MCLElectraTrainingArguments()
        tokenizer: Any = kwargs.get("processing_class")
        if data_collator is None and hasattr(tokenizer, "pad"):
            data_collator = DataCollatorWithPadding(tokenizer)
        super().__init__(model, args, data_collator, *rest, **kwargs)
        self.disc_tokens = 0  # tokens that this process's discriminator read in training

    @property
    def bare_model(self) -> MCLElectraForPreTraining:
        """The model without wrappers."""
        return self.accelerator.unwrap_model(self.model)

    def num_classes(self) -> None:
        return None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.train`; checks the token ids first."""
        for name, data in (("train_dataset", self.train_dataset), ("eval_dataset", self.eval_dataset)):
            parts = data.items() if isinstance(data, Mapping) else [(name, data)]
            for key, part in parts:
                if isinstance(part, datasets.Dataset) and "input_ids" in part.column_names and len(part):
                    check_token_ids(part, self.bare_model.config, key)
        return super().train(*args, **kwargs)

    # Loss

    def courses(self) -> tuple[str, ...]:
        """Courses of this step: those of the schedule, or all when evaluating."""
        config = self.bare_model.config
        if self._eval_rows is not None:
            return tuple(config.courses)
        begun = self.state.global_step >= self.args.correction_start * max(self.state.max_steps, 0)
        return scheduled_courses(config.courses, config.course_schedule, self.state.global_step, begun)

    def noise(self, inputs: Mapping[str, Any]) -> RowNoise:
        """Random numbers of this step for a batch."""
        step = self.state.global_step if self._eval_rows is None else _EVALUATION
        mask, _ = self.bare_model.prepare(inputs["input_ids"], inputs.get("attention_mask"))
        return RowNoise(inputs["input_ids"], mask, derive_seed(self.args.seed, step))

    def count_items(self, inputs):
        names = ("input_ids", "attention_mask", "special_tokens_mask")
        return self.bare_model.counts(*(inputs.get(name) for name in names))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        courses = self.courses()
        outputs = model(**self.model_inputs(inputs), courses=courses, generator=self.noise(inputs))
        terms, config = outputs.terms, self.bare_model.config
        gen = {
            name: self.mean_over_update(total, f"{name}_gen", terms.gen_counts[name])
            for name, total in terms.gen_sums.items()
        }
        disc = {
            name: self.mean_over_update(total, f"{name}_disc", terms.disc_counts[name])
            for name, total in terms.disc_sums.items()
        }
        # The part without value that keeps every parameter in the graph comes with the model's own loss.
        loss = total_loss(gen, disc, config.course_weights, config.disc_weight) + 0.0 * outputs.loss
        for kind in ("gen_losses", "disc_losses", "label_balance", "accuracy"):
            suffix = kind.replace("losses", "loss")
            self.log_terms(**{f"{name}_{suffix}": value for name, value in outputs[kind].items()})
        if self._eval_rows is None:
            self.disc_tokens = self.disc_tokens + outputs.disc_tokens.detach()
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Loss, and the discriminator's scores and labels (-100 = not judged) of the first course that runs."""
        self._eval_rows = len(inputs["input_ids"])
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        loss = loss.detach().mean()
        return (loss, None, None) if prediction_loss_only else (loss, outputs.logits.detach(), outputs.labels)

    # What is kept

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Upload the part named by `args.push_part`, with tokenizer and card; the whole model stays in `output_dir`.

        The part is also kept in a folder of its name in `output_dir`. Arguments as in `Trainer.push_to_hub`.
        """
        part = self.args.push_part
        if part == "both":
            return super().push_to_hub(commit_message, blocking, token, revision, private, **kwargs)
        token = token if token is not None else self.args.hub_token
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        from huggingface_hub import HfApi

        name = kwargs.pop("model_name", None) or str(self.hub_model_id).split("/")[-1]
        self.create_model_card(model_name=name, **kwargs)
        output = Path(self.args.output_dir or ".")
        self.export(output / part)
        shutil.copy2(output / "README.md", output / part / "README.md")
        upload: Any = HfApi().upload_folder
        return upload(
            repo_id=self.hub_model_id,
            folder_path=str(output / part),
            commit_message=commit_message,
            token=token,
            run_as_future=not blocking,
            revision=revision or self.args.hub_revision,
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """During training only the whole model is pushed; a part goes up when `push_to_hub` is called."""
        if self.args.push_part == "both":
            super()._push_from_checkpoint(checkpoint_folder)

    def export(self, folder: str | Path) -> None:
        """Write the stock model named by `args.push_part`, and the tokenizer, into a folder."""
        model: Any = self.bare_model
        if self.args.push_part != "both":
            discriminator = self.args.push_part == "discriminator"
            model = model.export_discriminator() if discriminator else model.export_generator()
        model.save_pretrained(folder)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)


def check_token_ids(data: Any, config: Any, name: str = "dataset") -> None:
    """Check that rows fit the networks.

    Raises:
        ValueError: A token id outside the vocabulary or a row that is too long (row named), or no row with a token
            that may be corrupted.
    """
    size, longest, special = config.discriminator_config.vocab_size, config.row_limit, set(config.special_token_ids)
    anything = False
    for number, ids in enumerate(data["input_ids"]):
        ids = list(map(int, ids))
        if len(ids) > longest:
            raise ValueError(
                f"`{name}` has {len(ids)} tokens at row {number}, the networks read {longest}. Tokenise with "
                f"`truncation=True, max_length={longest}`."
            )
        if ids and not 0 <= min(ids) <= max(ids) < size:
            bad = next(i for i in ids if not 0 <= i < size)
            raise ValueError(
                f"`input_ids` of `{name}` must be in [0, {size}), got {bad} at row {number}. Use the tokenizer that "
                "the networks were made for."
            )
        anything = anything or any(i not in special for i in ids)
    if not anything:
        raise ValueError(
            f"No row of `{name}` has a token that may be corrupted: all ids are special ({sorted(special)}). Check "
            "`special_token_ids` of the config."
        )


def cli_setup(
    script_args: Any, training_args: MCLElectraTrainingArguments, dataset: Mapping[str, Any]
) -> MCLElectraTrainer:
    """The trainer of `hf-labels train mcl_electra`, on the text column.

    `--model` names a saved [`MCLElectraForPreTraining`], whose courses and weights go on, or a stock discriminator
    called `...-discriminator` beside a generator called `...-generator`; all five courses then.

    Raises:
        OSError: If a model cannot be found.
        ValueError: Another kind of model or name, a tokenizer without mask token, or a `max_length` that is too long.
    """
    source, revision = script_args.model.rstrip("/"), script_args.model_revision
    tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    kind = AutoConfig.from_pretrained(source, revision=revision).model_type
    if kind == MCLElectraConfig.model_type:
        model = MCLElectraForPreTraining.from_pretrained(source, revision=revision)
    elif kind == "electra" and source.endswith("-discriminator"):
        judge = ElectraForPreTraining.from_pretrained(source, revision=revision)
        generator = source.removesuffix("-discriminator") + "-generator"
        model = MCLElectraForPreTraining.from_electra(generator, judge, tokenizer=tokenizer)
    else:
        raise ValueError(
            f"--model {source!r} is neither a saved MCLElectraForPreTraining nor an ELECTRA model whose name ends in "
            "`-discriminator`, with its generator beside it. `MCLElectraForPreTraining.from_electra` makes the first."
        )
    longest = model.config.row_limit
    length = script_args.max_length or longest
    if length > longest:
        raise ValueError(f"`max_length` is {length}, the networks read at most {longest} tokens.")

    def tokenize(rows: Mapping[str, Any]) -> Any:
        return tokenizer(rows[script_args.text_column], truncation=True, max_length=length)

    parts = {
        name: part and part.map(tokenize, batched=True, remove_columns=part.column_names, desc=f"Tokenizing ({name})")
        for name, part in dataset.items()
    }
    return MCLElectraTrainer(
        model, training_args, train_dataset=parts["train"], eval_dataset=parts["eval"], processing_class=tokenizer
    )


def label_balance_history(log_history: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Share of label 1 over time, by course: `(step, share)` of every log of `trainer.state.log_history`."""
    found: dict[str, list[tuple[int, float]]] = {}
    for entry in log_history:
        for name in COURSES:
            if f"{name}_label_balance" in entry:
                found.setdefault(name, []).append((int(entry["step"]), float(entry[f"{name}_label_balance"])))
    return found


def plot_label_balance(log_history: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Draw [`label_balance_history`] into a picture.

    Raises:
        ValueError: If nothing was logged.
    """
    history = label_balance_history(log_history)
    if not history:
        raise ValueError("No label balance was logged: train first, with `logging_steps` below the number of steps.")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4))
    for name, points in history.items():
        axis.plot(*zip(*points, strict=True), label=name)
    axis.set_xlabel("step")
    axis.set_ylabel("share of label 1")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
    return Path(path)
