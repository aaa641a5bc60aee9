"""The code on the page of `llp_bp` runs as it stands."""

from hf_labels.hub_cards import method_text
from hf_labels.trainers.llp_bp import predict_instances


def test_usage_and_loading_run_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    method = method_text("llp_bp")
    run: dict = {}
    exec(compile(method.usage_code, "usage", "exec"), run)
    assert (run["found"].labels == run["hidden"]).mean() > 0.95
    probs, _ = predict_instances(run["again"], run["data"])
    assert ((probs > 0.5) == run["hidden"]).mean() > 0.95
    exec(compile(method.loading_code("out/final"), "loading", "exec"), {})
    assert "tensor" in capsys.readouterr().out
