"""`SoftLabelTrainer` with targets from a store, a label map, a projector, or a collator; and resume of a ViT."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch.nn import functional as F

from hf_labels.data import (
    Normalizer,
    RandomResizedCrop,
    SoftLabelCollator,
    SoftLabelStore,
    SoftLabelWriter,
    StoreInfo,
)
from hf_labels.mixing import SelfMix
from hf_labels.trainers.soft_labels import SoftLabelTrainer, SoftLabelTrainingArguments
from toys import text_dataset, tiny_bert, tiny_vit


def _args(tmp_path, **options):
    settings = dict(report_to=[], use_cpu=True, save_strategy="no", per_device_train_batch_size=4, max_steps=2)
    return SoftLabelTrainingArguments(str(tmp_path), **settings | dict(disable_tqdm=True, logging_steps=1) | options)


def _weights(run):
    return torch.cat([p.detach().flatten() for p in run.model.parameters()])


def _text_store(data, **options):
    logits = torch.randn(len(data), 3, generator=torch.Generator().manual_seed(0))
    info = StoreInfo("topk", 3, **{"k": 2, "codec": "float32", **options})
    return SoftLabelStore.from_arrays(info, example_ids=data["index"][:], logits=logits)


@pytest.mark.parametrize("options", [{}, {"residual": "renorm"}, {"residual": "zero_logit"}])
def test_a_store_trains_like_its_decoded_column(options, tmp_path):
    data = text_dataset(12)
    store = _text_store(data, **options)
    column = store.decode(store.lookup(data["index"][:]))
    runs = [
        SoftLabelTrainer(tiny_bert(dropout=0.0), _args(tmp_path / "store"), train_dataset=data, label_source=store),
        SoftLabelTrainer(
            tiny_bert(dropout=0.0),
            _args(tmp_path / "column"),
            train_dataset=data.add_column("soft_labels", column.tolist()),
        ),
    ]
    for run in runs:
        run.train()
    torch.testing.assert_close(_weights(runs[0]), _weights(runs[1]), rtol=0, atol=1e-6)
    assert not torch.equal(_weights(runs[0]), torch.cat([p.flatten() for p in tiny_bert(dropout=0.0).parameters()]))


def test_a_store_is_checked_before_training(tmp_path):
    data = text_dataset(12)

    def run(store, rows=data, **options):
        trainer = SoftLabelTrainer(tiny_bert(), _args(tmp_path), train_dataset=rows, label_source=store, **options)
        trainer.train()

    with pytest.raises(KeyError, match="no soft label for example 6 "):
        run(_text_store(data.select(range(6))))
    with pytest.raises(KeyError, match="index"):
        run(_text_store(data), data.remove_columns("index"))
    with pytest.raises(ValueError, match="Class 1 is 'x' in the store and 'sport' in the model"):
        run(_text_store(data, id2label={0: "news", 1: "x", 2: "music"}))
    with pytest.raises(ValueError, match=r"Call `store.attach\(model\)` first"):
        run(SoftLabelStore.from_projector("me/projector", 3))


def test_a_projector_answers_like_a_teacher(tmp_path):
    data, teacher = text_dataset(12), tiny_bert(seed=5)
    store = SoftLabelStore.from_projector("me/projector", 3, id2label=teacher.config.id2label).attach(teacher)
    found = []
    for name, source in (("store", store), ("teacher", tiny_bert(seed=5))):
        run = SoftLabelTrainer(tiny_bert(), _args(tmp_path / name), train_dataset=data, label_source=source)
        run.train()
        found.append(_weights(run))
    assert torch.equal(*found)
    with pytest.raises(ValueError, match="The store has 4 classes"):
        other = SoftLabelStore.from_projector("me/projector", 4).attach(teacher)
        SoftLabelTrainer(tiny_bert(), _args(tmp_path), train_dataset=data, label_source=other)


def test_a_label_map_gives_each_crop_its_target(tmp_path):
    rng = np.random.default_rng(0)
    columns = {"pixel_values": rng.normal(size=(6, 1, 8, 8)).astype(np.float32), "index": range(6)}
    columns["crop"] = np.float32([[0.1 * n, 0.0, 0.5, 0.5] for n in range(5)] + [[0.0, 0.0, 1.0, 1.0]])
    data = Dataset.from_dict(columns)
    values, ids = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1)).topk(2, dim=1)
    writer = SoftLabelWriter(None, StoreInfo("map", 3, k=2, map_shape=(4, 4), codec="float32"))
    writer.add_maps(range(6), ids, values)
    store = SoftLabelStore.from_writer(writer)
    run = SoftLabelTrainer(tiny_vit(), _args(tmp_path), train_dataset=data, label_source=store)
    batch = next(iter(run.get_train_dataloader()))
    want = store.decode(store.lookup(batch["index"].tolist()), batch["crop"])
    logits = run.model(batch["pixel_values"]).logits
    torch.testing.assert_close(run.compute_loss(run.model, batch), F.cross_entropy(logits, want))
    run.train()


class _Processor:
    image_mean, image_std, do_normalize = (0.5,), (0.5,), True


def _images(count=8):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)) for _ in range(count)]
    return Dataset.from_dict({"image": images, "index": range(count), "labels": [n % 3 for n in range(count)]})


def _views(data, **options):
    teacher = tiny_vit(seed=3)
    settings = dict(views=4, crop=RandomResizedCrop(8, (0.3, 1)), image_processor=_Processor, k=2)
    return SoftLabelStore.build(teacher, data, **settings | options)


@pytest.mark.parametrize("mix", [False, True])
def test_stored_views_reach_the_loss_and_evaluation_is_plain(mix, tmp_path):
    data = _images()
    self_mix = SelfMix(prob=1.0) if mix else None
    collate = SoftLabelCollator(_views(data), _Processor, views_per_example=2, self_mix=self_mix)
    run = SoftLabelTrainer(tiny_vit(), _args(tmp_path), collate, train_dataset=data, eval_dataset=data)
    run.train()
    batch = next(iter(run.get_train_dataloader()))
    assert batch["pixel_values"].shape == (8, 1, 8, 8) and ("soft_labels" in batch) == mix
    whole = run.get_eval_dataloader().collate_fn([data[n] for n in range(8)])
    logits = run.model(Normalizer((0.5,), (0.5,)).undo(whole["pixel_values"]) * 2 - 1).logits.detach()
    want = F.cross_entropy(logits, torch.tensor(data["labels"][:])).item()
    assert run.evaluate()["eval_loss"] == pytest.approx(want, abs=1e-6)
    run.args.residual = "renorm"
    with pytest.raises(ValueError, match="`residual` must be 'smooth' with a store"):
        run.train()


@pytest.mark.parametrize("workers", [0, 2])
def test_run_with_stored_views_resumes_exactly(workers, tmp_path):
    """Also proves that a ViT, whose checkpoint names its tensors differently, comes back with its weights."""
    data = _images()

    def run(folder, **options):
        collate = SoftLabelCollator(_views(data), _Processor, views_per_example=2, self_mix=SelfMix(prob=1.0))
        args = _args(tmp_path / folder, max_steps=6, dataloader_num_workers=workers, **options)
        return SoftLabelTrainer(tiny_vit(), args, collate, train_dataset=data)

    whole, half, again = run("whole"), run("half", save_strategy="steps", save_steps=3), run("half")
    whole.train()
    half.train()
    again.train(resume_from_checkpoint=str(tmp_path / "half" / "checkpoint-3"))
    assert torch.equal(_weights(again), _weights(whole))


def test_the_best_vit_is_loaded_at_the_end(tmp_path, caplog):
    data = _images()
    options = dict(eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, max_steps=3)
    args = _args(tmp_path, load_best_model_at_end=True, learning_rate=1.0, **options)
    collate = SoftLabelCollator(_views(data), _Processor)
    run = SoftLabelTrainer(tiny_vit(), args, collate, train_dataset=data, eval_dataset=data)
    run.train()
    losses = [entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry]
    assert run.evaluate()["eval_loss"] == pytest.approx(min(losses), abs=1e-5) and len(set(losses)) == 3
    assert "missing keys" not in caplog.text
