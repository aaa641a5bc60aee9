"""`TAILLabeler`: a multimodal language model labels documents in the words and the format of the student to come.

Source: Bhattacharyya and Tripathi, WACV 2025, arXiv:2411.14957. Its prompts are not public: these are ours.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hf_labels.labels.columns import require_columns
from hf_labels.labels.tail_vrd import DocumentSchema
from hf_labels.labels.tail_vrd_files import COLUMNS, LabelingError, TAILLabels
from hf_labels.labels.tail_vrd_gates import GatedAnswer, LabelGates, apply_gates

from .base import BlackBoxLM
from .errors import BudgetExceeded, ImageError
from .images import load_image
from .structured import Structured
from .types import Message, Request

logger = logging.getLogger(__name__)

SYSTEM = (
    "You label documents. A small model is trained on your answers as they are: it gets the same request and must "
    "give the same answer. Follow the format exactly."
)
_CHUNK = 64  # documents whose images are in memory at once
_NOT_ASKED = "the budget ended before it was asked"


class TAILLabeler:
    """Asks a teacher for the fields of documents, and keeps what passes the gates.

        labels = TAILLabeler(teacher, schema, task="expense audit").label(docs, samples=2)

    Answers are kept in the teacher's own `cache_dir`, by the hash of the image and the whole request: a run that was
    cut off, by Ctrl-C or a budget, asks only what is missing.

    Args:
        lm ([`BlackBoxLM`]): The teacher; with "vision" for images. Without, documents need their text.
        schema ([`~hf_labels.labels.tail_vrd.DocumentSchema`]): The fields.
        task (`str`, *optional*): Context, such as `"expense audit: the merchant is who was paid"`.
        instructions (`str`, *optional*): More for the teacher only, such as what to do with tips.
        gates ([`~hf_labels.labels.tail_vrd_gates.LabelGates`], *optional*): Which fields become labels;
            `LabelGates.off()` keeps everything, as the paper does.
        normalize (`bool`, *optional*, defaults to `True`): Bring values into their one form; else they stay verbatim.
        formats (`bool`, *optional*, defaults to `True`): Say how values are written; without it the teacher is not
            aware of the student's format, a control.
        temperature (`float`, *optional*, defaults to 0.3): Of several samples; a single one is greedy.
        max_new_tokens (`int`, *optional*, defaults to 512), max_repairs (`int`, *optional*, defaults to 2): Of an
            answer.
        seed (`int`, *optional*, defaults to 0): Sample s is drawn with `seed + s`.
    """

    def __init__(
        self,
        lm: BlackBoxLM,
        schema: DocumentSchema,
        *,
        task: str = "",
        instructions: str = "",
        gates: LabelGates | None = None,
        normalize: bool = True,
        formats: bool = True,
        temperature: float = 0.3,
        max_new_tokens: int = 512,
        max_repairs: int = 2,
        seed: int = 0,
    ) -> None:
        self.lm, self.schema, self.task, self.instructions = lm, schema, task, instructions
        self.gates = LabelGates() if gates is None else gates
        self.normalize, self.formats = normalize, formats
        self.temperature, self.max_new_tokens = temperature, max_new_tokens
        self.max_repairs, self.seed = max_repairs, seed

    def request(self, image: Any = None, text: str | None = None, sample: int = 0, samples: int = 1) -> Request:
        """The question about one document: the student's own instruction, the teacher's extras, image and text."""
        asked = self.schema.instruction(self.task, self.formats)
        if self.instructions:
            asked += f"\n{self.instructions}"
        if text is not None:
            asked += f"\nText of the document, read by a machine:\n<text>\n{text}\n</text>"
        parts = [{"type": "text", "text": asked}]
        content: Any = asked if image is None else [{"type": "image", "image": image}, *parts]
        return Request(
            (Message("system", SYSTEM), Message("user", content)),
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature if samples > 1 else 0.0,
            seed=self.seed + sample if samples > 1 else None,
        )

    def label(
        self,
        documents: Any,
        samples: int = 1,
        *,
        image_column: str | None = "image",
        text_column: str | None = None,
    ) -> TAILLabels:
        """Label documents.

        Args:
            documents (`datasets.Dataset` or list of images): N documents. A row whose image cannot be read is left
                out, with its reason in the report.
            samples (`int`, *optional*, defaults to 1): r, answers per document; the gate of consistency needs 2.
            image_column (`str`, *optional*, defaults to `"image"`): None for documents that are text only.
            text_column (`str`, *optional*): Text by OCR: shown to the teacher, and values are grounded in it.

        Returns:
            [`~hf_labels.labels.tail_vrd_files.TAILLabels`]: Rows to train on, and the report.

        Raises:
            KeyError: If a column is missing.
            ValueError: If there is no document, no sample, neither image nor text, or a new column is there already.
            LabelingError: If no document could be labelled; with the three most frequent reasons.
            UnsupportedCapability: If there are images and the teacher cannot see.
        """
        data = self._checked(documents, samples, image_column, text_column)
        if self.gates.grounding and text_column is None:
            logger.warning("There is no text of the documents: nothing is grounded. Give `text_column`.")
        run = _Run(self, samples)
        for start in range(0, len(data), _CHUNK):
            run.add(_rows(data, start, image_column, text_column))
        return run.result(data)

    def _checked(self, documents: Any, samples: int, image: str | None, text: str | None) -> Any:
        import datasets

        if not isinstance(documents, datasets.Dataset):
            if image is None:
                raise ValueError("A list holds images; for texts give a data set with `text_column`.")
            documents = datasets.Dataset.from_dict(
                {image: list(documents)}, features=datasets.Features({image: datasets.Image()})
            )
        if not len(documents):
            raise ValueError("There is no document to label.")
        if not isinstance(samples, int) or samples < 1:
            raise ValueError(f"`samples` must be an integer of at least 1, got {samples!r}.")
        if image is None and text is None:
            raise ValueError("Give `image_column`, `text_column` or both: there is nothing to read.")
        require_columns(documents, [name for name in (image, text) if name is not None])
        there = [name for name in COLUMNS if name in documents.column_names]
        if there:
            raise ValueError(f"The data set has the column {there[0]!r} already. Remove it first.")
        if image is not None and not isinstance(documents.features[image], datasets.Image):
            documents = documents.cast_column(image, datasets.Image())
        return documents


def _rows(data: Any, start: int, image: str | None, text: str | None) -> list[tuple[int, Any, str | None]]:
    """Row number, image (path or bytes, not decoded) and text of one chunk."""
    import datasets

    part = data.select(range(start, min(start + _CHUNK, len(data))))
    images: list[Any] = [None] * len(part)
    if image is not None:
        stored = part.select_columns([image]).cast_column(image, datasets.Image(decode=False))[image][:]
        images = [None if item is None else item["bytes"] or item["path"] or b"" for item in stored]
        images = [b"" if item is None else item for item in images]
    texts = [None] * len(part) if text is None else part[text][:]
    return [(start + i, images[i], texts[i]) for i in range(len(part))]


class _Run:
    """One labelling: what was kept, what was skipped and why."""

    def __init__(self, labeler: TAILLabeler, samples: int) -> None:
        self.labeler, self.samples, self.schema = labeler, samples, labeler.schema
        self.kept: list[tuple[int, GatedAnswer, list[str]]] = []
        self.skipped: list[dict[str, Any]] = []
        self.kinds: Counter[str] = Counter()
        self.flags: Counter[str] = Counter()
        self.checks: Counter[str] = Counter()
        self.status = {name: Counter[str]() for name in self.schema.names}
        self.repairs, self.stopped = 0, False
        self._before = labeler.lm.usage

    def add(self, rows: Sequence[tuple[int, Any, str | None]]) -> None:
        readable = []
        for row, image, text in rows:
            try:
                if image is not None:
                    load_image(image)
                if image is None and not (text or "").strip():
                    raise ImageError("there is no text.")
                readable.append((row, image, text))
            except ImageError as error:
                self._skip(row, "unreadable", str(error))
        answers = self._ask(readable)
        for number, (row, _, text) in enumerate(readable):
            self._judge(row, text, answers[number * self.samples : (number + 1) * self.samples])

    def _ask(self, rows: Sequence[tuple[int, Any, str | None]]) -> list[Structured | None]:
        count = self.samples
        if self.stopped or not rows:
            return [None] * (len(rows) * count)
        asked = [self.labeler.request(image, text, s, count) for _, image, text in rows for s in range(count)]
        limit = self.labeler.max_repairs
        try:
            return list(self.labeler.lm.generate_json(asked, self.schema.json_schema(), max_repairs=limit))
        except BudgetExceeded as error:
            logger.warning("%s Label again with a larger budget: answers in the cache are not asked again.", error)
            self.stopped = True
            found: list[Structured | None] = list(error.partial)
            unfinished = [one is not None and one.value is None and one.repairs < limit for one in found]
            return [None if open_ else one for one, open_ in zip(found, unfinished, strict=True)]

    def _judge(self, row: int, text: str | None, answers: Sequence[Structured | None]) -> None:
        if any(answer is None for answer in answers):
            return self._skip(row, "not_asked", _NOT_ASKED)
        done = [answer for answer in answers if answer is not None]
        self.repairs += sum(answer.repairs for answer in done)
        values = [dict(answer.value) for answer in done if answer.value is not None]
        if not values:
            return self._skip(row, "invalid", str(done[0].error))
        flags: dict[str, str] = {}
        if self.labeler.normalize:
            read = [self.schema.normalize(value) for value in values]
            values, flags = [value for value, _ in read], read[0][1]
        gated = apply_gates(values, self.schema, self.labeler.gates, text, asked=self.samples)
        for name, verdict in gated.status.items():
            self.status[name][verdict] += 1
        self.flags.update(flags.values())
        self.checks.update(gated.failed_checks)
        if not gated.kept:
            return self._skip(row, "empty", "no field passed the gates")
        self.kept.append((row, gated, [f"{name}: {why}" for name, why in flags.items()]))

    def _skip(self, row: int, kind: str, reason: str) -> None:
        self.kinds[kind] += 1
        self.skipped.append({"row": row, "status": kind, "reason": reason})

    def result(self, data: Any) -> TAILLabels:
        import datasets

        if not self.kept:
            reasons = Counter(f"{item['status']}: {item['reason']}" for item in self.skipped).most_common(3)
            told = "; ".join(f"{reason} ({count})" for reason, count in reasons)
            raise LabelingError(f"None of {len(data)} documents could be labelled. Most frequent reasons: {told}.")
        names, text = self.schema.names, datasets.Value("string")
        columns = {
            "target_json": [self._target(gated) for _, gated, _ in self.kept],
            "field_status": [gated.status for _, gated, _ in self.kept],
            "confidence": [gated.confidence for _, gated, _ in self.kept],
            "flags": [flags for _, _, flags in self.kept],
            "teacher": [self.labeler.lm.model_id] * len(self.kept),
        }
        kinds: dict[str, Any] = {name: text for name in COLUMNS}
        kinds |= {"field_status": dict.fromkeys(names, text), "flags": datasets.List(text)}
        kinds |= {"confidence": dict.fromkeys(names, datasets.Value("float64"))}
        rows = [row for row, _, _ in self.kept]
        if "index" not in data.column_names:
            columns["index"], kinds["index"] = rows, datasets.Value("int64")
        new = datasets.Dataset.from_dict(columns, features=datasets.Features({k: kinds[k] for k in columns}))
        out = datasets.concatenate_datasets([data.select(rows).flatten_indices(), new], axis=1)
        labeler = self.labeler
        return TAILLabels(out, self.schema, self._report(len(data)), labeler.task, labeler.formats)

    def _target(self, gated: GatedAnswer) -> str:
        return self.schema.dumps({name: gated.values[name] for name in gated.kept})

    def _report(self, documents: int) -> dict[str, Any]:
        after = self.labeler.lm.usage.to_dict()
        spent = {name: after[name] - old for name, old in self._before.to_dict().items()}
        return {
            "teacher": self.labeler.lm.model_id,
            "samples": self.samples,
            "documents": documents,
            "labelled": len(self.kept),
            **{kind: self.kinds[kind] for kind in ("unreadable", "invalid", "empty", "not_asked")},
            "repairs": self.repairs,
            "skipped": self.skipped,
            "status": {name: dict(counts) for name, counts in self.status.items()},
            "flags": dict(self.flags),
            "failed_checks": dict(self.checks),
            "usage": spent,
        }
