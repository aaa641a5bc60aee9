"""The code on the page of `latent_label_shift` runs as it stands."""

import numpy as np
import torch

from hf_labels.hub_cards import method_text
from hf_labels.metrics.functional import matched_accuracy, mixture_l1


def again_equals(run):
    pixels = torch.tensor(run["data"]["pixel_values"][:5])
    with torch.no_grad():
        return torch.equal(run["again"](pixels).logits, run["classifier"](pixels).logits)


def test_usage_and_loading_run_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    method = method_text("latent_label_shift")
    run: dict = {}
    exec(compile(method.usage_code, "usage", "exec"), run)
    assert matched_accuracy(run["labelled"]["labels"][:], run["hidden"])["matched_accuracy"] > 0.9
    assert mixture_l1(run["lls"].class_prior, run["shares"])["mixture_l1_per_domain"] < 0.3
    assert again_equals(run)
    assert (tmp_path / "out" / "mixtures.png").stat().st_size > 3000
    capsys.readouterr()
    loaded: dict = {}
    exec(compile(method.loading_code("out/classes"), "loading", "exec"), loaded)
    np.testing.assert_array_equal(loaded["lls"].class_prior, run["trainer"].lls.class_prior)
    assert capsys.readouterr().out.startswith("[[")
