"""The Hub folder: the same file, loaded without this package."""

import io
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from tiny_decoders import decoder, padded_prompts
from transformers import AutoModelForCausalLM, dynamic_module_utils

from hf_labels.generation import jacobi, jacobi_generate, save_custom_generate


def test_folder_equals_callable_without_this_package(tmp_path, monkeypatch):
    model, (ids, mask) = decoder(), padded_prompts()
    model.save_pretrained(tmp_path)
    save_custom_generate(tmp_path)
    options = {"attention_mask": mask, "max_new_tokens": 9}
    here = jacobi_generate(model, ids, block_size=4, return_jacobi_stats=True, init="last", **options)
    options |= {"do_sample": False, "block_size": 4}
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "hf_labels", None)  # as if it were not installed
    stock = AutoModelForCausalLM.from_pretrained(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))  # nobody is there to consent
    with pytest.raises((ValueError, EOFError)):
        stock.generate(ids, **options, custom_generate=str(tmp_path))
    by_folder = stock.generate(ids, **options, custom_generate=str(tmp_path), trust_remote_code=True)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=True)
    replaced = ours.generate(input_ids=ids, return_jacobi_stats=True, **options)
    assert type(replaced).__module__.startswith("transformers_modules.")
    assert torch.equal(by_folder, here.sequences) and torch.equal(replaced.sequences, here.sequences)
    assert 1 < replaced.stats.forward_passes <= 9


def test_one_code_not_two_copies(tmp_path):
    place = save_custom_generate(tmp_path)
    assert (place / "generate.py").read_bytes() == Path(jacobi.__file__).read_bytes()
    assert "hf_labels" not in (place / "requirements.txt").read_text()
    source = (place / "generate.py").read_text()
    imports = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    allowed = ("inspect", "functools", "collections", "dataclasses", "typing", "torch", "transformers")
    assert all(line.split()[1].split(".")[0] in allowed for line in imports)


def test_card_is_made_or_kept(tmp_path):
    save_custom_generate(tmp_path / "new", repo_id="user/jacobi")
    card = ModelCard.load(tmp_path / "new" / "README.md")
    assert "custom_generate" in card.data.tags and 'custom_generate="user/jacobi"' in card.text
    old = tmp_path / "old"
    old.mkdir()
    (old / "README.md").write_text("---\nlicense: mit\ntags:\n- mine\nwidget: []\n---\n# My model\n\nText.\n")
    for _ in range(2):  # written again it stays the same
        save_custom_generate(old)
        card = ModelCard.load(old / "README.md")
        assert card.data.license == "mit" and card.data.tags == ["mine", "custom_generate", "hf_labels", "ceed_vla"]
        assert card.text.count("## Jacobi decoding") == 1 and "# My model" in card.text
    before = (old / "README.md").read_text()
    save_custom_generate(old)
    assert (old / "README.md").read_text() == before
    save_custom_generate(tmp_path / "bare", card=False)
    assert not (tmp_path / "bare" / "README.md").exists()


@pytest.mark.parametrize("name", ["inputs", "input_ids"])
def test_entry_takes_both_names_and_the_arguments_of_generate(name):
    model, (ids, mask) = decoder(), padded_prompts()
    want = model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False)
    nothing = {"generation_config": None, "logits_processor": None, "streamer": None, "synced_gpus": None}
    got = jacobi.generate(
        model=model, attention_mask=mask, max_new_tokens=6, do_sample=False, block_size=3, **{name: ids}, **nothing
    )
    assert torch.equal(got, want)
