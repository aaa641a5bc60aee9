"""Tiny receipts, a teacher that knows them, and tiny students."""

import json

from datasets import Dataset

from hf_labels.data.tail_vrd_receipts import draw_receipts
from hf_labels.labels.tail_vrd import DocumentSchema
from hf_labels.labels.tail_vrd_align import tag_names
from hf_labels.labels.tail_vrd_gates import LabelGates
from hf_labels.lm import ScriptedLM
from hf_labels.lm.tail_vrd import TAILLabeler
from hf_labels.models.tail_vrd_small import small_tokenizer, small_vlm

SCHEMA = DocumentSchema.from_dict({"vendor": {}, "date": {"type": "date"}, "total": {"type": "amount"}})


def receipts(count: int = 8, seed: int = 0) -> Dataset:
    return draw_receipts(count, seed, size=(96, 64), items=(0, 0), font_size=10, noise=0.1)


def knowing(data: Dataset, change=None, **options) -> ScriptedLM:
    """A teacher that looks the truth up by the text in the prompt; `change(values, request)` spoils it."""
    truth = dict(zip(data["text"][:], data["truth"][:], strict=True))

    def answer(request):
        text = request.text.split("<text>\n")[1].split("\n</text>")[0]
        values = json.loads(truth[text])
        return json.dumps(change(values, request) if change else values)

    return ScriptedLM([(lambda request: True, answer)], model_id="knowing", progress=False, **options)


def toy_labels(count: int = 8, **options):
    data = receipts(count)
    labeler = TAILLabeler(knowing(data), SCHEMA, gates=options.pop("gates", LabelGates.off()), **options)
    return labeler.label(data, text_column="text")


def tiny_vlm(labels, **options):
    texts = [labels.schema.instruction(labels.task), *labels.dataset["target_json"][:]]
    settings = {"image_size": 16, "hidden_size": 16, "layers": 1, "heads": 2, "vocabulary": 320, **options}
    return small_vlm(texts, **settings)


def tiny_donut(labels, seed: int = 0):
    import torch
    import transformers as hf

    tokenizer = small_tokenizer(labels.dataset["target_json"][:], 320)
    small = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 32}
    encoder = hf.ViTConfig(image_size=16, patch_size=8, **small)
    decoder = hf.BertConfig(
        vocab_size=len(tokenizer), is_decoder=True, add_cross_attention=True, max_position_embeddings=256, **small
    )
    torch.manual_seed(seed)
    model = hf.VisionEncoderDecoderModel(hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder))
    return model, hf.DonutProcessor(hf.ViTImageProcessor(size={"height": 16, "width": 16}), tokenizer)


def tiny_tagger(labels, seed: int = 0, **options):
    import torch
    import transformers as hf

    tags = tag_names(labels.schema)
    tokenizer = small_tokenizer(labels.dataset["text"][:], 360)
    settings = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64}
    config = hf.BertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=256,
        id2label=dict(enumerate(tags)),
        label2id={tag: number for number, tag in enumerate(tags)},
        **{**settings, **options},
    )
    torch.manual_seed(seed)
    return hf.BertForTokenClassification(config), tokenizer
