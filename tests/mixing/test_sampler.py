"""Draws: moments, seeds, workers, state, and the identity cases."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from hf_labels.mixing import MixSampler, box_lam


def _flat(plan):
    return [plan.kind, plan.lam.tolist(), plan.perm.tolist(), None if plan.box is None else plan.box.tolist()]


def _draws(sampler, count=5):
    return [_flat(sampler.draw(6, (8, 8))) for _ in range(count)]


OPTIONS = dict(kind="both", prob=0.8, lam_mode="sample")


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_lambda_has_the_moments_of_beta(alpha, seed):
    """Mean 1/2, variance 1 / (4 (2 a + 1)); 20 000 draws, 5 standard errors."""
    sampler = MixSampler(alpha, lam_mode="sample", seed=seed)
    lam = torch.cat([sampler.draw(1000).lam for _ in range(20)]).double()
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(lam.mean() - 0.5) < 5 * (variance / 20_000) ** 0.5
    assert abs(lam.var() - variance) < 0.03 * variance + 5e-4


def test_tiny_alpha_does_not_underflow():
    lam = MixSampler(1e-3, lam_mode="sample", seed=0).draw(5000).lam
    assert torch.isfinite(lam).all() and abs(lam.mean() - 0.5) < 0.05


def test_fixed_seed_repeats_and_another_differs():
    assert _draws(MixSampler(seed=3, **OPTIONS)) == _draws(MixSampler(seed=3, **OPTIONS))
    assert _draws(MixSampler(seed=3, **OPTIONS)) != _draws(MixSampler(seed=4, **OPTIONS))
    torch.manual_seed(7)
    first = _draws(MixSampler(**OPTIONS))
    torch.manual_seed(7)
    assert _draws(MixSampler(**OPTIONS)) == first
    torch.manual_seed(8)
    assert _draws(MixSampler(**OPTIONS)) != first


def test_torch_seed_follows_the_generator_that_trainer_restores():
    sampler = MixSampler(seed="torch", **OPTIONS)
    torch.manual_seed(0)
    sampler.draw(6, (8, 8))
    state = torch.get_rng_state()
    rest = _draws(sampler)
    torch.set_rng_state(state)
    assert _draws(MixSampler(seed="torch", **OPTIONS)) == rest and sampler.state_dict() == {}


@pytest.mark.parametrize("seed", [0, None])
def test_state_continues_the_stream(seed):
    import json

    torch.manual_seed(0)
    sampler = MixSampler(seed=seed, **OPTIONS)
    assert sampler.state_dict() == {}
    sampler.draw(6, (8, 8))
    state = json.loads(json.dumps(sampler.state_dict()))
    rest = _draws(sampler)
    torch.manual_seed(99)
    other = MixSampler(seed=seed, **OPTIONS)
    other.load_state_dict(state)
    assert _draws(other) == rest


class _Rows(Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, row):
        return row


class _Collate:
    def __init__(self, seed):
        self.sampler = MixSampler(1.0, seed=seed)

    def __call__(self, rows):
        return {"worker": torch.utils.data.get_worker_info().id, "lam": self.sampler.draw(len(rows)).lam[0].item()}


@pytest.mark.parametrize("seed", [5, None, "torch"])
@pytest.mark.parametrize("used_before", [False, True])
def test_workers_and_epochs_draw_differently_and_repeatably(seed, used_before):
    def run():
        torch.manual_seed(0)
        collate = _Collate(seed)
        if used_before:
            collate.sampler.draw(4)
        loader = DataLoader(_Rows(), batch_size=4, num_workers=2, collate_fn=collate)
        return [[batch["lam"] for batch in loader] for _ in range(2)]

    epochs = run()
    assert len({lam for epoch in epochs for lam in epoch}) == 8
    assert run() == epochs


def test_processes_draw_differently():
    from accelerate import PartialState

    shared = dict(PartialState._shared_state)
    try:
        found = []
        for rank in range(2):
            PartialState._shared_state.clear()
            PartialState._shared_state.update(process_index=rank, _cpu=True)
            torch.manual_seed(0)
            found.append([_draws(MixSampler(seed=seed, **OPTIONS), 2) for seed in (1, None, "torch")])
    finally:
        PartialState._shared_state.clear()
        PartialState._shared_state.update(shared)
    assert all(ours != theirs for ours, theirs in zip(*found, strict=True))


@pytest.mark.parametrize("rows", [2, 3, 7])
def test_pairings(rows):
    order = torch.arange(rows)
    for seed in range(30):
        random = MixSampler(pairing="random", seed=seed).draw(rows).perm
        none_alone = MixSampler(pairing="derangement", seed=seed).draw(rows).perm
        assert sorted(random.tolist()) == sorted(none_alone.tolist()) == order.tolist()
        assert not (none_alone == order).any()
    assert torch.equal(MixSampler(pairing="flip", seed=0).draw(rows).perm, order.flip(0))
    assert torch.equal(MixSampler(pairing="roll", seed=0).draw(rows).perm, order.roll(1))


def test_derangement_falls_back_to_a_shift(monkeypatch):
    sampler = MixSampler(pairing="derangement", seed=0)

    class Stubborn:
        def __init__(self, rng):
            self.rng = rng

        def permutation(self, rows):
            return np.arange(rows)

        def __getattr__(self, name):
            return getattr(self.rng, name)

    rng = sampler.generator()
    monkeypatch.setattr(sampler, "generator", lambda: Stubborn(rng))
    perm = sampler.draw(5).perm
    assert not (perm == torch.arange(5)).any() and sorted(perm.tolist()) == list(range(5))


def test_box_fits_its_share_per_batch_and_per_sample():
    for mode in ("batch", "sample"):
        sampler = MixSampler(kind="cutmix", lam_mode=mode, seed=0)
        for _ in range(50):
            plan = sampler.draw(4, (9, 14))
            want = box_lam(plan.box, (9, 14)).expand(4)
            torch.testing.assert_close(plan.lam.double(), want, rtol=0, atol=1e-7)


def test_fold_prob_and_no_mixing():
    assert (MixSampler(0.3, lam_mode="sample", fold=True, seed=0).draw(500).lam >= 0.5).all()
    half = MixSampler(1.0, lam_mode="sample", prob=0.3, seed=0).draw(4000).lam
    assert abs((half < 1).float().mean() - 0.3) < 0.03
    off = MixSampler(0.0, kind="cutmix", seed=0)
    x = torch.randn(3, 2, 4, 4)
    plan = off.draw(3, (4, 4))
    assert torch.equal(plan.apply(x), x) and plan.lam.tolist() == [1, 1, 1] and plan.perm.tolist() == [0, 1, 2]
    assert off.state_dict() == {}  # nothing was drawn
    mixed = MixSampler(0.0, kind="both", cutmix_alpha=1.0, switch_prob=1.0, seed=0).draw(3, (4, 4))
    assert mixed.kind == "cutmix" and mixed.to("cpu").labels(torch.arange(3)).y_b.tolist() == mixed.perm.tolist()


def test_one_row_is_left_alone_with_one_warning(caplog):
    sampler = MixSampler(seed=0)
    for _ in range(3):
        plan = sampler.draw(1)
        assert plan.perm.tolist() == [0] and plan.lam.tolist() == [1]
    assert caplog.text.count("cannot be mixed") == 1


def test_bad_input_is_named():
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`alpha` must be 0 or more"):
            MixSampler(wrong)
    with pytest.raises(ValueError, match="`cutmix_alpha`"):
        MixSampler(cutmix_alpha=-1)
    for name, value in (("kind", "blend"), ("lam_mode", "pair"), ("pairing", "best"), ("seed", "numpy")):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            MixSampler(**{name: value})
    for name in ("prob", "switch_prob"):
        with pytest.raises(ValueError, match=rf"`{name}` must be in \[0, 1\]"):
            MixSampler(**{name: 1.2})
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        MixSampler().draw(0)
    for kind in ("cutmix", "both"):
        with pytest.raises(ValueError, match="`image_size` is needed for cutmix"):
            MixSampler(kind=kind).draw(4)
