"""The experiment of DistillWeighted on toys: who sees which emoji, the views, and every arm of one seed."""

import json

import distill_weighted as example
import emoji_shelf
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Image
from PIL import Image as Pictures

import harness
from hf_labels.losses.distill_weighted import source_weights

NAMES = ["Activities", "Component", "Flags", "Objects"]


@pytest.fixture
def toy(monkeypatch):
    """Forty emoji of each of three categories, as colours; the shelf has three sources."""
    rng = np.random.default_rng(0)
    labels = np.tile([0, 2, 3], 40)
    arrays = rng.integers(0, 150, (120, 32, 32, 3), dtype=np.uint8)
    arrays[np.arange(120), :, :, np.tile([0, 1, 2], 40)] += 100
    data = Dataset.from_dict({"image": [Pictures.fromarray(a) for a in arrays], "labels": labels.tolist()})
    data = data.cast_column("image", Image()).cast_column("labels", ClassLabel(names=NAMES))
    pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 127.5 - 1
    small = emoji_shelf.network
    for module in (example, emoji_shelf):
        monkeypatch.setattr(module, "network", lambda sizes, names, seed: small([8, 8, 8], names, seed))
        monkeypatch.setattr(module, "emoji", lambda vendor: (data, pixels))
        monkeypatch.setattr(module, "SHELF", ("google", "apple", "google random"))
    places = {"google": np.arange(60), "apple": np.arange(30), "google random": rng.permutation(60)}
    monkeypatch.setattr(
        emoji_shelf, "source_data", lambda name: (pixels[places[name]], np.arange(len(places[name])) % 3)
    )
    for name, value in {"SHOTS": 4, "TEST": 20, "DEV": 10, "STEPS": 2, "BATCH": 8}.items():
        monkeypatch.setattr(example, name, value)
    return data


def test_no_row_is_in_two_places(toy):
    shelf, target = example.halves()
    assert set(shelf) | set(target) == set(range(120)) and not set(shelf) & set(target)
    one, other, dev = example.world(0, False), example.world(1, False), example.world(0, True)
    for here in (one, other, dev):
        labeled, unlabeled, judged = (
            set(rows) for rows in (here["labeled"]["index"], here["unlabeled"]["index"], here["judged"].tolist())
        )
        assert not labeled & unlabeled and not (labeled | unlabeled) & judged
        assert labeled | unlabeled | judged <= set(target.tolist()) and "labels" not in here["unlabeled"].column_names
        assert np.bincount(here["labeled"]["labels"]).tolist() == [4, 4, 4]
    assert one["judged"].tolist() == other["judged"].tolist() and not set(dev["judged"]) & set(one["judged"])
    assert set(one["labeled"]["index"]) != set(other["labeled"]["index"])


@pytest.mark.parametrize("seed", [0, 1])
def test_views_are_shifts_and_mirror_images(seed):
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    padded = torch.nn.functional.pad(images, (3, 3, 3, 3), value=1.0)
    for number, view in enumerate(example.jitter(images, torch.Generator().manual_seed(seed))):
        cuts = [padded[number, :, y : y + 32, x : x + 32] for y in range(7) for x in range(7)]
        assert any(torch.equal(view, cut) or torch.equal(view, cut.flip(-1)) for cut in cuts)


@pytest.fixture
def calls(monkeypatch):
    """Students are not trained; what they would be trained on is kept."""
    seen = []

    def train(here, seed, rate, store=None, label_weight=1.0):
        seen.append((store, label_weight))
        return example.network([8, 8, 8], here["names"], 100 * seed + len(seen)).eval()

    monkeypatch.setattr(example, "train", train)
    return seen


def test_every_arm_gets_its_own_soft_labels(toy, calls, tmp_path):
    emoji_shelf.train_shelf(str(tmp_path), steps=2)
    tried = example.tune(str(tmp_path))
    counts = {kind: len(options) for kind, options in tried.items()}
    assert counts == {"rate": 2, "label_weight": 2, example.SELF: 2, "power": 3} and len(calls) == 2 * (2 + 4 + 2)
    calls.clear()
    found = example.one_seed((0, {"rate": 3e-3, "label_weight": 0.3, example.SELF: 0.8, "power": 4.0}, str(tmp_path)))
    assert [weight for _, weight in calls] == [1.0, *[0.3] * 3, 0.8, *[0.3] * 5] and calls[0][0] is None
    assert set(found["correlation"]) == set(example.METRICS)
    scores, near = found["scores"], found["similarity"]["parc"]
    nearest = max(near, key=near.get)
    assert scores[example.NEAREST] == found["single"][nearest]
    assert scores[example.WORST] <= scores[example.NEAREST] <= scores[example.BEST]
    ids = calls[1][0].example_ids
    soft = [store.decode(store.lookup(ids)) for store, _ in calls[1:]]
    single, (own, weighted, uniform, _, wrong, mixed_up) = torch.stack(soft[:3]), soft[3:]

    def mixture(weights):
        return sum(weights[name] * values for name, values in zip(emoji_shelf.SHELF, single, strict=True))

    weights = source_weights(near, 4)
    order = sorted(near, key=near.get)
    torch.testing.assert_close(weighted, mixture(weights), atol=2e-3, rtol=0)
    torch.testing.assert_close(uniform, single.mean(0), atol=2e-3, rtol=0)
    turned = {name: weights[other] for name, other in zip(order, order[::-1], strict=True)}
    torch.testing.assert_close(wrong, mixture(turned), atol=2e-3, rtol=0)
    assert not torch.allclose(mixed_up, weighted) and torch.equal(mixed_up.sort(0)[0], weighted.sort(0)[0])
    assert not torch.allclose(own, weighted)


def test_the_picture_is_drawn_from_the_result(tmp_path):
    result = json.loads((harness.RESULTS / "distill_weighted.json").read_text(encoding="utf-8"))
    assert example.picture(result, tmp_path / "plot.png").stat().st_size > 10_000
