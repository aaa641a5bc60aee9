"""Images go through the processor of an image-text model."""

import numpy as np
import pytest
import torch

from hf_labels.lm import ItemError, Message, Request, TransformersLM


def picture(seed: int):
    from PIL import Image

    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 24, 3), dtype=np.uint8))


def ask(image, text="good or bad", **options):
    return Request((Message("user", [{"type": "image", "image": image}, {"type": "text", "text": text}]),), **options)


@pytest.fixture
def lm(vision):
    return TransformersLM(*vision, batch_size=4)


@torch.no_grad()
def oracle(vision, request, label):
    model, processor = vision
    text = f"<|im_start|>user\n<image>{request.text}<|im_end|>\n<|im_start|>assistant\n"
    inputs = dict(processor(text=text, images=request.images, return_tensors="pt", add_special_tokens=False))
    found = []
    for token in processor.tokenizer(label, add_special_tokens=False).input_ids:
        logits = model.eval()(**inputs).logits[0, -1].double()
        found.append(float(torch.log_softmax(logits, -1)[token]))
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[token]])], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return found


@pytest.mark.parametrize("labels", [["A", "B"], ["positive", " no", "B"]])
def test_scores_with_images_equal_a_token_by_token_loop(lm, vision, labels):
    requests = [ask(picture(0)), "no image here", ask(picture(1), "a longer text about the film")]
    scores = lm.score_labels(requests, labels)
    for i in (0, 2):
        for c, label in enumerate(labels):
            assert scores.token_logprobs[i][c] == pytest.approx(oracle(vision, requests[i], label), abs=2e-4)
    assert "vision" in lm.capabilities and np.isfinite(scores.logprobs[1]).all()


def test_the_image_matters_and_batches_do_not(lm):
    requests = [ask(picture(i), "film " * i + "good", max_new_tokens=6) for i in range(3)]
    requests += [Request("film", max_new_tokens=6)]
    together = [answer.text for answer in lm.generate(requests)]
    lm.batch_size = 1
    assert [answer.text for answer in lm.generate(requests)] == together
    a, b = (lm.score_labels([ask(picture(i))], ["A", "B"]).logprobs for i in (0, 1))
    assert not np.allclose(a, b, atol=1e-3)


def test_path_bytes_and_pil_images_are_the_same(lm, tmp_path):
    import base64

    path = tmp_path / "p.png"
    picture(3).save(path)
    data = path.read_bytes()
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    scores = lm.score_labels([ask(image) for image in (picture(3), path, str(path), data, url)], ["A", "B"]).logprobs
    assert np.abs(scores - scores[0]).max() < 1e-6


def test_bad_images_are_named(lm, tmp_path):
    with pytest.raises(ItemError, match="Request 1: .*cannot be read"):
        lm.score_labels(["a", ask(b"no image")], ["A", "B"])
    with pytest.raises(ItemError, match="Request 2: .*nowhere.png"):
        lm.score_labels(["a", "b", ask(tmp_path / "nowhere.png")], ["A", "B"])
    lm.on_error = "return"
    answers = lm.generate([ask(tmp_path / "nowhere.png"), Request("a", max_new_tokens=2)])
    assert "nowhere.png" in answers[0].error and answers[1].error is None


def test_too_long_with_an_image(lm):
    long = ask(picture(0), "word " * 200)
    with pytest.raises(ItemError, match="Request 0: .*256"):
        lm.generate([long])
    lm.truncate = True
    shorter, ids = lm._encoded(long, 0, new_tokens=20)
    assert len(ids) <= 236 and shorter.images and len(shorter.text) < len(long.text)
