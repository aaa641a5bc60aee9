"""`DocumentStudent`: a small model that reads the fields of documents in place of its teacher."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hf_labels.data.tail_vrd import KINDS, chat_prompt, donut_prompt, encode_words, stop_ids
from hf_labels.labels.tail_vrd import DocumentSchema, merge_pages
from hf_labels.labels.tail_vrd_align import read_tags, tag_names
from hf_labels.labels.tail_vrd_answers import read_answer
from hf_labels.labels.tail_vrd_scores import extraction_scores

STUDENT_FILE, INSTRUCTION_FILE = "student.json", "instruction.txt"
_CLASSES = {
    "chat": "AutoModelForImageTextToText",
    "donut": "VisionEncoderDecoderModel",
    "tagger": "AutoModelForTokenClassification",
}


def kind_of(model: Any) -> str:
    """`"chat"`, `"donut"` or `"tagger"`, by the configuration of a model."""
    config = getattr(model, "config", model)
    names = [type(model).__name__, *(getattr(config, "architectures", None) or [])]
    if any(name.endswith("ForTokenClassification") for name in names) or config.model_type.startswith("layoutlm"):
        return "tagger"
    return "donut" if config.model_type == "vision-encoder-decoder" else "chat"


class DocumentStudent:
    """A model, its processor and the schema, as one thing that extracts, saves and loads.

    Parameters:
        model (`PreTrainedModel`): A vision-language model with a chat template, a `VisionEncoderDecoderModel`, or a
            token classifier whose tags are those of the schema.
        processor: Its processor; a tokenizer for a plain tagger.
        schema ([`~hf_labels.labels.tail_vrd.DocumentSchema`]): The fields.
        task (`str`, *optional*): Context in the instruction, as in training.
        kind (`str`, *optional*): `"chat"`, `"donut"` or `"tagger"`; by default what the model is.
        max_new_tokens (`int`, *optional*, defaults to 512): Of an answer.
        facts (`dict`, *optional*): Of the training: teacher, label report, seconds. Saved with it.

    Raises:
        ValueError: If the tags of a tagger are not those of the schema.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        schema: DocumentSchema,
        *,
        task: str = "",
        kind: str | None = None,
        max_new_tokens: int = 512,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.processor, self.schema, self.task = model, processor, schema, task
        self.kind = kind or kind_of(model)
        if self.kind not in KINDS:
            raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, got {self.kind!r}.")
        self.max_new_tokens, self.facts = max_new_tokens, dict(facts or {})
        self.answers: dict[str, int] = {}
        if self.kind == "tagger" and list(model.config.id2label.values()) != tag_names(schema):
            raise ValueError("The tags of the model are not those of the schema: make it with `tag_names(schema)`.")

    def extract(self, image: Any = None, *, words: Any = None, boxes: Any = None, text: str | None = None) -> dict:
        """The fields of one document; every key of the schema, None where nothing was found.

        Args:
            image (PIL image, path or bytes, *optional*): For a student that sees.
            words (list of `str`, *optional*), boxes (*optional*): For a tagger, by OCR; boxes in 0..1000.
            text (`str`, *optional*): For a plain tagger, split at white space.
        """
        return self.extract_many([{"image": image, "words": words, "boxes": boxes, "text": text}])[0]

    def extract_pages(self, pages: Sequence[Any], join_lists: bool = False) -> dict[str, Any]:
        """The fields of a document of several pages: page by page, the first value that is not None."""
        rows = [page if isinstance(page, Mapping) else {"image": page} for page in pages]
        return merge_pages(self.schema, self.extract_many(rows), join_lists)

    @torch.no_grad()
    def extract_many(self, rows: Any, batch_size: int = 8) -> list[dict[str, Any]]:
        """The fields of many documents.

        Args:
            rows (`datasets.Dataset` or sequence of `dict`): With `image`, or `words` (`boxes`), or `text`.
            batch_size (`int`, *optional*, defaults to 8): Documents at once.

        Raises:
            ValueError: If a row has nothing that this student reads; names it.
        """
        self.answers = {"ok": 0, "repaired": 0, "failed": 0}
        training = self.model.training
        self.model.eval()
        found: list[dict[str, Any]] = []
        try:
            for start in range(0, len(rows), batch_size):
                part = [self._row(rows[i], i) for i in range(start, min(start + batch_size, len(rows)))]
                found += self._tagged(part) if self.kind == "tagger" else self._written(part)
        finally:
            self.model.train(training)
        return found

    def _row(self, row: Mapping[str, Any], number: int) -> dict[str, Any]:
        from hf_labels.lm.images import load_image

        row = dict(row)
        if self.kind == "tagger":
            if row.get("words") is None and row.get("text") is not None:
                row["words"] = row["text"].split()
            if row.get("words") is None:
                raise ValueError(f"Document {number} has neither `words` nor `text`: this student tags words.")
        elif row.get("image") is None:
            raise ValueError(f"Document {number} has no `image`: this student reads images.")
        if row.get("image") is not None:
            row["image"] = load_image(row["image"])
        return row

    def _written(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        images, tokenizer = [row["image"] for row in rows], self.processor.tokenizer
        options: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "do_sample": False}
        options["pad_token_id"] = tokenizer.pad_token_id
        if self.kind == "chat":
            prompt = chat_prompt(self.processor, self.schema.instruction(self.task))
            inputs = self.processor(
                text=[prompt] * len(rows),
                images=[[image] for image in images],
                padding=True,
                padding_side="left",
                return_tensors="pt",
                add_special_tokens=self.processor.chat_template is None,
            )
            options["eos_token_id"] = stop_ids(self.processor)
            start = inputs["input_ids"].shape[1]
        else:
            inputs = self.processor.image_processor(images, return_tensors="pt")
            asked = tokenizer(donut_prompt(self.schema), add_special_tokens=False)["input_ids"]
            first = tokenizer.pad_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
            inputs["decoder_input_ids"] = torch.tensor([[first, *asked]] * len(rows))
            options |= {"eos_token_id": tokenizer.eos_token_id, "decoder_start_token_id": first}
            start = 1 + len(asked)
        moved = {name: value.to(self.model.device) for name, value in inputs.items()}
        written = self.model.generate(**moved, **options)[:, start:]
        found = []
        for text in tokenizer.batch_decode(written, skip_special_tokens=True):
            values, how = read_answer(text, self.schema)
            self.answers[how] += 1
            found.append(values)
        return found

    def _tagged(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        written = [row for row in rows if any(word.strip() for word in row["words"])]
        found = iter(self._tagged_words(written) if written else [])
        self.answers["ok"] += len(written)
        self.answers["failed"] += len(rows) - len(written)
        return [next(found) if any(word.strip() for word in row["words"]) else self.schema.empty() for row in rows]

    def _tagged_words(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        encoded = encode_words(self.processor, rows, getattr(self.model.config, "max_position_embeddings", None))
        moved = {name: value.to(self.model.device) for name, value in encoded.items()}
        best = self.model(**moved).logits.softmax(-1).max(-1)
        found = []
        for number, row in enumerate(rows):
            tags, scores = ["O"] * len(row["words"]), [0.0] * len(row["words"])
            before = None
            for place, word in enumerate(encoded.word_ids(number)):
                if word is not None and word != before:
                    tags[word] = self.model.config.id2label[int(best.indices[number, place])]
                    scores[word] = float(best.values[number, place])
                before = word
            found.append(read_tags(tags, row["words"], self.schema, scores))
        return found

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write model (or adapter), processor, schema, instruction and facts.

        An adapter on a base that has no name, and could not be found again, is merged into it first.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        if hasattr(self.model, "merge_and_unload") and not self.base_model:
            self.model = self.model.merge_and_unload()
        self.model.save_pretrained(str(place))
        self.processor.save_pretrained(str(place))
        self.schema.save(place)
        (place / INSTRUCTION_FILE).write_text(self.schema.instruction(self.task) + "\n", encoding="utf-8")
        facts = {"kind": self.kind, "task": self.task, "max_new_tokens": self.max_new_tokens, "facts": self.facts}
        facts["sees"] = hasattr(self.processor, "image_processor")
        (place / STUDENT_FILE).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return place

    @property
    def base_model(self) -> str | None:
        """Name of the checkpoint that training began from, if it has one."""
        return getattr(self.model.config, "_name_or_path", "") or None

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], **kwargs: Any) -> DocumentStudent:
        """From a folder or the Hub; `kwargs` go to the model's `from_pretrained` (`dtype`, `device_map`, ...).

        Raises:
            FileNotFoundError: If there is no `student.json`: it is another model.
        """
        import transformers

        place = Path(name)
        if not place.is_dir():
            from huggingface_hub import snapshot_download

            place = Path(snapshot_download(str(name)))
        if not (place / STUDENT_FILE).is_file():
            raise FileNotFoundError(f"{name} holds no {STUDENT_FILE}: it was not saved by `DocumentStudent`.")
        facts = json.loads((place / STUDENT_FILE).read_text(encoding="utf-8"))
        auto = getattr(transformers, _CLASSES[facts["kind"]])
        adapter = place / "adapter_config.json"
        if adapter.is_file():
            from peft import PeftModel

            base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
            model = PeftModel.from_pretrained(auto.from_pretrained(base, **kwargs), str(place))
        else:
            model = auto.from_pretrained(str(place), **kwargs)
        reader = transformers.AutoProcessor if facts["sees"] else transformers.AutoTokenizer
        processor = reader.from_pretrained(str(place))
        own = {key: facts[key] for key in ("task", "kind", "max_new_tokens", "facts")}
        return cls(model, processor, DocumentSchema.load(place), **own)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        cost: Any = None,
        results: Sequence[Any] = (),
        license: str | None = None,
        private: bool | None = None,
        token: Any = None,
    ) -> Any:
        """Push everything with a card.

        Args:
            repo_id (`str`): Where to.
            cost ([`~hf_labels.labels.tail_vrd_cost.CostModel`], *optional*): Its table goes into the card.
            results (sequence of [`~hf_labels.hub_cards.ResultRow`], *optional*): What was measured.
            license, private, token (*optional*): Of the repository.

        Returns:
            `CommitInfo`
        """
        import tempfile

        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            self.save_card(folder, repo_id, cost=cost, results=results, license=license)
            return api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload student")

    def save_card(
        self,
        folder: str | os.PathLike[str],
        model_id: str,
        *,
        cost: Any = None,
        results: Sequence[Any] = (),
        license: str | None = None,
    ) -> Path:
        """Write the card into a folder, with the table of costs."""
        from hf_labels.hub_cards import render_card, save_card

        report = self.facts.get("labels") or {}
        shown = {key: value for key, value in report.items() if isinstance(value, int | float | str)}
        extra = {**shown, **(cost.table() if cost is not None else {})}
        card = render_card(
            "tail_vrd",
            model_id=model_id,
            base_model=self.base_model,
            license=license,
            training=self.facts.get("training"),
            results=results,
            labels={spec.name: f"{spec.type}: {spec.description or spec.rule}" for spec in self.schema.fields},
            label_assumptions=[f"Task: {self.task}"] if self.task else None,
            extra=extra,
            pipeline_tag="token-classification" if self.kind == "tagger" else "image-text-to-text",
        )
        return save_card(card, folder, overwrite=True)


def evaluate_extraction(
    student: Any, gold: Any, *, truth_column: str = "truth", metric: str | None = None, threshold: float = 0.5
) -> Any:
    """How well a student reads documents whose fields are known.

    Args:
        student ([`DocumentStudent`]): Or whatever has `extract_many` and `schema`.
        gold (`datasets.Dataset` or sequence of `dict`): Documents with the truth.
        truth_column (`str`, *optional*, defaults to `"truth"`): Right values, a dict or its JSON.
        metric (`str`, *optional*): Only this number, such as `"anls"`, in place of all.
        threshold (`float`, *optional*, defaults to 0.5): Of ANLS.

    Returns:
        `dict` of [`~hf_labels.labels.tail_vrd_scores.extraction_scores`] with `seconds_per_document`, or one number.

    Raises:
        KeyError: If the column is missing, or there is no such metric.
        ValueError: If there is no document.
    """
    if not len(gold):
        raise ValueError("There is no document to score.")
    if truth_column not in gold[0]:
        raise KeyError(f"Column `{truth_column}` is missing. Pass `truth_column=...`.")
    truths = [gold[i][truth_column] for i in range(len(gold))]
    start = time.perf_counter()
    found = student.extract_many(gold)
    seconds = (time.perf_counter() - start) / len(gold)
    right = [json.loads(one) if isinstance(one, str) else one for one in truths]
    scores = extraction_scores(found, right, student.schema, threshold) | {"seconds_per_document": seconds}
    if metric is None:
        return scores
    if metric not in scores:
        raise KeyError(f"There is no metric {metric!r}; there are: {', '.join(scores)}.")
    return scores[metric]
