import dataclasses

import mcl_electra as example
import pytest


def test_equal_tokens_means_what_the_discriminator_reads():
    """62 maskable tokens, 9 more when inserted; a correction reads its text again, and alone also its first pass."""
    courses = example.COURSES[example.FULL]
    assert example.steps_for(("rtd",), "joint", 64, 1000) == 1000
    assert example.steps_for(courses, "joint", 64, 1000) == round(1000 * 64 / (64 + 64 + 73 + 64 + 64))
    steps = example.steps_for(courses, "round_robin", 64, 1000)
    assert steps * (64 + 64 + 73 + 128 + 128) / 5 == pytest.approx(64000, rel=0.001)


def test_every_preset_can_be_built():
    for preset in example.PRESETS.values():
        for part in (preset.generator, preset.discriminator):
            assert part["hidden_size"] % part["num_attention_heads"] == 0
        assert preset.generator["embedding_size"] == preset.discriminator["embedding_size"], "they are shared"


def test_every_process_learns_one_vocabulary(monkeypatch):
    """Hash tables start from a new secret each time; with the order of theirs, runs of one seed would not be pairs."""
    words = [a + b + c for a in "mnoprst" for b in "aeiou" for c in "dfgklz"]
    monkeypatch.setattr(example, "corpus", lambda name: ([" ".join(words[i::7]) for i in range(7)], [], []))
    small = dataclasses.replace(example.PRESETS["small"], vocabulary=120)
    monkeypatch.setitem(example.PRESETS, "small", small)
    found = [example.tokenizer.__wrapped__("small") for _ in range(5)]
    assert all(other.get_vocab() == found[0].get_vocab() for other in found)
    assert len(found[0]) == 120 and found[0].mask_token_id == 4 and found[0]("mad!").input_ids[0] == 2
