"""Training on domains: weights, exact loss, unknown domains, and classes found in one call."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel
from lls_toys import MIXTURES, images

import toys
from hf_labels.labels.latent_label_shift import LatentLabelShift
from hf_labels.labels.latent_label_shift_factors import NotIdentifiedError
from hf_labels.metrics.functional import matched_accuracy, mixture_l1
from hf_labels.trainers.latent_label_shift import LatentLabelShiftTrainer, LatentLabelShiftTrainingArguments


def trainer(folder, data, model=None, **options):
    args = LatentLabelShiftTrainingArguments(**toys.quick(folder, **options))
    return LatentLabelShiftTrainer(model or toys.tiny_vit(4), args, train_dataset=data, eval_dataset=data)


def rows_of(data, counts):
    domains = np.array(data["domain"][:])
    return data.select(np.concatenate([np.flatnonzero(domains == d)[:n] for d, n in enumerate(counts)]))


@pytest.mark.parametrize("balance", [True, False])
def test_loss_lets_all_domains_count_alike(tmp_path, balance):
    data = rows_of(images(), [20, 5, 10, 5])
    one = trainer(tmp_path, data, balance_domains=balance, per_device_eval_batch_size=40)
    weights = [0.5, 2.0, 1.0, 2.0] if balance else [1.0] * 4
    np.testing.assert_allclose(one.domain_weights(), weights)
    domain = torch.tensor(data["domain"][:])
    with torch.no_grad():
        log_p = one.model.eval()(torch.tensor(data["pixel_values"][:])).logits.log_softmax(-1)
    each = -log_p[torch.arange(40), domain]
    want = (each * torch.tensor(weights)[domain]).mean().item()
    if balance:  # that is the mean over the domains of their means
        assert want == pytest.approx(np.mean([each[domain == d].mean().item() for d in range(4)]), rel=1e-5)
    assert one.evaluate()["eval_loss"] == pytest.approx(want, rel=1e-5)


def test_rows_of_unknown_domains_train_nothing(tmp_path):
    data = images(16)
    unknown = [-1 if i in (3, 8) else d for i, d in enumerate(data["domain"][:])]
    marked = data.remove_columns("domain").add_column("domain", unknown)
    options = {"max_steps": 1, "per_device_train_batch_size": 16}
    one = trainer(tmp_path / "a", marked, **options)
    one.train()
    without = [i for i in range(16) if i not in (3, 8)]
    two = trainer(tmp_path / "b", marked.select(without), **options)
    two.train()
    toys.assert_same(toys.weights(one.model), toys.weights(two.model), atol=1e-5)


def test_classes_are_found_in_one_call_and_saved(tmp_path):
    data = images(480, seed=3).cast_column("domain", ClassLabel(names=["north", "east", "south", "west"]))
    options = {"num_train_epochs": 10, "learning_rate": 3e-3, "per_device_train_batch_size": 16}
    one = trainer(tmp_path, data, **options)
    one.train()
    model = one.find_classes(3, 9, class_names=["a", "b", "c"])
    domains = torch.tensor(data["domain"][:])
    with torch.no_grad():
        found = model(torch.tensor(data["pixel_values"][:]), domain=domains).logits
    assert matched_accuracy(found, data["labels"][:])["matched_accuracy"] > 0.8
    assert mixture_l1(one.lls.class_prior, MIXTURES)["mixture_l1_per_domain"] < 0.25
    saved = LatentLabelShift.from_pretrained(tmp_path)
    np.testing.assert_array_equal(saved.class_prior, one.lls.class_prior)
    assert saved.domain_names == ("north", "east", "south", "west") and saved.domain_weights is None
    assert one.card_facts()["extra"]["classes"] == 3
    with pytest.raises(NotIdentifiedError, match="5 classes cannot be told apart by 4 domains"):
        one.find_classes(5)
    with pytest.raises(ValueError, match="`num_clusters` must be at least"):
        one.find_classes(3, 2)


def test_what_was_learned_by_heart_is_no_class(tmp_path, caplog):
    data = images(240, seed=5)
    shuffled = np.random.default_rng(0).permutation(data["domain"][:]).tolist()
    data = data.remove_columns("domain").add_column("domain", shuffled)
    parts = data.select(range(160)), data.select(range(160, 240))
    options = {"num_train_epochs": 60, "learning_rate": 1e-2, "per_device_train_batch_size": 16}
    alone = trainer(tmp_path / "a", parts[0], **options)
    alone.train()
    alone.eval_dataset = None
    with caplog.at_level("WARNING"):
        alone.find_classes(2, 4)  # its own training rows show classes that are not there
    assert "`eval_dataset` with rows of all 4 domains" in caplog.text and alone.lls.report.rank_p_value <= 0.05
    alone.eval_dataset = parts[1]
    with pytest.raises(NotIdentifiedError, match="do not show 2 classes"):
        alone.find_classes(2, 4)


def test_classes_of_an_unbalanced_training_get_the_counts(tmp_path):
    data = rows_of(images(400), [100, 20, 60, 40])
    one = trainer(tmp_path, data, balance_domains=False, max_steps=2)
    one.train()
    one.find_classes(2, check="ignore")
    np.testing.assert_allclose(one.lls.domain_weights, 55 / np.array([100, 20, 60, 40]))


def test_a_model_with_domains_that_have_no_row_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"each of the 5 domains.*got rows per domain \[10, 10, 10, 10, 0"):
        trainer(tmp_path, images(40), toys.tiny_vit(5)).train()


def test_streamed_data_cannot_be_balanced(tmp_path):
    stream = images(40).to_iterable_dataset()
    with pytest.raises(ValueError, match="streamed data.*`balance_domains=False`"):
        trainer(tmp_path / "a", stream, max_steps=1).train()
    one = trainer(tmp_path / "b", stream, max_steps=1, balance_domains=False)
    one.train()
    assert one.state.global_step == 1
