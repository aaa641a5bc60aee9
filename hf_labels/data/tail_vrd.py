"""`DocumentDistillationCollator`: documents with a teacher's answers as batches for three kinds of students."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_labels.labels.tail_vrd import DocumentSchema
from hf_labels.labels.tail_vrd_align import align_document, tag_names

logger = logging.getLogger(__name__)

KINDS = ("chat", "donut", "tagger")
IGNORE = -100


def chat_prompt(processor: Any, instruction: str) -> str:
    """The prompt with the image's place in front of the instruction, ready for the answer.

    Without a chat template: the image token, the instruction, a line end.
    """
    if getattr(processor, "chat_template", None) is None:
        return f"{getattr(processor, 'image_token', '<image>')}\n{instruction}\n"
    return processor.apply_chat_template(_turns(instruction), add_generation_prompt=True)


def chat_ending(processor: Any) -> str:
    """What follows an answer: the end of the turn by the chat template, else the end-of-text token."""
    end = processor.tokenizer.eos_token or ""
    if getattr(processor, "chat_template", None) is None:
        return end
    mark, prompt = "@answer@", chat_prompt(processor, "?")
    turns = [*_turns("?"), {"role": "assistant", "content": [{"type": "text", "text": mark}]}]
    whole = processor.apply_chat_template(turns)
    return whole[len(prompt) :].partition(mark)[2] or end if whole.startswith(prompt) else end


def _turns(instruction: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": instruction}]}]


def stop_ids(processor: Any) -> list[int]:
    """Tokens at which an answer ends."""
    tokenizer = processor.tokenizer
    first = tokenizer(chat_ending(processor), add_special_tokens=False)["input_ids"][:1]
    found = [tokenizer.eos_token_id, *(token for token in first if token in tokenizer.all_special_ids)]
    return [token for token in dict.fromkeys(found) if token is not None]


def donut_prompt(schema: DocumentSchema) -> str:
    """What the decoder of a Donut starts with: the names of the fields."""
    return ",".join(schema.names) + ":"


def encode_words(processor: Any, rows: Sequence[Mapping[str, Any]], max_length: int | None = None) -> Any:
    """Words (with `boxes` and `image` for a LayoutLM processor) as a padded batch that knows its words.

    Cut to `max_length` tokens, the tokenizer's own limit, or 512.
    """
    longest = getattr(getattr(processor, "tokenizer", processor), "model_max_length", 512)
    max_length = min(max_length or 512, longest)
    words = [list(row["words"]) for row in rows]
    if getattr(processor, "image_processor", None) is not None:
        return processor(
            [_rgb(row["image"]) for row in rows],
            words,
            boxes=[row["boxes"] for row in rows],
            truncation=True,
            max_length=max_length,
            padding=True,
            return_tensors="pt",
        )
    return processor(
        words, is_split_into_words=True, truncation=True, max_length=max_length, padding=True, return_tensors="pt"
    )


def _rgb(image: Any) -> Any:
    from PIL import Image

    if isinstance(image, Mapping):  # a column that is not decoded
        import io

        image = Image.open(io.BytesIO(image["bytes"]) if image.get("bytes") else image["path"])
    return image.convert("RGB")


class DocumentDistillationCollator:
    """Batches of documents and a teacher's answers.

    Rows need `target_json`; fields that it lacks are left out of the instruction too. Kinds:

    | kind | rows also need | batch |
    | --- | --- | --- |
    | `"chat"`: a vision-language model | `image` | prompt (-100) and answer, `pixel_values` |
    | `"donut"`: a `VisionEncoderDecoderModel` | `image` | `decoder_input_ids`, `labels`, `pixel_values` |
    | `"tagger"`: a token classifier, LayoutLM or plain | `words` (and `boxes`, `image`) | tag ids of first sub-words |

    A tagger has no instruction: `tag_options` (B, tags) shuts out the tags of fields without a label in that document
    (removed by a gate, or a value that stands nowhere), so that "outside" is not taught in their place. A null is a
    label.

    Parameters:
        processor: Of the student; a tokenizer for a plain tagger.
        schema ([`~hf_labels.labels.tail_vrd.DocumentSchema`]): All fields.
        task (`str`, *optional*): Context in the instruction.
        kind (`str`, *optional*, defaults to `"chat"`): One of the three.
        max_target_tokens (`int`, *optional*, defaults to 512): A longer answer is cut; `truncated` then holds its
            `index`.
        confidence_weights (`bool`, *optional*, defaults to `False`): Add `loss_weights` (B, T): the tokens of a field
            weigh as much as `confidence` of the row says.
        alignment (`float`, *optional*, defaults to 0.8): Similarity from which a value is found among the words.

    Attributes:
        truncated (`set`): Rows whose answer was cut. lost (`dict[str, int]`): Values per field that stand nowhere.

    Raises:
        ValueError: For another kind, or a slow tokenizer with `confidence_weights`.
        KeyError: If a row lacks what its kind needs; names the column.
    """

    def __init__(
        self,
        processor: Any,
        schema: DocumentSchema,
        *,
        task: str = "",
        kind: str = "chat",
        max_target_tokens: int = 512,
        confidence_weights: bool = False,
        alignment: float = 0.8,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, got {kind!r}.")
        self.processor, self.schema, self.task, self.kind = processor, schema, task, kind
        self.tokenizer = getattr(processor, "tokenizer", processor)
        if confidence_weights and not getattr(self.tokenizer, "is_fast", False):
            raise ValueError("`confidence_weights` needs a fast tokenizer: only it knows where a token stands.")
        self.max_target_tokens, self.confidence_weights = max_target_tokens, confidence_weights
        self.alignment = alignment
        self.tags = {name: number for number, name in enumerate(tag_names(schema))} if kind == "tagger" else {}
        self.truncated: set[int] = set()
        self.lost: dict[str, int] = {}
        self._aligned: dict[int, tuple[list[str], list[str]]] = {}
        self._ending = chat_ending(processor) if kind == "chat" else self.tokenizer.eos_token or ""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        needed = ("target_json", "words") if self.kind == "tagger" else ("target_json", "image")
        for name in needed:
            if name not in rows[0]:
                raise KeyError(f"Column `{name}` is missing; a {self.kind} student needs: {', '.join(needed)}.")
        return {"chat": self._chat, "donut": self._donut, "tagger": self._tagger}[self.kind](rows)

    def instruction(self, row: Mapping[str, Any]) -> str:
        """What the student is asked about a row: only the fields that are labelled."""
        return self._asked(row).instruction(self.task)

    def _asked(self, row: Mapping[str, Any]) -> DocumentSchema:
        return self.schema.subset(json.loads(row["target_json"]))

    def _target(self, row: Mapping[str, Any]) -> tuple[list[int], list[float]]:
        """Token ids of an answer with its ending, and their weights."""
        text = row["target_json"]
        encoded = self.tokenizer(
            text + self._ending, add_special_tokens=False, return_offsets_mapping=self.confidence_weights
        )
        ids = list(encoded["input_ids"])
        weights = [1.0] * len(ids)
        if self.confidence_weights:
            per_char = self._char_weights(text, row)
            for place, (start, end) in enumerate(encoded["offset_mapping"]):
                inside = per_char[start:end]
                weights[place] = min(inside) if inside else 1.0
        if len(ids) > self.max_target_tokens:
            if not self.truncated:
                logger.warning("An answer has %d tokens and is cut to %d.", len(ids), self.max_target_tokens)
            self.truncated.add(row.get("index", -1))
            ids, weights = ids[: self.max_target_tokens], weights[: self.max_target_tokens]
        return ids, weights

    def _char_weights(self, text: str, row: Mapping[str, Any]) -> list[float]:
        """Weight of each character: that of the field whose value it belongs to."""
        weights, place = [1.0] * len(text), 1
        values = json.loads(text)
        for name, value in values.items():
            part = self.schema.dumps({name: value})[1:-1]
            found = text.find(part, place)
            if found < 0:
                continue
            place = found + len(part)
            weights[found:place] = [float((row.get("confidence") or {}).get(name) or 1.0)] * len(part)
        return weights

    def _chat(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = dict(
            self.processor(
                text=[chat_prompt(self.processor, self.instruction(row)) for row in rows],
                images=[[_rgb(row["image"])] for row in rows],
                padding=True,
                padding_side="left",
                return_tensors="pt",
                add_special_tokens=self.processor.chat_template is None,
            )
        )
        targets = [self._target(row) for row in rows]
        ids = _right_padded([part for part, _ in targets], self.tokenizer.pad_token_id)
        answered = _right_padded([[1] * len(part) for part, _ in targets], 0)
        width = batch["input_ids"].shape[1]
        for name, value in list(batch.items()):  # whatever else is given per token, such as token types
            if isinstance(value, Tensor) and value.shape == (len(rows), width) and name != "input_ids":
                batch[name] = torch.cat([value, answered if name == "attention_mask" else 0 * answered], 1)
        prompt = torch.full_like(batch["input_ids"], IGNORE)
        batch["input_ids"] = torch.cat([batch["input_ids"], ids], 1)
        batch["labels"] = torch.cat([prompt, ids.masked_fill(answered == 0, IGNORE)], 1)
        if self.confidence_weights:
            weights = _right_padded([part for _, part in targets], 0.0)
            batch["loss_weights"] = torch.cat([torch.zeros(prompt.shape), weights], 1)
        return batch

    def _donut(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        pixels = self.processor.image_processor([_rgb(row["image"]) for row in rows], return_tensors="pt")
        inputs, labels, weights = [], [], []
        for row in rows:
            asked = self.tokenizer(donut_prompt(self._asked(row)), add_special_tokens=False)["input_ids"]
            ids, own = self._target(row)
            start = self.tokenizer.bos_token_id
            inputs.append([self.tokenizer.pad_token_id if start is None else start, *asked, *ids[:-1]])
            labels.append([IGNORE] * len(asked) + ids)
            weights.append([0.0] * len(asked) + own)
        batch = {
            "pixel_values": pixels["pixel_values"],
            "decoder_input_ids": _right_padded(inputs, self.tokenizer.pad_token_id),
            "decoder_attention_mask": _right_padded([[1] * len(row) for row in inputs], 0),
            "labels": _right_padded(labels, IGNORE),
        }
        return batch | ({"loss_weights": _right_padded(weights, 0.0)} if self.confidence_weights else {})

    def _tags(self, row: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """Tags of the words, and the fields that nothing is known about; each document is aligned once."""
        key = hash((row["target_json"], tuple(row["words"])))
        if key not in self._aligned:
            values = json.loads(row["target_json"])
            tags, lost = align_document(values, row["words"], self.schema, self.alignment)
            unknown = [name for name in self.schema.names if name not in values or name in lost]
            self._aligned[key] = tags, unknown
            for name in lost:
                self.lost[name] = self.lost.get(name, 0) + 1
        return self._aligned[key]

    def _tagger(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        encoded = encode_words(self.processor, rows)
        labels = torch.full(encoded["input_ids"].shape, IGNORE)
        weights = torch.zeros(labels.shape)
        options = torch.ones(len(rows), len(self.tags), dtype=torch.bool)
        for number, row in enumerate(rows):
            tags, unknown = self._tags(row)
            shut = [i for tag, i in self.tags.items() if tag[2:] in unknown]
            options[number, shut] = False
            sure = row.get("confidence") or {}
            before = None
            for place, word in enumerate(encoded.word_ids(number)):
                if word is not None and word != before:
                    labels[number, place] = self.tags[tags[word]]
                    weights[number, place] = float(sure.get(tags[word][2:]) or 1.0)
                before = word
            if max((w for w in encoded.word_ids(number) if w is not None), default=-1) < len(row["words"]) - 1:
                self.truncated.add(row.get("index", -1))
        batch = {**encoded, "labels": labels, "tag_options": options}
        return batch | ({"loss_weights": weights} if self.confidence_weights else {})


def _right_padded(rows: Sequence[Sequence[Any]], fill: Any) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
