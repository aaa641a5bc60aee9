"""`hf-labels train zero_shot_tc`: seen labels by name, both groups scored, a pipeline from what is left behind."""

import json

import tiny
from transformers import pipeline


def test_from_a_table_to_a_pipeline(cli, tmp_path, backbone):
    tiny.write_csv(tmp_path / "train.csv", tiny.rows(48))
    tiny.write_jsonl(tmp_path / "dev.jsonl", tiny.rows(24, seed=1))
    words = ["train", "zero_shot_tc", "--dataset", tmp_path / "train.csv", "--eval_dataset", tmp_path / "dev.jsonl"]
    words += ["--model", backbone, "--output_dir", tmp_path / "out", "--seen_labels", "money;music"]
    words += ["--decision", "two_phase", "--learning_rate", "5e-3", "--num_train_epochs", "5", "--use_cpu"]
    code, out, err = cli(*words, "--report_to", "none", "--disable_tqdm", "true")
    assert code == 0, err
    scores = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert (scores["eval_n_seen"], scores["eval_n_unseen"]) == (16, 8)
    import hf_labels.models.zero_shot_tc  # noqa: F401  # registers the task

    pipe = pipeline("hypothesis-zero-shot", model=str(tmp_path / "out"))
    found = [row["label"] for row in pipe([row["text"] for row in tiny.rows(24, seed=1)])]
    right = [label == row["label"] for label, row in zip(found, tiny.rows(24, seed=1), strict=True)]
    assert sum(right) / 24 == scores["eval_accuracy"] and pipe.plan().rule.decision == "two_phase"
    code, out, err = cli(*words[:-1], "--overwrite_output_dir", "true", "--seen_labels", "money;chess")
    assert code == 1 and "'chess', which is not a label" in err
