"""The code on the page of `tail_vrd` runs as it stands, with a scripted teacher and a small local student."""

import json
import re

from hf_labels.hub_cards import method_text, validate_card


def test_usage_and_loading_run_as_written(tmp_path, monkeypatch, capsys):
    from hf_labels.data.tail_vrd_receipts import draw_receipts
    from hf_labels.labels.tail_vrd import DocumentSchema
    from hf_labels.lm import ScriptedLM
    from hf_labels.models.tail_vrd_small import small_vlm

    known = draw_receipts(40, size=(192, 224))
    truth = dict(zip(known["text"][:], known["truth"][:], strict=True))

    def teacher(model, **options):
        def answer(request):
            return truth[request.text.split("<text>\n")[1].split("\n</text>")[0]]

        return ScriptedLM([(lambda request: True, answer)], model_id=model, progress=False, **options)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hf_labels.lm.InferenceClientLM", teacher)
    schema = DocumentSchema.from_dict({"a": {}})
    texts = [schema.instruction(), *known["truth"][:]]
    model, processor = small_vlm(texts, image_size=16, hidden_size=16, layers=1, heads=2)
    model.save_pretrained("small")
    processor.save_pretrained("small")
    method = method_text("tail_vrd")
    code, places = re.subn(r'(?m)^student = "[^"]+".*$', 'student = "small"', method.usage_code)
    assert places == 1
    code, places = re.subn("num_train_epochs=1", "max_steps=2, max_target_tokens=40", code)
    assert places == 1
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    shown = capsys.readouterr().out
    assert "'vendor': {'ok': 40}" in shown and "'calls': 80" in shown
    rows = run["labels"]
    for values, text in zip(rows.values, rows.dataset["text"][:], strict=True):
        assert values.items() <= json.loads(truth[text]).items()
    assert set(run["model"].extract(known[0]["image"])) == {"vendor", "date", "total", "items"}
    card = (tmp_path / "out" / "final" / "README.md").read_text(encoding="utf-8")
    assert validate_card(card, tmp_path / "out" / "final", slug="tail_vrd") == [] and "break-even" in card
    exec(compile(method.loading_code("out/final"), "loading", "exec"), {})
    assert "chat ('vendor', 'date', 'total', 'items')" in capsys.readouterr().out
