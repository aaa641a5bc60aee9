"""Mixing operations: exact values, no side effects, gradients, errors."""

import pytest
import torch

from hf_labels.mixing import box_lam, cutmix, cutmix_box, mix_features, mixup, paste_windows


def _images(rows=4, seed=0, **options):
    return torch.randn(rows, 3, 6, 8, generator=torch.Generator().manual_seed(seed), **options)


PERM = torch.tensor([2, 0, 3, 1])


@pytest.mark.parametrize("lam", [0.3, torch.tensor(0.3), torch.tensor([0.3, 0.0, 1.0, 0.7])])
def test_mixup_is_the_formula_row_by_row(lam):
    x = _images()
    shares = torch.as_tensor(lam).expand(4)
    want = torch.stack([shares[b] * x[b] + (1 - shares[b]) * x[PERM[b]] for b in range(4)])
    before = x.clone()
    torch.testing.assert_close(mixup(x, PERM, lam), want)
    assert torch.equal(x, before)


def test_mixup_of_token_states_is_linear_and_leaves_fixed_points_alone():
    f, g = (torch.randn(4, 5, 7, dtype=torch.float64) for _ in range(2))
    both = mix_features(2 * f - g, PERM, 0.25)
    torch.testing.assert_close(both, 2 * mixup(f, PERM, 0.25) - mixup(g, PERM, 0.25))
    torch.testing.assert_close(mixup(f, torch.arange(4), 0.4), f)
    assert torch.equal(mixup(f, PERM, 1.0), f)


def test_nan_stays_in_its_rows():
    x = _images()
    x[0, 0, 0, 0] = torch.nan
    touched = torch.isnan(mixup(x, PERM, 0.5)).flatten(1).any(1)
    assert touched.tolist() == [True, True, False, False]


@pytest.mark.parametrize("op", ["mixup", "cutmix", "windows"])
def test_gradient_reaches_both_rows(op):
    x = _images(dtype=torch.float64).requires_grad_()
    if op == "mixup":
        out = mixup(x, PERM, 0.3)
    elif op == "cutmix":
        out = cutmix(x, PERM, torch.tensor([1, 4, 2, 6]))
    else:
        corner = torch.tensor([[1, 2]] * 4)
        out = paste_windows(x, PERM, corner, corner, (3, 4))
    (grad,) = torch.autograd.grad(out[0].sum(), x)
    assert grad[0].any() and grad[2].any() and not grad[1].any() and not grad[3].any()
    if op != "mixup":
        assert grad.sum() == out[0].numel() and grad[2, 0].sum() == 12


@pytest.mark.parametrize("per_row", [False, True])
def test_cutmix_copies_exactly_the_box(per_row):
    x = _images()
    boxes = torch.tensor([[1, 4, 2, 6], [0, 6, 0, 8], [3, 3, 5, 5], [5, 6, 7, 8]])
    box = boxes if per_row else boxes[0]
    out = cutmix(x, PERM, box)
    for b in range(4):
        y0, y1, x0, x1 = boxes[b if per_row else 0].tolist()
        want = x[b].clone()
        want[:, y0:y1, x0:x1] = x[PERM[b], :, y0:y1, x0:x1]
        assert torch.equal(out[b], want)
        pasted = (out[b, 0] != x[b, 0]).sum().item() / 48
        assert pasted == pytest.approx(1 - box_lam(boxes[b if per_row else 0], (6, 8)).item(), abs=1e-12)


def test_paste_windows_equals_a_loop():
    x = _images(5, seed=3)
    perm = torch.tensor([1, 2, 3, 4, 4])
    rng = torch.Generator().manual_seed(1)
    dst, src = (torch.stack([torch.randint(0, n, (5,), generator=rng) for n in (5, 6)], 1) for _ in range(2))
    out = paste_windows(x, perm, dst, src, (2, 3))
    want = x.clone()
    for b in range(5):
        (r, c), (i, j) = dst[b].tolist(), src[b].tolist()
        want[b, :, r : r + 2, c : c + 3] = x[perm[b], :, i : i + 2, j : j + 3]
    assert torch.equal(out, want)


def test_lam_of_one_and_zero_give_an_empty_and_a_clipped_full_box():
    box, lam = cutmix_box((6, 8), 1.0, (3, 3))
    assert lam == 1.0 and (box[1] - box[0]) * (box[3] - box[2]) == 0
    box, lam = cutmix_box((6, 8), 0.0, (0, 0))
    assert box.tolist() == [0, 3, 0, 4] and lam == 0.75  # not 0: the box is cut at the border


def test_bad_input_is_named():
    x = _images()
    with pytest.raises(TypeError, match="Normalise images to float before mixing"):
        mixup(torch.zeros(4, 3, 6, 8, dtype=torch.uint8), PERM, 0.5)
    with pytest.raises(TypeError, match="inputs_embeds"):
        mixup(torch.zeros(4, 9, dtype=torch.int64), PERM, 0.5)
    with pytest.raises(ValueError, match=r"`lam` must be one number or have shape \(4,\)"):
        mixup(x, PERM, torch.ones(3))
    with pytest.raises(ValueError, match="`perm` must hold 4 row numbers"):
        mixup(x, PERM[:2], 0.5)
    with pytest.raises(ValueError, match=r"row numbers in \[0, 4\)"):
        mixup(x, PERM + 1, 0.5)
    with pytest.raises(ValueError, match=r"images of shape \(B, C, H, W\)"):
        cutmix(x[0], PERM[:3] % 3, torch.tensor([0, 1, 0, 1]))
    with pytest.raises(ValueError, match="leaves the image of 6 x 8"):
        cutmix(x, PERM, torch.tensor([0, 7, 0, 1]))
    with pytest.raises(ValueError, match="`box` must hold integers"):
        cutmix(x, PERM, torch.tensor([0.0, 1.0, 0.0, 1.0]))
    corner = torch.zeros(4, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"`src` at \[5, 0\] \(row 2\) leaves the image"):
        paste_windows(x, PERM, corner, corner + torch.tensor([[0, 0], [0, 0], [5, 0], [0, 0]]), (2, 2))
    with pytest.raises(ValueError, match=r"`dst` must have shape \(4, 2\)"):
        paste_windows(x, PERM, corner[:2], corner, (2, 2))
