"""Attention regions against a brute-force search, and SelfMix that never leaves an image."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_labels.mixing import SelfMix, extreme_windows, paste_regions
from hf_labels.mixing.self_mix import mixed_targets, shifted_partners

VECTORS = Path(__file__).with_name("max_min_regions.json")  # from SMMix's own code


def test_windows_are_the_first_extreme_ones():
    rng = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (20, 5, 6), generator=rng).float()  # many ties
    for side in (1, 2, 3, 5):
        for largest in (True, False):
            found = extreme_windows(scores, side, largest).tolist()
            for grid, corner in zip(scores, found, strict=True):
                sums = grid.unfold(0, side, 1).unfold(1, side, 1).sum((-1, -2))
                best = sums.max() if largest else sums.min()
                assert corner == (sums == best).nonzero()[0].tolist()


def test_paste_regions_equals_a_loop():
    rng = torch.Generator().manual_seed(1)
    x, scores = torch.randn(4, 2, 12, 12, generator=rng), torch.rand(4, 16, generator=rng)
    perm = torch.tensor([1, 0, 2, 0])
    mix = paste_regions(x, perm, scores, side=2)
    want = x.clone()
    for b in range(4):
        (r, c), (i, j) = (3 * mix.dst[b]).tolist(), (3 * mix.src[b]).tolist()
        want[b, :, r : r + 6, c : c + 6] = x[perm[b], :, i : i + 6, j : j + 6]
        mask = torch.zeros(4, 4, dtype=torch.bool)
        mask[mix.dst[b, 0] : mix.dst[b, 0] + 2, mix.dst[b, 1] : mix.dst[b, 1] + 2] = True
        assert torch.equal(mix.source_mask[b], mask.flatten())
    assert torch.equal(mix.mixed, want) and torch.equal(mix.target_mask, ~mix.source_mask)
    assert torch.equal(mix.src, extreme_windows(scores.view(4, 4, 4), 2)[perm])
    assert mix.lam.tolist() == [0.75] * 4
    labels = mix.labels(torch.arange(4))
    assert labels.y_b.tolist() == perm.tolist() and labels.lam.tolist() == [0.75] * 4


def test_regions_pass_the_reference_of_smmix():
    cases = json.loads(VECTORS.read_text())["cases"]
    assert cases
    for case in cases:
        x, scores = (torch.tensor(case["inputs"][name], dtype=torch.float64) for name in ("images", "patch_scores"))
        mix = paste_regions(x, torch.arange(len(x)).flip(0), scores, case["params"]["k"])
        assert np.abs(mix.mixed.numpy() - np.array(case["expected"]["mixed_images"])).max() == 0
        assert torch.cat([mix.dst, mix.src], 1).tolist() == case["expected"]["corners"]


def test_bad_regions_are_named():
    x = torch.zeros(2, 3, 8, 8)
    perm = torch.tensor([1, 0])
    with pytest.raises(ValueError, match="8 patches, no square number"):
        paste_regions(x, perm, torch.zeros(2, 8), 1)
    with pytest.raises(ValueError, match="do not divide into 3 x 3 patches of 2"):
        paste_regions(x, perm, torch.zeros(2, 9), 1)
    with pytest.raises(ValueError, match="window of side 5"):
        paste_regions(x, perm, torch.zeros(2, 16), 5)
    with pytest.raises(ValueError, match="one grid per image"):
        paste_regions(x, perm, torch.zeros(3, 16), 2)


GROUPS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 0])  # view-major, image 3 has one view


@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
def test_self_mix_stays_inside_an_image(kind):
    """Pixels are tagged with their image: no other tag may appear."""
    x = GROUPS[:, None, None, None].expand(-1, 1, 8, 8).float() * 10
    mix = SelfMix(prob=1.0, kind=kind, seed=0)
    seen = set()
    for _ in range(40):
        plan = mix.draw(GROUPS, (8, 8))
        torch.testing.assert_close(plan.apply(x), x)
        assert torch.equal(GROUPS[plan.perm], GROUPS)
        alone = plan.perm == torch.arange(len(GROUPS))
        assert alone.tolist() == (GROUPS == 3).tolist() and plan.lam[3] == 1
        for group in range(3):  # one share and one shift per image
            rows = (GROUPS == group).nonzero()[:, 0]
            assert len(plan.lam[rows].unique()) == 1
            place = {int(row): number for number, row in enumerate(rows)}
            shifts = {(place[int(plan.perm[row])] - place[int(row)]) % len(rows) for row in rows}
            assert len(shifts) == 1
            seen.add((group, shifts.pop()))
    assert seen == {(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 1), (2, 2)}


def test_self_mix_leaves_dropped_views_out():
    keep = torch.ones(len(GROUPS), dtype=torch.bool)
    keep[[0, 4, 5]] = False
    plan = SelfMix(prob=1.0, seed=1).draw(GROUPS, (8, 8), keep=keep)
    fixed = {0, 4, 5, 3}
    for row, partner in enumerate(plan.perm.tolist()):
        assert (partner == row) == (row in fixed) and (row in fixed or partner not in fixed)
    one_left = torch.tensor([True, False])
    plan = SelfMix(prob=1.0, seed=1).draw(torch.tensor([4, 4]), (8, 8), keep=one_left)
    assert plan.perm.tolist() == [0, 1] and plan.lam.tolist() == [1, 1]


def test_self_mix_of_one_row_and_without_mixing():
    x = torch.randn(1, 1, 4, 4)
    assert torch.equal(SelfMix(prob=1.0, seed=0).draw(torch.tensor([7]), (4, 4)).apply(x), x)
    off = SelfMix(alpha=0.0).draw(GROUPS, (8, 8))
    assert off.lam.tolist() == [1] * 11 and off.perm.tolist() == list(range(11))
    share = torch.cat([SelfMix(prob=0.3, seed=s).draw(GROUPS, (8, 8)).lam[:1] for s in range(600)])
    assert abs((share < 1).float().mean() - 0.3) < 0.07  # boxes may also be empty
    with pytest.raises(ValueError, match="`kind` must be cutmix or mixup"):
        SelfMix(kind="both")
    with pytest.raises(ValueError, match="`image_size` is needed"):
        SelfMix().draw(GROUPS)
    with pytest.raises(ValueError, match="at least one row"):
        SelfMix().draw(GROUPS[:0], (8, 8))


def test_mixed_targets_are_the_formula():
    plan = SelfMix(prob=1.0, kind="mixup", seed=3).draw(GROUPS)
    probs = torch.randn(len(GROUPS), 5).softmax(-1)
    lam = plan.lam[:, None]
    torch.testing.assert_close(mixed_targets(plan, probs), lam * probs + (1 - lam) * probs[plan.perm])
    assert shifted_partners(np.array([1, 1]), np.array([0, 1])).tolist() == [1, 0]
