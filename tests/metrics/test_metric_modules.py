"""The `evaluate` modules: by class and by folder, in one call and in batches, from lists, NumPy and torch."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import evaluate
import numpy as np
import pytest
import torch
import yaml

import hf_labels.metrics as metrics
from hf_labels.labels.task_similarity import task_similarity
from hf_labels.metrics import functional as fn
from hf_labels.metrics.space import compute_from_text

RNG = np.random.default_rng(0)
PROBS, IDS = RNG.dirichlet(np.ones(4), 30), RNG.integers(0, 4, 30)
SCORES, HOT = RNG.random((30, 4)), RNG.integers(0, 2, (30, 4))
MULTI = np.c_[np.eye(3, dtype=int)[np.arange(30) % 3], np.arange(30) % 2]  # no row is all 1
GALLERY, GALLERY_HOT = RNG.random((9, 4)), RNG.integers(0, 2, (9, 4))
P = RNG.random((30, 16))
TOKENS = np.random.default_rng(1).integers(3, 5, (2, 30, 6))
PASSES = [1 + i % 6 for i in range(30)]
FIXED = np.where(np.arange(30) % 7 == 0, -1, np.where(np.arange(30) % 5 == 0, (IDS + 1) % 4, IDS))
MIXED = np.random.default_rng(2).dirichlet(np.ones(30), (2, 5)).transpose(0, 2, 1)
SIZES, COVERED = RNG.integers(1, 17, 30), RNG.integers(0, 2, 30).astype(bool)

# module, predictions, references, options, the pure function on the same data
CASES = [
    ("calibration", PROBS, IDS, {"n_bins": 7}, lambda: fn.calibration_scores(PROBS, IDS, 7)),
    ("calibration", PROBS[:, 0], IDS % 2, {}, lambda: fn.calibration_scores(PROBS[:, 0], IDS % 2)),
    (
        "multilabel_map",
        SCORES,
        HOT,
        {"train_counts": [1, 20, 100, 7]},
        lambda: fn.multilabel_map(SCORES, HOT, train_counts=[1, 20, 100, 7]),
    ),
    ("multilabel_f1", SCORES, HOT, {"top_k": 2}, lambda: fn.multilabel_f1(SCORES, HOT, top_k=2)),
    (
        "multilabel_f1",
        SCORES,
        HOT,
        {"rank_cutoffs": [1, 3]},
        lambda: (
            fn.multilabel_f1(SCORES, HOT) | fn.precision_at_k(SCORES, HOT, [1, 3]) | fn.ndcg_at_k(SCORES, HOT, [1, 3])
        ),
    ),
    (
        "label_set_retrieval",
        SCORES,
        HOT,
        {"gallery_embeddings": GALLERY, "gallery_labels": GALLERY_HOT, "metric": "cosine"},
        lambda: fn.label_set_retrieval(SCORES, GALLERY, HOT, GALLERY_HOT, metric="cosine"),
    ),
    (
        "jacobi_efficiency",
        TOKENS[0],
        TOKENS[1],
        {"forward_passes": PASSES},
        lambda: fn.jacobi_efficiency(TOKENS[0], TOKENS[1], PASSES),
    ),
    ("parc", SCORES, IDS, {"n_dims": 3}, lambda: {"parc": task_similarity(SCORES, IDS, n_dims=3), "n": 30}),
    ("parc", SCORES, MULTI, {}, lambda: {"parc": task_similarity(SCORES, MULTI), "n": 30}),
    ("label_issue_detection", P[:, 0], HOT[:, 0], {}, lambda: fn.label_issue_detection(P[:, 0], HOT[:, 0])),
    (
        "label_issue_detection",
        P[:, 0],
        HOT[:, 0],
        {"threshold": 0.4},
        lambda: fn.label_issue_detection(P[:, 0], HOT[:, 0], 0.4),
    ),
    ("label_issue_detection", HOT[:, 1], HOT[:, 0], {}, lambda: fn.label_issue_detection(HOT[:, 1], HOT[:, 0])),
    (
        "corrected_benchmark",
        SCORES,
        IDS,
        {"corrected": FIXED.tolist()},
        lambda: fn.corrected_benchmark(SCORES, IDS, FIXED),
    ),
    (
        "corrected_benchmark",
        HOT[:, 0],
        IDS,
        {"corrected": FIXED.tolist()},
        lambda: fn.corrected_benchmark(HOT[:, 0], IDS, FIXED),
    ),
    ("matched_accuracy", SCORES, IDS, {}, lambda: fn.matched_accuracy(SCORES, IDS)),
    ("matched_accuracy", FIXED % 4, IDS, {"num_classes": 5}, lambda: fn.matched_accuracy(FIXED % 4, IDS, 5)),
    ("mixture_l1", MIXED[0], MIXED[1], {}, lambda: fn.mixture_l1(*MIXED)),
    (
        "bag_proportion_error",
        P[:, 0],
        HOT[:, 0].astype(float),
        {"bag_ids": FIXED.tolist()},
        lambda: fn.bag_proportion_error(P[:, 0], HOT[:, 0], FIXED),
    ),
    (
        "bag_proportion_error",
        SCORES,
        np.eye(4)[IDS],
        {"bag_ids": (FIXED % 3).tolist()},
        lambda: fn.bag_proportion_error(SCORES, np.eye(4)[IDS], FIXED % 3),
    ),
    ("real_accuracy", SCORES, HOT, {}, lambda: fn.real_accuracy(SCORES, HOT)),
    ("real_accuracy", IDS, HOT, {}, lambda: fn.real_accuracy(IDS, HOT)),
    ("conformal_multilabel", P, HOT, {"epsilons": [0.1, 0.3]}, lambda: fn.conformal_pvalues(P, HOT, [0.1, 0.3])),
    (
        "conformal_multilabel",
        SIZES,
        COVERED,
        {"epsilons": 0.1, "num_labels": 4},
        lambda: fn.conformal_sets(SIZES.tolist(), COVERED, 0.1, 4),
    ),
]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path))


@pytest.mark.parametrize(("name", "predictions", "references", "options", "function"), CASES)
def test_class_folder_batches_and_input_types_agree(name, predictions, references, options, function):
    want = pytest.approx(function(), nan_ok=True)
    by_class = getattr(metrics, metrics.MODULES[name])(keep_in_memory=True)
    by_folder = evaluate.load(metrics.path_of(name), keep_in_memory=True)
    assert isinstance(by_class, evaluate.Metric) and by_folder.name == by_class.name == name
    assert by_class.compute(predictions=predictions, references=references, **options) == want
    assert by_folder.compute(predictions=predictions.tolist(), references=references.tolist(), **options) == want
    tensors = torch.tensor(predictions), torch.tensor(references)
    assert by_class.compute(predictions=tensors[0], references=tensors[1], **options) == want
    for start in range(0, 30, 8):
        part = slice(start, start + 8)
        by_folder.add_batch(predictions=predictions[part], references=references[part])
    assert by_folder.compute(**options) == want
    for one, other in zip(predictions, references, strict=True):
        by_class.add(prediction=one, reference=other)
    assert by_class.compute(**options) == want


def test_bins_are_plain_lists():
    scores = metrics.Calibration().compute(predictions=PROBS, references=IDS, n_bins=3, per_bin=True)
    assert sum(scores["per_bin"]["count"]) == 30 and scores["per_bin"]["edges"] == [0, 1 / 3, 2 / 3, 1]
    assert scores["classwise_ece"] == pytest.approx(np.mean(scores["classwise_ece_per_class"]))


def test_unknown_cells_ids_and_ragged_rows_pass_through_arrow():
    unknown = HOT.astype(float)
    unknown[1, 1], unknown[2, 2] = -1, np.nan
    module = metrics.MultilabelMap()
    assert module.compute(predictions=SCORES, references=unknown) == fn.multilabel_map(SCORES, unknown)
    ids = [np.flatnonzero(row).tolist() for row in HOT]
    by_ids = module.compute(predictions=SCORES, references=ids, num_classes=4, per_class=True)
    assert by_ids == fn.multilabel_map(SCORES, HOT, per_class=True)
    with pytest.raises(ValueError, match="Row 1 has 1 values, row 0 has 2"):
        module.compute(predictions=[[0.1, 0.2], [0.3]], references=[[0, 1], [1, 0]])
    with pytest.raises(ValueError, match="got 0.5 at row 0, class 1"):
        module.compute(predictions=[[0.1, 0.2]], references=[[0, 0.5]])


def test_few_shot_episodes_by_id():
    episode = np.repeat([3, 1, 2], 10)
    got = metrics.MultilabelMap().compute(predictions=SCORES, references=HOT, episode_ids=episode, label_subset=[0, 2])
    parts = [(SCORES[episode == e], HOT[episode == e]) for e in (1, 2, 3)]
    want = fn.episode_map(parts, label_subset=[0, 2])
    assert {key: got[key] for key in want} == want
    with pytest.raises(ValueError, match="episode_ids"):
        metrics.MultilabelMap().compute(predictions=SCORES, references=HOT, episode_ids=[1, 2])


def test_huge_sizes_pass_through_arrow_and_one_level_is_asked_for():
    module = metrics.ConformalMultilabel()
    got = module.compute(predictions=[2**90, 5], references=[True, False], epsilons=[0.1], num_labels=90)
    assert got["size_q90"] == 2**90 and got["share_everything"] == 0.5
    with pytest.raises(ValueError, match="one level"):
        module.compute(predictions=[4, 5], references=[True, False])
    with pytest.raises(ValueError, match="got '2.5' at row 0"):
        module.compute(predictions=[2.5, 5], references=[True, False], epsilons=0.1)


def test_unknown_module_is_named():
    with pytest.raises(KeyError, match="accuracy.*calibration, conformal_multilabel"):
        metrics.path_of("accuracy")
    with pytest.raises(AttributeError, match="Accuracy"):
        metrics.Accuracy  # noqa: B018


@pytest.mark.parametrize("name", metrics.MODULES)
def test_folder_is_ready_for_a_space(name):
    folder = Path(metrics.path_of(name))
    assert {"app.py", "README.md", "requirements.txt", f"{name}.py"} <= {path.name for path in folder.iterdir()}
    text = (folder / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["sdk"] == "gradio" and front["app_file"] == "app.py" and {"evaluate", "metric"} <= set(front["tags"])
    app = (folder / "app.py").read_text(encoding="utf-8")
    assert f"from hf_labels.metrics.{name}.{name} import {metrics.MODULES[name]}" in app
    module = getattr(metrics, metrics.MODULES[name])()
    assert module.description.strip() and "Returns:" in module.inputs_description


@pytest.mark.parametrize("name", metrics.MODULES)
def test_readme_names_every_number_and_its_examples_run(name):
    text = (Path(metrics.path_of(name)) / "README.md").read_text(encoding="utf-8")
    keys = {key for case in CASES if case[0] == name for key in case[4]()}
    for key in keys:
        pattern = re.sub(r"^eps_[\d.]+_", "", key)
        pattern = re.sub(r"_at_\d+$", "_at_<k>", pattern)
        assert f"`{pattern}`" in text, f"{name}/README.md does not explain {key}."
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    shared: dict = {}  # later blocks use the names of earlier ones
    for block in blocks:
        exec(compile(block, f"{name}/README.md", "exec"), shared)


def test_page_reads_json_and_names_what_is_wrong():
    module = metrics.MultilabelF1()
    got = compute_from_text(module, "[[0.9, 0.1]]", "[[1, 0]]", '{"threshold": 0.5}')
    assert got["subset_accuracy"] == 1
    with pytest.raises(ValueError, match="`references` is not JSON"):
        compute_from_text(module, "[[0.9, 0.1]]", "[[1, 0]")
    with pytest.raises(ValueError, match="`options` must be a JSON object"):
        compute_from_text(module, "[[0.9, 0.1]]", "[[1, 0]]", "[]")
    with pytest.raises(ValueError, match="`predictions` must be a JSON list"):
        compute_from_text(module, "", "[[1, 0]]")


def test_compute_metrics_takes_item_0_of_a_tuple_and_flattens_tokens():
    compute = metrics.make_calibration_metrics(n_bins=5)
    logits, hidden = RNG.normal(size=(3, 6, 4)), RNG.normal(size=(3, 8))
    labels = RNG.integers(0, 4, (3, 6))
    labels[:, 4:] = -100
    got = compute(SimpleNamespace(predictions=(logits, hidden), label_ids=(labels,)))
    assert got == fn.calibration_scores(logits.reshape(18, 4), labels.ravel(), 5, from_logits=True)
    assert got["n_ignored"] == 6
    with pytest.raises(ValueError, match="2 label arrays.*label_names"):
        compute(SimpleNamespace(predictions=logits, label_ids=(labels, labels)))
    with pytest.raises(ValueError, match="No labels"):
        compute(SimpleNamespace(predictions=logits, label_ids=None))


def test_multilabel_compute_metrics_has_both_families_and_reads_ignored_cells():
    logits, labels = RNG.normal(size=(20, 4)), RNG.integers(0, 2, (20, 4))
    labels[0] = [1, 1, -100, 0]
    compute = metrics.multilabel_metrics([500, 50, 5, 1], {"odd": [1, 3]}, threshold=0.4, rank_cutoffs=(1,))
    got = compute(SimpleNamespace(predictions=(logits, None), label_ids=labels))
    known = np.where(labels == -100, -1, labels)
    want = fn.multilabel_map(logits, known, [500, 50, 5, 1], {"odd": [1, 3]})
    want |= fn.multilabel_f1(logits, known, 0.4, from_logits=True)
    want |= fn.precision_at_k(logits, known, 1) | fn.ndcg_at_k(logits, known, 1)
    assert got == want
    probs = SimpleNamespace(predictions=1 / (1 + np.exp(-logits)), label_ids=known)
    assert (
        metrics.multilabel_metrics(from_logits=False)(probs)["OF1"]
        == fn.multilabel_f1(logits, known, from_logits=True)["OF1"]
    )


@pytest.mark.parametrize("by_batch", [False, True])
def test_trainer_reports_calibration(tmp_path, by_batch):
    from datasets import Dataset
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=20,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            num_labels=3,
        )
    )
    rows = Dataset.from_dict(
        {"input_ids": RNG.integers(0, 20, (13, 5)).tolist(), "labels": RNG.integers(0, 3, 13).tolist()}
    )
    trainer = Trainer(
        model,
        TrainingArguments(str(tmp_path), per_device_eval_batch_size=4, use_cpu=True, batch_eval_metrics=by_batch),
        eval_dataset=rows,
        compute_metrics=metrics.make_calibration_metrics(n_bins=5),
    )
    got = trainer.evaluate()
    with torch.no_grad():
        logits = model(torch.tensor(rows["input_ids"][:])).logits
    want = fn.calibration_scores(logits, rows["labels"][:], 5, from_logits=True)
    assert {key: got[f"eval_{key}"] for key in want} == pytest.approx(want, abs=1e-6)
    assert trainer.evaluate()["eval_ece"] == got["eval_ece"]  # no batch of the first call is left


def test_functions_load_neither_torch_nor_evaluate():
    code = (
        "import sys, hf_labels.metrics as m, hf_labels.metrics.functional as f\n"
        "m.calibration_scores([[0.5, 0.5]], [0]); f.multilabel_f1([[0.5]], [[1]]); m.path_of('calibration')\n"
        "print([name for name in ('torch', 'transformers', 'evaluate', 'datasets', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
