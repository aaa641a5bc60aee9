import numpy as np
import pytest
import torch

from hf_labels.losses.mcl_electra import (
    CAUGHT,
    COURSES,
    PAD,
    check_courses,
    choose_gaps,
    choose_positions,
    correction_notebook,
    corruption_counts,
    cut_rows,
    derangement,
    detection_loss,
    generator_loss,
    insert_slots,
    label_balance,
    put_tokens,
    replaced_labels,
    sample_tokens,
    swap_tokens,
    total_loss,
)
from hf_labels.losses.mcl_electra_noise import BatchNoise, RowNoise, as_noise


def _batch(rows=6, width=20, seed=0, shortest=4):
    """Ids with [CLS]=2, [SEP]=3, pads of 0 on the right; masks of tokens and of maskable tokens."""
    rng = np.random.default_rng(seed)
    ids = torch.tensor(rng.integers(5, 40, (rows, width)))
    mask = torch.ones(rows, width, dtype=torch.bool)
    for row in range(rows):
        length = int(rng.integers(shortest, width + 1))
        ids[row, 0], ids[row, length - 1], ids[row, length:] = 2, 3, 0
        mask[row, length:] = False
    return ids, mask, mask & (ids > 4)


@pytest.mark.parametrize("seed", range(5))
def test_positions_are_as_many_as_asked_and_only_maskable(seed):
    _, _, maskable = _batch(seed=seed)
    counts = corruption_counts(maskable, 0.3)
    chosen = choose_positions(maskable, counts, torch.Generator().manual_seed(seed))
    assert torch.equal(chosen.sum(1), counts) and not (chosen & ~maskable).any()
    lengths = maskable.sum(1).tolist()
    assert counts.tolist() == [max(1, int(0.3 * n + 0.5)) for n in lengths]


def test_all_positions_are_equally_likely():
    maskable = torch.ones(4000, 5, dtype=torch.bool)
    for generator in (torch.Generator().manual_seed(0), RowNoise(torch.arange(20000).view(4000, 5), maskable, 1)):
        share = choose_positions(maskable, torch.full((4000,), 2), generator).float().mean(0)
        assert (share - 0.4).abs().max() < 0.04  # five standard errors of a share of 4000


def test_short_rows_force_one_position_and_skip_swaps():
    maskable = torch.tensor([[False, True, False, False], [False, True, True, False], [False] * 4])
    assert corruption_counts(maskable, 0.15).tolist() == [1, 1, 0]
    assert corruption_counts(maskable, 0.15, least=2).tolist() == [0, 2, 0]
    with pytest.raises(ValueError, match="Row 0 has one chosen position"):
        derangement(maskable)


@pytest.mark.parametrize("seed", range(8))
def test_derangement_moves_every_chosen_token_and_no_other(seed):
    ids, _, maskable = _batch(seed=seed)
    counts = corruption_counts(maskable, 0.4, least=2)
    chosen = choose_positions(maskable, counts, torch.Generator().manual_seed(seed))
    sources = derangement(chosen, torch.Generator().manual_seed(seed))
    own = torch.arange(ids.shape[1]).expand_as(ids)
    assert ((sources != own) == chosen).all()
    assert torch.equal(sources.sort(1).values, own), "it is a permutation"
    swapped = swap_tokens(ids, sources)
    assert torch.equal(swapped.sort(1).values, ids.sort(1).values) and torch.equal(swapped[~chosen], ids[~chosen])


@pytest.mark.parametrize("seed", range(8))
def test_insertion_keeps_the_text_and_its_labels_are_the_slots(seed):
    ids, mask, maskable = _batch(seed=seed)
    counts = corruption_counts(maskable, 0.25)
    slots = choose_gaps(maskable, counts, torch.Generator().manual_seed(seed))
    assert torch.equal(slots.sum(1), counts)
    built = insert_slots(ids, mask, slots, fill=4)
    for row in range(len(ids)):
        kept = built.attention_mask[row] & ~built.inserted[row]
        assert built.input_ids[row, kept].tolist() == ids[row, mask[row]].tolist()
        assert built.source[row, kept].tolist() == list(range(int(mask[row].sum())))
        assert built.input_ids[row, 0] == 2 and built.input_ids[row, built.attention_mask[row]][-1] == 3
        length, extra = int(mask[row].sum()), int(counts[row])
        share = label_balance(built.inserted[row], built.attention_mask[row])
        assert share.item() == pytest.approx(extra / (length + extra), abs=1e-7)
        assert (built.input_ids[row, built.inserted[row]] == 4).all()


def test_gaps_repeat_and_reach_both_ends():
    maskable = torch.tensor([[False, True, True, False]]).expand(3000, 4)
    slots = choose_gaps(maskable, torch.full((3000,), 3), torch.Generator().manual_seed(0))
    assert slots[:, [0, 4]].sum() == 0 and (slots.max(1).values == 3).any()
    assert (slots.float().mean(0)[1:4] - 1).abs().max() < 0.08


def test_rows_are_cut_before_insertion_and_special_tokens_stay():
    ids, mask, maskable = _batch(rows=3, width=12, shortest=12)
    kept = cut_rows(mask, maskable, torch.tensor([12, 9, 4]))
    assert kept.sum(1).tolist() == [12, 9, 4] and kept[:, 0].all() and kept[:, 11].all()
    assert kept[1].tolist() == [True] * 8 + [False] * 3 + [True]
    with pytest.raises(ValueError, match="Row 1 holds 12 tokens, of which 10 may be cut"):
        cut_rows(mask, maskable, torch.tensor([12, 2, 12]))


def test_put_tokens_wants_one_token_for_each_place():
    ids, _, maskable = _batch()
    with pytest.raises(ValueError, match="chosen places"):
        put_tokens(ids, maskable, torch.zeros(3, dtype=torch.int64))
    before = ids.clone()
    put_tokens(ids, maskable, 4)
    assert torch.equal(ids, before), "not in place"


def test_a_token_that_is_sampled_right_is_original():
    ids, _, maskable = _batch()
    chosen = choose_positions(maskable, corruption_counts(maskable, 0.5), torch.Generator().manual_seed(0))
    assert replaced_labels(put_tokens(ids, chosen, ids[chosen]), ids).sum() == 0
    assert torch.equal(replaced_labels(put_tokens(ids, chosen, 1), ids).bool(), chosen)


def test_sampling_follows_the_softmax():
    logits = torch.tensor([[0.0, 1.0, 2.0, -30.0]])
    uniform = (torch.arange(20000) + 0.5) / 20000
    sampled = sample_tokens(logits.expand(20000, 4), uniform)
    shares = torch.bincount(sampled, minlength=4) / 20000
    assert torch.allclose(shares, torch.softmax(logits[0], 0), atol=2e-4)
    assert not sample_tokens(logits.requires_grad_(), uniform[:1]).requires_grad
    edge = sample_tokens(torch.zeros(2, 30000), torch.tensor([0.0, 1.0]))
    assert edge.tolist() == [0, 29999], "rounding never leaves the vocabulary"


def test_notebook_pages_partition_the_tokens():
    ids, mask, _ = _batch()
    corrupted = torch.where(torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)) < 0.5, ids, ids + 1)
    logits = torch.randn(ids.shape, generator=torch.Generator().manual_seed(1))
    pages = correction_notebook(ids, corrupted, logits, mask)
    assert ((pages == PAD) == ~mask).all() and pages[mask].min() == 1 and pages.max() == CAUGHT
    names = {(False, False): 1, (False, True): 2, (True, False): 3, (True, True): 4}
    for row, column in mask.nonzero().tolist():
        wrong, judged = ids[row, column] != corrupted[row, column], logits[row, column] > 0
        assert pages[row, column] == names[bool(wrong), bool(judged)]
    with pytest.raises(ValueError, match="one shape"):
        correction_notebook(ids, corrupted[:, :3], logits, mask)


def test_losses_match_an_oracle_and_have_right_gradients():
    ids, mask, _ = _batch()
    logits = torch.randn(ids.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = (ids % 2 == 0).long()
    p = torch.sigmoid(logits)
    want = -torch.where(labels.bool(), p.log(), (1 - p).log())[mask].mean()
    assert torch.allclose(detection_loss(logits, labels, mask), want, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: detection_loss(x, labels, mask), logits)
    grad = torch.autograd.grad(detection_loss(logits, labels, mask), logits)[0]
    assert (grad[~mask] == 0).all() and (grad[mask] != 0).all()
    scores, targets = torch.randn(7, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 0, 1])
    assert generator_loss(scores, targets).item() == pytest.approx(
        -scores.log_softmax(1)[range(7), targets].mean().item(), abs=1e-12
    )


def test_an_empty_notebook_gives_zero_with_a_graph():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = detection_loss(logits, torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.bool))
    loss = loss + generator_loss(logits[:0], torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros(2, 3))


def test_bad_labels_and_shapes_are_named():
    logits, mask = torch.zeros(2, 3), torch.ones(2, 3)
    with pytest.raises(ValueError, match="got 2 at row 1, column 0"):
        detection_loss(logits, torch.tensor([[0, 1, 0], [2, 0, 0]]), mask)
    labels = torch.tensor([[0, 1, 0], [-100, 0, 0]])
    assert detection_loss(logits, labels, labels >= 0).item() == pytest.approx(np.log(2))
    with pytest.raises(ValueError, match="one shape"):
        detection_loss(logits, labels[:1], mask)


def test_courses_are_checked_and_ordered():
    assert check_courses(["re_std", "rtd"]) == ("rtd", "re_std") and check_courses(COURSES) == COURSES
    with pytest.raises(ValueError, match="Unknown course 'mlm'.*rtd, std, itd"):
        check_courses(["rtd", "mlm"])
    for wrong in ([], ["rtd", "rtd"], "rtd", None):
        with pytest.raises(ValueError, match="courses"):
            check_courses(wrong)
    with pytest.raises(ValueError, match=r"\(0, 1\)"):
        corruption_counts(torch.ones(1, 3, dtype=torch.bool), 1.0)
    with pytest.raises(ValueError, match="no course"):
        total_loss({}, {})


def test_total_weighs_courses_and_the_discriminator():
    gen, disc = {"rtd": torch.tensor(2.0)}, {"rtd": torch.tensor(0.5), "itd": torch.tensor(0.25)}
    assert total_loss(gen, disc, {"itd": 2.0}, 50).item() == pytest.approx(2 + 25 + 25)


# Random numbers per row


def test_row_noise_does_not_see_the_batch_or_the_padding():
    ids, mask, _ = _batch(rows=6)
    whole = RowNoise(ids, mask, 7)
    streams = [whole.uniform(20), whole.uniform(25)]
    for rows in ([4, 0], [5]):
        wider = torch.nn.functional.pad(ids[rows], (0, 5)), torch.nn.functional.pad(mask[rows], (0, 5))
        part = RowNoise(*wider, 7)
        assert torch.equal(part.uniform(20), streams[0][rows])
        assert torch.equal(part.uniform(30)[:, :25], streams[1][rows])
    left = RowNoise(torch.roll(ids[[5]], 3, 1) if mask[5].all() else ids[[5]], mask[[5]], 7)
    assert left.uniform(3).shape == (1, 3)
    assert not torch.equal(RowNoise(ids, mask, 8).uniform(20), streams[0])
    assert not torch.equal(streams[0], whole.uniform(20))


def test_row_noise_is_uniform_and_uncorrelated():
    ids = torch.arange(2000)[:, None].expand(2000, 4)
    noise = RowNoise(ids, torch.ones_like(ids), 0)
    u, v = noise.uniform(50), noise.uniform(50)
    assert 0 < u.min() and u.max() < 1
    counts = torch.histc(u, 20, 0, 1)
    assert ((counts - 5000) ** 2 / 5000).sum() < 50  # chi-square with 19 degrees of freedom: p about 1e-4
    flat = torch.stack([u.flatten(), v.flatten(), u.roll(1, 0).flatten(), u.roll(1, 1).flatten()])
    assert (torch.corrcoef(flat) - torch.eye(4)).abs().max() < 0.02


def test_generators_repeat():
    _, _, maskable = _batch()
    counts = corruption_counts(maskable, 0.3)
    one, two, three = (choose_positions(maskable, counts, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, three)
    noise = BatchNoise(2, "cpu")
    assert as_noise(noise, maskable) is noise and as_noise(None, maskable).uniform(3).shape == (6, 3)
