"""The same mixtures as `timm.data.Mixup`: exactly for the same draw, in distribution for own draws."""

import numpy as np
import pytest
import torch
from benchmarks.mixing_core import find_timm_mixup, load_timm_mixup
from scipy import stats

from hf_labels.mixing import MixedLabels, MixPlan, MixSampler, cutmix_box

pytestmark = pytest.mark.skipif(find_timm_mixup() is None, reason="the package timm is not installed")
SIZE = (16, 24)


def _batch(rows=6):
    rng = torch.Generator().manual_seed(0)
    return torch.randn(rows, 3, *SIZE, generator=rng), torch.randint(0, 5, (rows,), generator=rng)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_draw_gives_the_same_images_and_labels(kind, smoothing):
    timm = load_timm_mixup()
    x, y = _batch()
    for seed in range(20):
        alphas = {f"{name}_alpha": 0.8 * (name == kind) for name in ("mixup", "cutmix")}
        peer = timm.Mixup(**alphas, label_smoothing=smoothing, num_classes=5)
        np.random.seed(seed)
        theirs, target = peer(x.clone(), y)
        np.random.seed(seed)
        np.random.rand()  # whether to mix at all
        lam = float(np.random.beta(*(2 * [alphas[f"{kind}_alpha"]])))
        box = None
        if kind == "cutmix":
            box, lam = cutmix_box(SIZE, lam, (np.random.randint(SIZE[0]), np.random.randint(SIZE[1])))
            box = torch.from_numpy(box)
        perm = torch.arange(len(y)).flip(0)
        plan = MixPlan(kind, torch.full((len(y),), float(lam), dtype=torch.float64), perm, box)
        torch.testing.assert_close(plan.apply(x.double()).float(), theirs, rtol=0, atol=1e-6)
        dense = MixedLabels(y, y[perm], plan.lam).dense(5, smoothing)
        torch.testing.assert_close(dense, target, rtol=0, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_own_draws_have_the_same_distribution(alpha):
    """Kolmogorov-Smirnov over 4 000 draws of each. Fixed seeds; 1 % of pairs of equal samplers fall below 0.01."""
    timm, draws = load_timm_mixup(), 4000
    np.random.seed(1)
    mixed = timm.Mixup(mixup_alpha=alpha, cutmix_alpha=0.0)
    theirs = [mixed._params_per_batch()[0] for _ in range(draws)]
    sampler = MixSampler(alpha, seed=1)
    ours = [sampler.draw(2).lam[0].item() for _ in range(draws)]
    assert stats.ks_2samp(ours, theirs).pvalue > 0.01
    cut = timm.Mixup(mixup_alpha=0.0, cutmix_alpha=alpha)
    found = [timm.cutmix_bbox_and_lam((3, *SIZE), cut._params_per_batch()[0]) for _ in range(draws)]
    sampler = MixSampler(alpha, kind="cutmix", seed=1)
    plans = [sampler.draw(2, SIZE) for _ in range(draws)]
    assert stats.ks_2samp([plan.lam[0].item() for plan in plans], [lam for _, lam in found]).pvalue > 0.01
    for side in range(4):
        mine = [plan.box[side].item() for plan in plans]
        assert stats.ks_2samp(mine, [int(box[side]) for box, _ in found]).pvalue > 0.01, side


def test_switching_is_as_frequent():
    timm, draws = load_timm_mixup(), 4000
    np.random.seed(2)
    peer = timm.Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, prob=0.7, switch_prob=0.3)
    theirs = np.array([peer._params_per_batch() for _ in range(draws)])
    sampler = MixSampler(0.8, kind="both", cutmix_alpha=1.0, prob=0.7, switch_prob=0.3, seed=2)
    plans = [sampler.draw(2, SIZE) for _ in range(draws)]
    off = np.mean([plan.lam[0].item() == 1 and plan.kind == "mixup" for plan in plans])
    cut = np.mean([plan.kind == "cutmix" for plan in plans])
    # timm switches only among mixed batches: P(cutmix) = prob * switch_prob. Here an unmixed batch has a kind too.
    assert abs(cut - 0.3) < 0.03 and abs(off - 0.3 * 0.7) < 0.03
    assert abs(theirs[:, 1].mean() - 0.7 * 0.3) < 0.03 and abs((theirs[:, 0] == 1).mean() - 0.3) < 0.03
