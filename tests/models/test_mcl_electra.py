"""MCL: what the courses do to a batch, their losses and gradients."""

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from mcl_electra_toys import batch, tiny
from transformers import Trainer, TrainingArguments

from hf_labels.losses.mcl_electra import COURSES, choose_positions, corruption_counts, put_tokens, sample_tokens
from hf_labels.losses.mcl_electra_noise import RowNoise
from hf_labels.models.mcl_electra_config import scheduled_courses
from hf_labels.models.mcl_electra_passes import Terms, run_discriminator, run_generator


def test_rtd_alone_is_the_loss_of_stock_electra():
    model, (ids, mask) = tiny(courses=["rtd"]).eval(), batch()
    maskable = mask.bool() & (ids > 4)
    noise = RowNoise(ids, mask, 3)
    chosen = choose_positions(maskable, corruption_counts(maskable, 0.15), noise)
    masked = put_tokens(ids, chosen, 4)
    with torch.no_grad():
        out = model.generator(masked, attention_mask=mask, labels=ids.masked_fill(~chosen, -100))
        sampled = sample_tokens(out.logits[chosen], noise.uniform(16)[chosen])
        read = put_tokens(ids, chosen, sampled)
        judged = model.discriminator(read, attention_mask=mask, labels=(read != ids).long())
        ours = model(ids, mask, generator=RowNoise(ids, mask, 3))
    assert ours.loss.item() == pytest.approx((out.loss + 50 * judged.loss).item(), rel=1e-6)
    assert torch.allclose(ours.logits, judged.logits, atol=1e-6)
    assert torch.equal(ours.labels, (read != ids).long().masked_fill(mask == 0, -100))


def test_batched_courses_equal_one_after_the_other():
    model, (ids, mask) = tiny().eval(), batch()

    class Fixed(RowNoise):
        """The same numbers in every call, so that the order of the courses does not matter."""

        def uniform(self, width):
            self.calls = 0
            return super().uniform(width)

    with torch.no_grad():
        together = model(ids, mask, generator=Fixed(ids, mask, 1))
        for name in COURSES:
            alone = model(ids, mask, courses=[name], generator=Fixed(ids, mask, 1))
            assert alone.disc_losses[name].item() == pytest.approx(together.disc_losses[name].item(), rel=1e-5)
            if name != "itd":
                assert alone.gen_losses[name].item() == pytest.approx(together.gen_losses[name].item(), rel=1e-5)


def test_two_calls_of_each_network_at_most_and_logits_only_at_candidates(monkeypatch):
    model, (ids, mask) = tiny(), batch(pads=False)
    calls, rows = {"generator": 0, "discriminator": 0}, []
    for name in calls:
        part = getattr(model, name).electra
        part.register_forward_hook(lambda *a, n=name: calls.__setitem__(n, calls[n] + 1))
    model.generator.generator_lm_head.register_forward_hook(lambda m, i, o: rows.append(o.shape))
    out = model(ids, mask)
    assert calls == {"generator": 2, "discriminator": 2}
    assert all(len(shape) == 2 for shape in rows) and [shape[0] for shape in rows[:3]] == [4 * 2] * 3
    assert out.disc_tokens.item() == 4 * (16 + 16 + 18 + 16 + 16)
    model(ids, mask, courses=["rtd", "std", "itd"])
    assert calls == {"generator": 3, "discriminator": 3}


@pytest.mark.parametrize("course", COURSES)
def test_sampling_passes_no_gradient_to_the_generator(course):
    model, (ids, mask) = tiny(tie_word_embeddings=False), batch()
    out = model(ids, mask, courses=[course])
    out.disc_losses[course].backward(retain_graph=True)
    assert all(p.grad is None for p in model.generator.parameters())
    assert all(p.grad is not None for n, p in model.discriminator.named_parameters())
    out.loss.backward()
    assert all(p.grad is not None for p in model.parameters()), "every parameter in every step, for DDP"


def test_discriminator_reaches_shared_embeddings_unless_detached():
    for detached in (False, True):
        model, (ids, mask) = tiny(detach_embeddings=detached), batch()
        shared = model.discriminator.electra.embeddings.word_embeddings.weight
        assert shared is model.generator.electra.embeddings.word_embeddings.weight
        assert shared is model.generator.generator_lm_head.weight
        out = model(ids, mask)
        grad = torch.autograd.grad(sum(out.disc_losses.values()), shared, allow_unused=True)[0]
        assert (grad is None) == detached
        assert detached or grad.abs().sum() > 0


def test_pads_change_nothing():
    model, (ids, mask) = tiny().eval(), batch()
    with torch.no_grad():
        short = model(ids, mask)
        long = model(F.pad(ids, (0, 3)), F.pad(mask, (0, 3)))
        found = model(F.pad(ids, (0, 3)))  # pads are found by id
    for other in (long, found):
        for name in COURSES:
            assert other.disc_losses[name].item() == pytest.approx(short.disc_losses[name].item(), rel=1e-4)
        assert other.loss.item() == pytest.approx(short.loss.item(), rel=1e-4)
    assert (long.labels[:, -3:] == -100).all() and (short.labels[0, 11:] == -100).all()


def test_insertion_share_is_constant_and_segments_follow():
    model, (ids, mask) = tiny(courses=["itd"]), batch(pads=False)
    types = (torch.arange(16) > 8).long().expand(4, 16)
    for _ in range(3):
        out = model(ids, mask, token_type_ids=types)
        assert out.label_balance["itd"].item() == pytest.approx(2 / 18)
        assert out.gen_losses == {}
    seen = []
    model.discriminator.electra.embeddings.token_type_embeddings.register_forward_hook(
        lambda m, i, o: seen.append(i[0])
    )
    model(ids, mask, token_type_ids=types)
    assert (seen[0].diff(dim=1) >= 0).all() and seen[0].shape == (4, 18)


def test_notebook_masks_caught_tokens_again_and_keeps_unnoticed_mistakes():
    model, (ids, mask) = tiny(correction_scope="notebook"), batch()
    from hf_labels.losses.mcl_electra_noise import as_noise
    from hf_labels.models.mcl_electra_passes import correction_pass, first_pass, masked_again

    noise, terms = as_noise(RowNoise(ids, mask, 0), ids), Terms()
    maskable = mask.bool() & (ids > 4)
    first = first_pass("rtd", ids, mask.bool(), maskable, None, noise, model.config)
    run_generator(model, [first], noise, {"rtd"}, terms)
    run_discriminator(model, [first], {"rtd"}, terms)
    wrong = first.corrupted != ids
    assert wrong.any()
    spot = wrong.nonzero()[0]
    first.logits = torch.full_like(first.logits, -1.0)
    first.logits[spot[0], spot[1]] = 1.0  # this one is caught
    first.logits[1, 1] = 1.0 if not wrong[1, 1] else -1.0
    again = masked_again(correction_pass("re_rtd", first, "notebook"), 4)
    assert again.predict.nonzero().tolist() == [spot.tolist()]
    assert again.read[spot[0], spot[1]] == 4
    others = wrong.clone()
    others[spot[0], spot[1]] = False
    assert torch.equal(again.read[others], first.corrupted[others])
    want = (wrong | (first.logits > 0)) & mask.bool()
    assert torch.equal(again.where, want)
    assert torch.equal(correction_pass("re_rtd", first, "all").where, mask.bool())
    first.logits = torch.full_like(first.logits, -1.0)  # nothing caught
    again = masked_again(correction_pass("re_rtd", first, "notebook"), 4)
    terms = Terms()
    run_generator(model, [again], noise, {"re_rtd"}, terms)
    assert terms.gen_sums["re_rtd"].item() == 0 and terms.gen_sums["re_rtd"].requires_grad


def test_swapped_input_and_shown_tokens():
    ids, mask = batch()
    out = tiny(courses=["std"], std_input="swapped").eval()(ids, mask)
    sampled = tiny(courses=["std"]).eval()(ids, mask)
    assert out.labels[mask.bool()].sum() > 0 and not torch.equal(out.logits, sampled.logits)
    reads = []
    for share in (1.0, 0.5):
        model = tiny(courses=["rtd"], mask_prob=0.6, show_mask_prob=share).eval()
        model.generator.electra.register_forward_pre_hook(lambda m, a, k=None: reads.append(a[0]))
        model(ids, mask)
    masks = [(read == 4).sum().item() for read in reads]
    assert 0 < masks[1] < masks[0]


def test_odd_rows():
    model = tiny().eval()
    ids = torch.tensor([[2, 3, 0, 0, 0], [2, 9, 3, 0, 0], [2, 9, 8, 7, 3]])
    mask = (ids > 0).long()
    out = model(ids, mask)
    assert (out.labels[0] == -100).all(), "nothing to corrupt: the row is in no loss"
    assert out.terms.disc_counts["rtd"] == 8 and out.terms.disc_counts["std"] == 5, "swaps need two tokens"
    assert out.terms.disc_counts["itd"] == 4 + 6 and torch.isfinite(out.loss)
    special = tiny()(ids[:1], mask[:1])
    special.loss.backward()
    assert special.loss.item() == 0
    given = model(ids, mask, special_tokens_mask=(ids == 9).long())
    assert (given.labels[1] == -100).all()


def test_long_rows():
    model = tiny(courses=["itd"])
    ids, mask = batch(width=24, pads=False)
    out = model(ids, mask)
    assert out.attention_mask.sum(1).tolist() == [24] * 4, "cut to 21, three inserted"
    counts = model.counts(ids, mask)
    assert out.terms.disc_counts["itd"] == counts["itd_disc"] == 96
    with pytest.raises(ValueError, match="30 tokens, the networks read 24"):
        model(*batch(width=30))
    with pytest.raises(ValueError, match="may be cut"):
        crowded = torch.full((1, 24), 2)
        crowded[0, 5] = 9
        model(crowded, torch.ones_like(crowded))


def test_counts_are_those_of_the_losses():
    model, (ids, mask) = tiny(courses=["rtd", "std", "itd"]), batch()
    terms, counts = model(ids, mask).terms, model.counts(ids, mask)
    for name, number in counts.items():
        course, _, part = name.partition("_")
        assert number == getattr(terms, f"{part}_counts")[course], name


def test_eval_repeats_and_training_draws_anew():
    model, (ids, mask) = tiny(), batch()
    with torch.no_grad():
        assert model(ids, mask).loss != model(ids, mask).loss
        same = [model(ids, mask, generator=torch.Generator().manual_seed(1)).loss for _ in range(2)]
        assert same[0] == same[1]
        model.eval()
        assert model(ids, mask).loss == model(ids, mask).loss
        half = model(ids[2:], mask[2:])
        assert torch.allclose(half.logits, model(ids, mask).logits[2:], atol=1e-6)


def test_schedules():
    assert scheduled_courses(COURSES, "joint", 7) == COURSES
    assert [scheduled_courses(COURSES, "round_robin", s)[0] for s in range(6)] == [*COURSES, "rtd"]
    assert scheduled_courses(COURSES, "joint", 0, corrections=False) == ("rtd", "std", "itd")
    with pytest.raises(ValueError, match="have not begun"):
        scheduled_courses(("re_rtd",), "joint", 0, corrections=False)
    model, (ids, mask) = tiny(course_schedule="round_robin"), batch()
    assert [next(iter(model(ids, mask).disc_losses)) for _ in range(6)] == [*COURSES, "rtd"]
    assert set(model.eval()(ids, mask).disc_losses) == set(COURSES)


def test_bad_settings_are_named():
    cases = [
        ({"courses": ["rtd", "mlm"]}, "Unknown course 'mlm'"),
        ({"course_schedule": "random"}, "course_schedule"),
        ({"std_input": "x"}, "std_input"),
        ({"correction_scope": "x"}, "correction_scope"),
        ({"mask_prob": 0.0}, "mask_prob"),
        ({"course_weights": {"mlm": 1.0}}, "'mlm'"),
        ({"course_weights": {"rtd": -1.0}}, "'rtd'"),
        ({"mask_token_id": 40}, "mask_token_id"),
        ({"generator": {"vocab_size": 41}}, "one vocabulary, got 41 and 40"),
        ({"detach_embeddings": True, "tie_word_embeddings": False}, "detach_embeddings"),
    ]
    for settings, message in cases:
        with pytest.raises(ValueError, match=message):
            tiny(**settings)
    with pytest.raises(ValueError, match="Unknown course"):
        tiny()(*batch(), courses=["mlm"])


def test_different_embedding_sizes_are_not_shared():
    model = tiny(generator={"embedding_size": 12}).eval()
    assert not model.config.shares_embeddings
    assert model.generator.generator_lm_head.weight is model.generator.electra.embeddings.word_embeddings.weight
    assert torch.isfinite(model(*batch()).loss)


def test_every_attention_and_checkpointing_agree():
    model, (ids, mask) = tiny().eval(), batch()
    want = model(ids, mask).loss
    model.set_attn_implementation("eager")
    assert model(ids, mask).loss.item() == pytest.approx(want.item(), rel=1e-4)
    noise = [RowNoise(ids, mask, 0) for _ in range(2)]
    model.train()
    model(ids, mask, generator=noise[0]).loss.backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(ids, mask, generator=noise[1]).loss.backward()
    assert all(torch.allclose(a, p.grad, atol=1e-4) for a, p in zip(grads, model.parameters(), strict=True))


def test_stock_trainer_trains_and_evaluates(tmp_path):
    """No trainer of ours: the loss is found without labels, scores and labels of all rows come back."""
    ids, mask = batch(16)
    rows = Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": mask.tolist()})
    settings = {"max_steps": 2, "save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "report_to": "none"}
    trainer = Trainer(
        tiny(), TrainingArguments(str(tmp_path), **settings), train_dataset=rows, eval_dataset=rows.select(range(10))
    )
    trainer.train()
    seen = trainer.predict(trainer.eval_dataset)
    scores, labels = seen.predictions
    assert scores.shape == labels.shape == (10, 16) and set(labels.flatten().tolist()) == {-100, 0, 1}
    model = trainer.model.eval()
    with torch.no_grad():
        halves = [model(ids[a:b], mask[a:b]).loss.item() * (b - a) for a, b in ((0, 8), (8, 10))]
    assert seen.metrics["test_loss"] == pytest.approx(sum(halves) / 10, rel=1e-5)
    assert trainer.evaluate()["eval_loss"] == seen.metrics["test_loss"]
