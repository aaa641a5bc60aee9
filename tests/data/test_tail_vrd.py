"""Receipts with a known truth, and batches for the three kinds of students."""

import json

import numpy as np
import pytest
import torch
from tail_vrd_toys import SCHEMA, receipts, tiny_donut, tiny_tagger, tiny_vlm, toy_labels

from hf_labels.data.tail_vrd import DocumentDistillationCollator, chat_ending, chat_prompt, stop_ids
from hf_labels.data.tail_vrd_receipts import draw_receipts, receipt_schema
from hf_labels.labels.tail_vrd_gates import GroundedText, sum_check


@pytest.fixture(scope="module")
def labels():
    return toy_labels(4)


def rows(labels, keep=None):
    found = [labels.dataset[i] for i in range(len(labels))]
    for row in found:
        if keep:
            row["target_json"] = SCHEMA.dumps({k: v for k, v in json.loads(row["target_json"]).items() if k in keep})
    return found


def test_receipts_are_true_varied_and_repeatable():
    data = draw_receipts(24, seed=3)
    schema = receipt_schema()
    assert set(data["language"][:]) == {"en", "de", "fr"} and len(set(data["layout"][:])) == 3
    for row in data:
        truth = json.loads(row["truth"])
        assert schema.canonical(truth) == row["truth"] and sum_check().test(truth)
        text = GroundedText(row["text"])
        assert all(text.holds(truth[name], schema[name]) for name in schema.names), row["text"]
        assert len(row["words"]) == len(row["boxes"]) and np.ptp(np.asarray(row["image"])) > 100
        for left, top, right, bottom in row["boxes"]:
            assert 0 <= left < right <= 1000 and 0 <= top < bottom <= 1000
    again = draw_receipts(3, seed=3)
    for one, two in zip(again, data, strict=False):
        assert one["truth"] == two["truth"] and np.array_equal(one["image"], two["image"])
    assert draw_receipts(3, seed=4)["truth"][:] != again["truth"][:]


def test_text_of_small_receipts_is_not_cut_off():
    for row in draw_receipts(20, size=(96, 64), items=(0, 0), font_size=20, noise=0):
        assert max(box[2] for box in row["boxes"]) < 1000 and "items" not in json.loads(row["truth"])


@pytest.mark.parametrize("options", [{"count": 0}, {"languages": ["xx"]}, {"noise": 2}, {"items": (3, 1)}])
def test_bad_receipts_are_refused(options):
    with pytest.raises(ValueError, match="languages|Need a count"):
        draw_receipts(**{"count": 1, **options})


def test_chat_masks_the_prompt_and_ends_the_answer(labels):
    _, processor = tiny_vlm(labels)
    collator = DocumentDistillationCollator(processor, SCHEMA, task="audit")
    batch = collator(rows(labels))
    assert batch["pixel_values"].shape == (4, 3, 16, 16)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    for number, row in enumerate(rows(labels)):
        answer = batch["labels"][number]
        ids = answer[answer != -100]
        assert processor.tokenizer.decode(ids) == row["target_json"] + "<|end|>"
        known = batch["attention_mask"][number].bool()
        text = processor.tokenizer.decode(batch["input_ids"][number][known])
        prompt = chat_prompt(processor, SCHEMA.instruction("audit"))
        assert text == prompt.replace("<image>", "<image>" * 4) + row["target_json"] + "<|end|>"
    assert stop_ids(processor) == processor.tokenizer.convert_tokens_to_ids(["<eos>", "<|end|>"])


def test_fields_that_are_left_out_are_not_asked_for(labels):
    _, processor = tiny_vlm(labels)
    collator = DocumentDistillationCollator(processor, SCHEMA)
    row = rows(labels, keep=("vendor", "total"))[0]
    assert "date" not in collator.instruction(row) and "total" in collator.instruction(row)
    batch = collator([row])
    assert "date" not in processor.tokenizer.decode(batch["input_ids"][0])


def test_weights_follow_the_confidence_of_each_field(labels):
    _, processor = tiny_vlm(labels)
    collator = DocumentDistillationCollator(processor, SCHEMA, confidence_weights=True)
    row = rows(labels)[0] | {"confidence": {"vendor": 1.0, "date": 0.5, "total": 0.25}}
    batch = collator([row])
    weights, answer = batch["loss_weights"][0], batch["labels"][0]
    assert not weights[answer == -100].any() and set(weights.tolist()) == {0.0, 0.25, 0.5, 1.0}
    tokenizer = processor.tokenizer
    quarter = tokenizer.decode(answer[(weights == 0.25) & (answer != -100)])
    assert json.loads(row["target_json"])["total"] in quarter and "vendor" not in quarter
    with pytest.raises(ValueError, match="fast tokenizer"):
        DocumentDistillationCollator(object(), SCHEMA, confidence_weights=True)


def test_long_answers_are_cut_with_a_flag(labels, caplog):
    _, processor = tiny_vlm(labels)
    collator = DocumentDistillationCollator(processor, SCHEMA, max_target_tokens=5)
    batch = collator(rows(labels))
    assert (batch["labels"] != -100).sum(1).tolist() == [5] * 4
    assert collator.truncated == {0, 1, 2, 3} and "is cut to 5" in caplog.text


def test_donut_starts_with_the_field_names(labels):
    _, processor = tiny_donut(labels)
    collator = DocumentDistillationCollator(processor, SCHEMA, kind="donut", confidence_weights=True)
    batch = collator(rows(labels, keep=("vendor",)))
    for number, row in enumerate(rows(labels, keep=("vendor",))):
        answer = batch["labels"][number]
        wanted = row["target_json"] + "<eos>"
        assert processor.tokenizer.decode(answer[answer != -100]) == wanted
        known = batch["decoder_attention_mask"][number].bool()
        assert processor.tokenizer.decode(batch["decoder_input_ids"][number][known]) == "<pad>vendor:" + wanted[:-5]
    assert batch["labels"].shape == batch["decoder_input_ids"].shape == batch["loss_weights"].shape
    shifted = batch["decoder_input_ids"][:, 1:][batch["labels"][:, :-1] != -100]
    same = batch["labels"][:, :-1][batch["labels"][:, :-1] != -100]
    assert torch.equal(shifted[same != 1], same[same != 1])


def test_taggers_get_one_tag_per_word(labels):
    model, tokenizer = tiny_tagger(labels)
    collator = DocumentDistillationCollator(tokenizer, SCHEMA, kind="tagger")
    batch = collator(rows(labels))
    for number, row in enumerate(rows(labels)):
        tags = [model.config.id2label[i] for i in batch["labels"][number].tolist() if i != -100]
        assert len(tags) == len(row["words"]) and not collator.lost
        values = json.loads(row["target_json"])
        begun = {tag[2:]: row["words"][place] for place, tag in enumerate(tags) if tag.startswith("B-")}
        assert begun["vendor"] == values["vendor"].split()[0] and set(begun) == set(SCHEMA.names)
    spoiled = rows(labels)[0] | {"target_json": '{"vendor":"Nobody at all"}'}
    collator([spoiled])
    assert collator.lost == {"vendor": 1}


def test_tags_of_fields_without_a_label_are_no_option(labels):
    _, tokenizer = tiny_tagger(labels)
    collator = DocumentDistillationCollator(tokenizer, SCHEMA, kind="tagger")
    row = rows(labels)[0]
    values = json.loads(row["target_json"])
    gated = row | {"target_json": json.dumps({"vendor": values["vendor"], "total": None})}  # no date, a total of null
    spoiled = row | {"target_json": json.dumps(values | {"vendor": "Nobody at all"})}
    batch = collator([row, gated, spoiled])
    shut = [{tag[2:] for tag, i in collator.tags.items() if not part[i]} for part in batch["tag_options"]]
    assert shut == [set(), {"date"}, {"vendor"}]
    assert batch["tag_options"].gather(1, batch["labels"].clamp_min(0)).all()  # a label is always an option


def test_layoutlm_gets_boxes_and_pixels(labels):
    from transformers import LayoutLMv3ImageProcessor, LayoutLMv3Processor, LayoutLMv3Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    alphabet = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *bytes_to_unicode().values()]
    tokenizer = LayoutLMv3Tokenizer(vocab={char: i for i, char in enumerate(alphabet)}, merges=[])
    reader = LayoutLMv3ImageProcessor(apply_ocr=False, size={"height": 32, "width": 32})
    collator = DocumentDistillationCollator(LayoutLMv3Processor(reader, tokenizer), SCHEMA, kind="tagger")
    batch = collator(rows(labels))
    assert batch["bbox"].shape == (*batch["input_ids"].shape, 4) and batch["pixel_values"].shape[0] == 4
    assert (batch["labels"] != -100).sum(1).tolist() == [len(row["words"]) for row in rows(labels)]


def test_missing_columns_and_kinds_are_named(labels):
    _, processor = tiny_vlm(labels)
    with pytest.raises(ValueError, match="chat, donut, tagger"):
        DocumentDistillationCollator(processor, SCHEMA, kind="other")
    with pytest.raises(KeyError, match="`target_json` is missing"):
        DocumentDistillationCollator(processor, SCHEMA)([{"image": None}])
    with pytest.raises(KeyError, match="`words` is missing"):
        DocumentDistillationCollator(processor.tokenizer, SCHEMA, kind="tagger")([{"target_json": "{}"}])


def test_without_a_template_the_image_stands_before_the_instruction(labels):
    _, processor = tiny_vlm(labels)
    processor.chat_template = None
    assert chat_prompt(processor, "Read.") == "<image>\nRead.\n" and chat_ending(processor) == "<eos>"
    batch = DocumentDistillationCollator(processor, SCHEMA)(rows(labels))
    assert (batch["labels"] == processor.tokenizer.eos_token_id).sum() == 4


def test_receipt_rows_name_their_columns():
    assert receipts(1).column_names == "image truth words boxes text language layout index".split()
