"""`distill`: train a student on a teacher's answers, by the trainer that fits its kind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from hf_labels.data.tail_vrd import DocumentDistillationCollator
from hf_labels.labels.tail_vrd import DocumentSchema
from hf_labels.labels.tail_vrd_align import tag_names
from hf_labels.labels.tail_vrd_files import TAILLabels
from hf_labels.losses.tail_vrd import response_loss
from hf_labels.models.tail_vrd import DocumentStudent, kind_of
from hf_labels.trainers.reload import load_renamed_weights

_NOT_LANGUAGE = re.compile(r"vision|visual|image|projector|connector|encoder\.|lm_head|qformer", re.IGNORECASE)
_DEFAULTS: dict[str, Any] = {
    "learning_rate": 2e-4,
    "num_train_epochs": 3,
    "warmup_steps": 0.03,
    "lr_scheduler_type": "cosine",
    "remove_unused_columns": False,  # the collator reads the columns of the documents
    "report_to": "none",
    "save_strategy": "no",
}


class _StudentTrainer:
    """Weighted losses, and checkpoints whose tensors have other names than the model's."""

    args: Any
    accelerator: Any

    def _loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool, num_items: Any, shift: bool) -> Any:
        given = {name: inputs[name] for name in inputs if name not in ("loss_weights", "labels", "tag_options")}
        outputs = model(**given)
        logits = outputs.logits
        if "tag_options" in inputs:  # tags of fields without a label are no option: "outside" is not taught instead
            logits = logits.masked_fill(~inputs["tag_options"][:, None], torch.finfo(logits.dtype).min)
        loss = response_loss(logits, inputs["labels"], inputs.get("loss_weights"), num_items, shift)
        if num_items is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # the count is of all processes, gradients are averaged
        return (loss, outputs) if return_outputs else loss

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not load_renamed_weights(self.model if model is None else model, resume_from_checkpoint):  # type: ignore[attr-defined]
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]


class ChatStudentTrainer(_StudentTrainer, SFTTrainer):
    """TRL's trainer; batches with `loss_weights` get [`response_loss`]."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None):
        if "loss_weights" in inputs:
            return self._loss(model, inputs, return_outputs, num_items_in_batch, shift=True)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


class DonutStudentTrainer(_StudentTrainer, Seq2SeqTrainer):
    """For a `VisionEncoderDecoderModel`; its decoder's labels are not shifted."""

    loss_is_scaled_for_ga = True

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None):
        return self._loss(model, inputs, return_outputs, num_items_in_batch, shift=False)


class TaggerStudentTrainer(_StudentTrainer, Trainer):
    """For a token classifier."""

    loss_is_scaled_for_ga = True

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None):
        return self._loss(model, inputs, return_outputs, num_items_in_batch, shift=False)


def lora_config(model: Any, r: int = 16, alpha: int = 32, dropout: float = 0.05) -> Any:
    """LoRA on all linear layers of the language part; the vision tower stays frozen.

    Args:
        model (`PreTrainedModel`): A vision-language model.
        r, alpha, dropout (*optional*): As in `peft.LoraConfig`.

    Raises:
        ValueError: If no linear layer is left.
    """
    from peft import LoraConfig

    names = [
        name for name, part in model.named_modules() if isinstance(part, nn.Linear) and not _NOT_LANGUAGE.search(name)
    ]
    if not names:
        raise ValueError("The model has no linear layer in a language part: give a `LoraConfig` of your own.")
    return LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=names)


def prepare_student(
    student: Any, schema: DocumentSchema, processor: Any = None, kind: str | None = None
) -> tuple[Any, Any, str]:
    """Model, processor and kind of a student that is an object, a folder or a Hub id.

    Raises:
        ValueError: If a model object comes without its processor.
        OSError: If it cannot be loaded; says how to go on without the Hub.
    """
    import transformers as hf

    if not isinstance(student, str | Path):
        if processor is None:
            raise ValueError("A model that is given as an object needs its `processor`.")
        return student, processor, kind or kind_of(student)
    name, tags = str(student), tag_names(schema)
    try:
        kind = kind or kind_of(hf.AutoConfig.from_pretrained(name))
        processor = processor or hf.AutoProcessor.from_pretrained(name)
        if kind == "tagger":
            ids = {"id2label": dict(enumerate(tags)), "label2id": {tag: i for i, tag in enumerate(tags)}}
            model = hf.AutoModelForTokenClassification.from_pretrained(name, ignore_mismatched_sizes=True, **ids)
            reader = getattr(processor, "image_processor", None)
            if reader is not None and hasattr(reader, "apply_ocr"):
                reader.apply_ocr = False  # the words are in the data
        elif kind == "donut":
            model = hf.VisionEncoderDecoderModel.from_pretrained(name)
        else:
            model = hf.AutoModelForImageTextToText.from_pretrained(name)
    except OSError as error:
        raise OSError(
            f"The student {name!r} cannot be loaded: {error} Give a local folder, or a model object with `processor`."
        ) from error
    return model, processor, kind


def make_trainer(
    labels: TAILLabels,
    model: Any,
    processor: Any,
    kind: str,
    *,
    output_dir: str = "out",
    peft_config: Any = None,
    confidence_weights: bool = False,
    max_target_tokens: int = 512,
    eval_dataset: Any = None,
    callbacks: Sequence[Any] | None = None,
    **arguments: Any,
) -> Trainer:
    """The trainer behind [`distill`], for those who want to resume it or look inside.

    Raises:
        ValueError: If there is no row.
    """
    if not len(labels):
        raise ValueError("There is no labelled document to train on.")
    collator = DocumentDistillationCollator(
        processor,
        labels.schema,
        task=labels.task,
        kind=kind,
        max_target_tokens=max_target_tokens,
        confidence_weights=confidence_weights,
    )
    settings = {**_DEFAULTS, **arguments}
    common: dict[str, Any] = {
        "data_collator": collator,
        "train_dataset": labels.dataset,
        "eval_dataset": eval_dataset,
        "processing_class": processor,
        "callbacks": list(callbacks or []),
    }
    if kind == "chat":
        if settings.get("use_cpu") or not torch.cuda.is_available():
            settings.setdefault("bf16", False)
        settings.setdefault("max_length", None)
        settings.setdefault("gradient_checkpointing", False)
        args = SFTConfig(output_dir, **settings)
        return ChatStudentTrainer(model, args, peft_config=peft_config, **common)
    if peft_config is not None:
        from peft import get_peft_model

        model = get_peft_model(model, peft_config)
    if kind == "donut":
        tokenizer = processor.tokenizer
        start = tokenizer.pad_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        model.config.decoder_start_token_id, model.config.pad_token_id = start, tokenizer.pad_token_id
        return DonutStudentTrainer(model, Seq2SeqTrainingArguments(output_dir, **settings), **common)
    return TaggerStudentTrainer(model, TrainingArguments(output_dir, **settings), **common)


def distill(
    labels: TAILLabels,
    student: Any,
    *,
    processor: Any = None,
    kind: str | None = None,
    peft_config: Any = None,
    output_dir: str = "out",
    confidence_weights: bool = False,
    max_target_tokens: int = 512,
    resume_from_checkpoint: Any = None,
    **arguments: Any,
) -> DocumentStudent:
    """Train a student on the answers of a teacher.

        student = distill(labels, "HuggingFaceTB/SmolVLM-256M-Instruct", peft_config=LoraConfig(...), output_dir="out")

    A vision-language model goes through TRL's `SFTTrainer`, a Donut through `Seq2SeqTrainer`, a token classifier
    through `Trainer`. The loss is the cross-entropy of the answer's tokens; the prompt is masked.

    Args:
        labels ([`~hf_labels.labels.tail_vrd_files.TAILLabels`]): What the teacher said.
        student: Hub id, folder, or a model object with `processor`.
        processor (*optional*), kind (`str`, *optional*): Of the student.
        peft_config (`peft.PeftConfig`, *optional*): Train an adapter; [`lora_config`] makes the usual one.
        output_dir (`str`, *optional*, defaults to `"out"`): Of the trainer.
        confidence_weights (`bool`, *optional*, defaults to `False`): Weigh the tokens of a field by the share of the
            samples that agreed on it.
        max_target_tokens (`int`, *optional*, defaults to 512): Of an answer.
        resume_from_checkpoint (*optional*): As in `Trainer.train`.
        arguments: Of `SFTConfig` (or the arguments of the other trainers). By default the learning rate is 2e-4 with
            cosine decay and 3 % warm-up, for 3 epochs.

    Returns:
        [`~hf_labels.models.tail_vrd.DocumentStudent`]: With the label report and the seconds of the training in
        `facts`.

    Raises:
        ValueError: If there is no labelled document, or a model object has no processor.
        OSError: If a student cannot be loaded by its name.
    """
    model, processor, kind = prepare_student(student, labels.schema, processor, kind)
    trainer = make_trainer(
        labels,
        model,
        processor,
        kind,
        output_dir=output_dir,
        peft_config=peft_config,
        confidence_weights=confidence_weights,
        max_target_tokens=max_target_tokens,
        **arguments,
    )
    done = trainer.train(resume_from_checkpoint=resume_from_checkpoint)
    collator: Any = trainer.data_collator
    kept = {**arguments, "confidence_weights": confidence_weights, "adapter": peft_config is not None}
    facts = {
        "teacher": labels.report.get("teacher"),
        "labels": {key: value for key, value in labels.report.items() if key != "skipped"},
        "training": {name: value for name, value in kept.items() if isinstance(value, bool | int | float | str)},
        "training_seconds": done.metrics["train_runtime"],
        "training_loss": done.training_loss,
        "truncated": len(collator.truncated),
        "lost": dict(collator.lost),
    }
    own: dict[str, Any] = {"task": labels.task, "kind": kind, "max_new_tokens": max_target_tokens, "facts": facts}
    return DocumentStudent(trainer.model, processor, labels.schema, **own)
