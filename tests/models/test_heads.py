import pytest
import torch
import transformers as hf
from torch import nn

from hf_labels.models.heads import find_head, head_inputs, new_head, replace_head, set_module

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
IMAGE = {"image_size": 16, "patch_size": 8}
PIXELS = {"pixel_values": torch.ones(2, 3, 16, 16)}
BIG = {"pixel_values": torch.ones(2, 3, 64, 64)}
TOKENS = {"input_ids": torch.arange(5, 19).view(2, 7)}
SEGFORMER = {"hidden_sizes": [8] * 4, "depths": [1] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 16}

CASES = {
    "vit": (lambda: hf.ViTForImageClassification(hf.ViTConfig(**SMALL, **IMAGE, num_labels=5)), PIXELS, "classifier"),
    "resnet": (
        lambda: hf.ResNetForImageClassification(
            hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5)
        ),
        PIXELS,
        "classifier.1",
    ),
    "bert": (
        lambda: hf.BertForSequenceClassification(hf.BertConfig(vocab_size=30, num_labels=5, **SMALL)),
        TOKENS,
        "classifier",
    ),
    "roberta, width = classes": (
        lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(vocab_size=30, num_labels=16, **SMALL)),
        TOKENS,
        "classifier.out_proj",
    ),
    "distilbert, width = classes": (
        lambda: hf.DistilBertForSequenceClassification(
            hf.DistilBertConfig(vocab_size=30, num_labels=16, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
        ),
        TOKENS,
        "classifier",
    ),
    "token bert": (
        lambda: hf.BertForTokenClassification(hf.BertConfig(vocab_size=30, num_labels=5, **SMALL)),
        TOKENS,
        "classifier",
    ),
    "gpt2": (
        lambda: hf.GPT2ForSequenceClassification(
            hf.GPT2Config(
                vocab_size=30,
                n_embd=16,
                n_layer=1,
                n_head=2,
                num_labels=5,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
            )
        ),
        TOKENS,
        "score",
    ),
    "segformer": (
        lambda: hf.SegformerForSemanticSegmentation(hf.SegformerConfig(num_labels=5, **SEGFORMER)),
        BIG,
        "decode_head.classifier",
    ),
    "beit with auxiliary head": (
        lambda: hf.BeitForSemanticSegmentation(
            hf.BeitConfig(**SMALL | {"num_hidden_layers": 4}, **IMAGE, num_labels=5, out_indices=[1, 2, 3, 4])
        ),
        PIXELS,
        "decode_head.classifier",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_head_is_found_read_and_replaced(name):
    make, inputs, place = CASES[name]
    torch.manual_seed(0)
    model = make().eval()
    head = find_head(model)
    assert head.name == place and head.num_labels == model.config.num_labels
    with torch.no_grad(), head_inputs(model) as seen:
        assert seen.features is None
        logits = model(**inputs).logits
    features = seen.features
    assert features.shape[1 if head.is_convolution else -1] == head.in_features
    if name not in ("gpt2", "beit with auxiliary head"):  # those go on after the head
        with torch.no_grad():
            torch.testing.assert_close(head.module(features), logits)
    with torch.no_grad():
        model(**inputs)
    assert seen.features is features, "the hook stayed"
    if name == "gpt2":
        return  # picks one token's logits after the head
    old = replace_head(model, nn.Identity())
    assert old is head.module
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, features)


def test_features_carry_gradients_and_can_be_forgotten():
    model = CASES["vit"][0]()
    with head_inputs(model) as seen:
        model(**PIXELS)
    seen.features.sum().backward()
    assert model.vit.embeddings.cls_token.grad is not None
    seen.clear()
    assert seen.features is None


@pytest.mark.parametrize("name", ["resnet", "roberta, width = classes", "segformer"])
def test_a_new_head_has_other_classes_and_is_saved(name, tmp_path):
    make, inputs, _ = CASES[name]
    model = make().eval()
    head = new_head(model, 7, std=0.5)
    assert type(head) is type(find_head(model).module) and model.config.num_labels == 7
    assert 0.3 < head.weight.std() < 0.7 and not head.bias.any()
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)


def test_models_with_two_heads_or_none_are_refused():
    two = hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**SMALL, **IMAGE, num_labels=5))
    with pytest.raises(ValueError, match="cls_classifier, distillation_classifier"):
        find_head(two)
    with pytest.raises(ValueError, match="found: none"):
        find_head(hf.ViTModel(hf.ViTConfig(**SMALL, **IMAGE, num_labels=5)))
    with pytest.raises(ValueError, match="Sequential must have one block"):
        replace_head(nn.Sequential(nn.Linear(2, 3)), nn.Identity())
    with pytest.raises(ValueError, match="`num_labels` must be at least 1, got 0"):
        new_head(CASES["vit"][0](), 0)


def test_a_layer_of_equal_width_elsewhere_is_not_the_head():
    model = CASES["vit"][0]()
    model.neck = nn.Linear(16, 5)  # as many outputs by chance
    assert find_head(model).name == "classifier"


def test_modules_in_a_sequential_are_replaced_by_number():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 3)))
    fresh = nn.Linear(2, 4)
    old = set_module(model, "1.1", fresh)
    assert old.out_features == 3 and model[1][1] is fresh
