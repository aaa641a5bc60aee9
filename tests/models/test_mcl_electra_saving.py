"""MCL: saving, starting from stock ELECTRA checkpoints, leaving as one, and soups."""

import json

import pytest
import torch
from mcl_electra_toys import SIZES, batch, tiny
from transformers import (
    AutoModelForSequenceClassification,
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ElectraModel,
)

from hf_labels.losses.mcl_electra import COURSES
from hf_labels.models.mcl_electra import MCLElectraForPreTraining
from hf_labels.models.mcl_electra_config import MCLElectraConfig
from hf_labels.models.mcl_electra_soup import course_soup


def test_saved_and_loaded_is_the_same_and_still_tied(tmp_path):
    model = tiny(course_weights={"itd": 2.0}).eval()
    model.save_pretrained(tmp_path)
    again = MCLElectraForPreTraining.from_pretrained(tmp_path).eval()
    assert again(*batch()).loss == model(*batch()).loss
    assert again.config.course_weights == {"itd": 2.0} and again.config.courses == list(COURSES)
    assert again.generator.generator_lm_head.weight is again.discriminator.electra.embeddings.word_embeddings.weight
    assert again.generator.config.hidden_size == 8


def _stock():
    torch.manual_seed(3)
    generator = ElectraForMaskedLM(ElectraConfig(**SIZES, hidden_size=8))
    return generator, ElectraForPreTraining(ElectraConfig(**SIZES, hidden_size=16))


def _tokenizer(mask=True):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(5, 40))]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", *(["mask"] if mask else []))}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def test_start_from_stock_checkpoints(tmp_path):
    generator, discriminator = _stock()
    generator.save_pretrained(tmp_path / "g")
    discriminator.save_pretrained(tmp_path / "d")
    _tokenizer().save_pretrained(tmp_path / "d")
    model = MCLElectraForPreTraining.from_electra(tmp_path / "g", str(tmp_path / "d"), courses=["rtd"])
    assert model.config.special_token_ids == [0, 1, 2, 3, 4] and model.config.courses == ["rtd"]
    ids, mask = batch()
    model.eval()
    assert torch.equal(model.discriminator(ids, mask).logits, discriminator.eval()(ids, mask).logits)
    apart = MCLElectraForPreTraining.from_electra(
        generator, discriminator, tokenizer=_tokenizer(), tie_word_embeddings=False
    ).eval()
    assert torch.equal(apart.generator(ids, mask).logits, generator.eval()(ids, mask).logits)
    with pytest.raises(ValueError, match="tokenizer="):
        MCLElectraForPreTraining.from_electra(generator, discriminator)
    with pytest.raises(ValueError, match="no mask token"):
        MCLElectraForPreTraining.from_electra(generator, discriminator, tokenizer=_tokenizer(mask=False))
    small = ElectraForMaskedLM(ElectraConfig(**{**SIZES, "vocab_size": 30}, hidden_size=8))
    with pytest.raises(ValueError, match="one vocabulary"):
        MCLElectraForPreTraining.from_electra(small, discriminator, tokenizer=_tokenizer())
    with pytest.raises(ValueError, match="The tokenizer has 40 tokens, the networks 30"):
        sizes = {**SIZES, "vocab_size": 30, "hidden_size": 8}
        MCLElectraConfig.for_tokenizer(_tokenizer(), sizes, sizes)


def test_exported_encoder_is_stock(tmp_path):
    """Without hf_labels in a fresh process: `tests/hub/scripts/mcl_electra_load.py`."""
    model, (ids, mask) = tiny().eval(), batch()
    model.export_discriminator().save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    assert "mcl" not in text.lower() and "hf_labels" not in text and "hfl" not in text
    assert json.loads(text)["architectures"] == ["ElectraModel"]
    loaded, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"] and all(key.startswith("classifier") for key in info["missing_keys"])
    with torch.no_grad():
        assert torch.equal(loaded.eval().electra(ids, mask)[0], model.discriminator.electra(ids, mask)[0])


def test_exports_are_copies_with_their_heads(tmp_path):
    model, (ids, mask) = tiny().eval(), batch()
    head, generator = model.export_discriminator(with_head=True), model.export_generator()
    assert isinstance(head, ElectraForPreTraining) and torch.equal(
        head(ids, mask).logits, model.discriminator(ids, mask).logits
    )
    generator.save_pretrained(tmp_path)
    loaded = ElectraForMaskedLM.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(ids, mask).logits, model.generator(ids, mask).logits)
    with torch.no_grad():
        head.electra.embeddings.word_embeddings.weight.zero_()
    assert model.discriminator.electra.embeddings.word_embeddings.weight.abs().sum() > 0
    with pytest.raises(ValueError, match="part"):
        model.push_to_hub("a/b", part="head")


def _members(folder, number=2):
    paths = []
    for i in range(number):
        model = tiny()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 * i)
        model.save_pretrained(folder / str(i))
        paths.append(folder / str(i))
    return paths


def test_soups(tmp_path):
    paths = _members(tmp_path, 3)
    one = course_soup(paths[:1])
    assert isinstance(one, ElectraModel)
    first = MCLElectraForPreTraining.from_pretrained(paths[0]).discriminator.electra.state_dict()
    assert all(torch.equal(value, first[key]) for key, value in one.state_dict().items())
    mean = course_soup(paths, output_dir=tmp_path / "soup")
    for key, value in mean.state_dict().items():
        assert torch.allclose(value, first[key] + 0.1, atol=1e-6), key
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "soup").electra.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in mean.state_dict().items())

    bias = "embeddings.LayerNorm.bias"  # 0, 0.1 and 0.2 in the members: best is 0.05
    greedy = course_soup(paths, "greedy", lambda m: -(m.state_dict()[bias].mean() - 0.04).abs().item())
    assert greedy.soup["kept"] == [0, 1] and greedy.soup["score"] == pytest.approx(-0.01, abs=1e-6)
    assert greedy.state_dict()[bias].mean().item() == pytest.approx(0.05, abs=1e-6)
    one.save_pretrained(tmp_path / "encoder")
    mixed = course_soup([paths[2], tmp_path / "encoder"])  # a run and an exported encoder
    assert mixed.state_dict()[bias].mean().item() == pytest.approx(0.1, abs=1e-6)


def test_bad_soups_are_named(tmp_path):
    paths = _members(tmp_path)
    with pytest.raises(ValueError, match="empty"):
        course_soup([])
    with pytest.raises(ValueError, match="'uniform' or 'greedy'"):
        course_soup(paths, "mean")
    with pytest.raises(ValueError, match="evaluate_fn"):
        course_soup(paths, "greedy")
    tiny(discriminator={"num_hidden_layers": 2}).save_pretrained(tmp_path / "deeper")
    with pytest.raises(ValueError, match="same tensors"):
        course_soup([paths[0], tmp_path / "deeper"])
    tiny().export_generator().save_pretrained(tmp_path / "generator")
    with pytest.raises(ValueError, match="ElectraForMaskedLM"):
        course_soup([tmp_path / "generator"])
    with pytest.raises(FileNotFoundError, match="config.json"):
        course_soup([tmp_path / "nothing"])
