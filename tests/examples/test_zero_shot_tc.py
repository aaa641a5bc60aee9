"""The experiment of zero-shot classification on toys: what trains, what tunes, the full-scale run and the picture."""

import pytest
import zero_shot_tc as example
from zero_shot_toys import HYPOTHESES, NAMES, nli_model, pair_encoder, texts, tiny_tokenizer

import harness


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A corpus of three labels on a tiny encoder, in place of MiniLM and the corpora."""
    monkeypatch.setenv("HF_LABELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(example, "EPOCHS", (1, 2))
    model = pair_encoder(tmp_path)
    monkeypatch.setattr(example, "encoder", lambda: (model, tiny_tokenizer()))
    monkeypatch.setattr(example, "gloss_model", lambda seed: example.new_model())
    names = {name: [f"it was {name} ."] for name in NAMES}
    uses = {"both": HYPOTHESES, "names": names, "definitions": names, "stock": names}
    data = {"train": texts(40), "test": texts(12), "names": NAMES, "hypotheses": uses}
    monkeypatch.setattr(example, "corpus", lambda name: data)
    yield data
    example.vectors.cache_clear()


def test_every_row_is_measured_and_drawn(toy, tmp_path, monkeypatch):
    used = []
    pairs_of = example.pairs_of
    monkeypatch.setattr(example, "pairs_of", lambda *given: used.append(given) or pairs_of(*given))
    rows, chosen = example.one_run(("toy", "v0", 0))
    assert chosen in ("both, 2 epochs, single phase", "names, 2 epochs, single phase")  # two seen labels: not tuned
    assert {data.features["labels"].names[label] for data, _, _ in used for label in data["labels"][:]} == {
        *("acne", "migraine")
    }
    assert all(set(seen) <= {"acne", "migraine"} for _, _, seen in used)
    assert set(example.KINDS) < set(rows) and rows[example.SEEN_ONLY]["unseen_accuracy"] == 0
    record = harness.Experiment("zero_shot_tc", ["toy"])
    for name, scores in rows.items():
        for metric, value in scores.items():
            record.add(name, "toy, v0", metric, [value], [0])
    example.plot(record.rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_tuning_reads_seen_labels_only(toy, monkeypatch):
    asked = []
    score = example.score
    monkeypatch.setattr(example, "score", lambda model, *given: asked.append(given) or score(model, *given))
    known = toy["train"]
    example.tuned(known, known, toy["hypotheses"], NAMES, 0)
    assert {given[2] for given in asked} == {("acne", "migraine")} and len(asked) == 2 * 2 * 2


@pytest.mark.parametrize("version", [None, "v0"])
def test_the_full_preset_trains_only_with_seen_labels(tmp_path, version):
    model = nli_model()
    before = model.classifier.weight.clone()
    scores = example.cross_encoder_run(
        *(model, tiny_tokenizer(), texts(), texts(), version), hypotheses=HYPOTHESES, use_cpu=True, max_length=32
    )
    assert (model.classifier.weight == before).all() == (version is None)
    assert 0 <= scores["accuracy"] <= 1 and scores["n_unseen"] == (8 if version is None else 3)
