import re

import numpy as np
import pytest
from card_reading import AUTOLINK, NASTY, body_of, cells, front_matter, skeleton, text_nodes
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError

from hf_labels import catalog
from hf_labels.hub_cards import (
    CardPlot,
    LabelColumn,
    ResultRow,
    method_slugs,
    render_card,
    render_dataset_card,
    validate_card,
)
from hf_labels.hub_cards.escape import clean
from hf_labels.hub_cards.parts import environment, is_private

LOUD = "`|<>[](){}#*_-+=~!\\&$%@:/. \n\r\t1a\u2028\u202e\x85\x00'\"^é\u200d\ud800"
UNFINISHED = re.compile(r"\b(TODO|TBD|FIXME)\b|more information needed|lorem ipsum|none dataset", re.IGNORECASE)


def is_shown(text: str) -> bool:
    """Not a name that cards leave out (a secret, a place on a machine) nor a word that the check takes for a gap."""
    return not is_private(text) and not UNFINISHED.search(text)


hostile = st.one_of(st.text(st.characters(), min_size=1, max_size=40), st.text(LOUD, min_size=1, max_size=30)).filter(
    is_shown
)


def full_card(text: str, slug: str = "crosstune") -> ModelCard:
    """A card with `text` in every place that takes text."""
    name = text if text.strip() else "x"
    return render_card(
        slug,
        model_id=name,
        base_model=f"{text} ",
        datasets=[f"{text} ", "glue"],
        training={f"{text} ": text, "nested": {text: [text]}},
        results=[ResultRow(name, text, name, 0.5, name, 0.25, seeds=[1, 2, 3], stderr=0.1)],
        label_assumptions=[f"a {text}", f"{text} a"],
        labels={f"{text} ": f"{text} ", "other": f"b {text}"},
        plots=[("plain.png", f"{text} ")],
        extra={f"{text} ": text},
        tags=[text],
    )


def full_dataset_card(text: str):
    name = text if text.strip() else "x"
    return render_dataset_card(
        name,
        tool=name,
        columns=[LabelColumn(name, "hard", f"x {text}", [name, text]), LabelColumn("text", "", f"{text} x")],
        label_assumptions=[f"{text} a"],
        limits=[f"{text} a"],
        labelled_by=f"{text} ",
        source_datasets=[f"{text} "],
        num_rows={name: 3},
        settings={f"{text} ": text},
        report={f"{text} ": {text: 3}},
        tags=[text],
    )


@pytest.fixture(scope="module")
def plain_skeletons():
    return skeleton(str(full_card("a word"))), skeleton(str(full_dataset_card("a word")))


def check_hostile(text: str, plain_skeletons) -> None:
    name = text if text.strip() else "x"
    for card, plain in zip((full_card(text), full_dataset_card(text)), plain_skeletons, strict=True):
        page = str(card)
        assert skeleton(page) == plain
        assert not [node for node in text_nodes(page) if AUTOLINK.search(node)]
        data = front_matter(page)
        assert text in data["tags"]
        assert validate_card(page, kind="model" if isinstance(card, ModelCard) else "dataset") == []
        page.encode("utf-8")
    data = front_matter(str(full_card(text)))
    result = data["model-index"][0]["results"][0]
    assert result["dataset"] | {"split": None} == {"name": name, "type": name, "split": None}
    assert result["dataset"].get("split", "") == text
    assert data["datasets"] == ["glue"] and data["license"] == "apache-2.0" and data["library_name"] == "hf_labels"
    again = ModelCard(str(full_card(text))).data
    assert again.eval_results[0].dataset_name == name and again.eval_results[0].metric_value == 0.5


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_nasty_text_adds_nothing_to_the_page(text, plain_skeletons):
    check_hostile(text, plain_skeletons)


@settings(deadline=None, max_examples=80)
@given(text=hostile)
def test_random_text_adds_nothing_to_the_page(text, plain_skeletons):
    check_hostile(text, plain_skeletons)


def test_jinja_in_data_is_shown_and_never_evaluated():
    page = str(full_card("{{ 7*191 }}{% set x = 1 %}"))
    assert "1337" not in page
    assert cells(page, "Label")[0][0] == "{{ 7*191 }}{% set x = 1 %}"


def test_labels_read_as_they_were_given():
    page = str(render_card("crosstune", model_id="me/m", labels=dict.fromkeys(NASTY, "meaning")))
    seen = [row[0] for row in cells(page, "Label")]
    assert seen == [clean(name, 200) or "(empty)" for name in NASTY][:50]
    left = len(set(NASTY)) - 50
    assert f"{left} more labels" in page


@pytest.mark.parametrize("template", ["base.md.j2", "dataset.md.j2", "method_page.md.j2", "results.md.j2"])
def test_a_missing_value_is_an_error(template):
    with pytest.raises(UndefinedError):
        environment().get_template(template).render(title="x")


@pytest.mark.parametrize("slug", [*method_slugs(), ""])
def test_every_method_has_a_valid_card(slug):
    page = str(
        render_card(slug, model_id="me/model", base_model="org/base", datasets="imdb", language="en", training={})
    )
    assert validate_card(page, slug=slug or None) == []
    data = front_matter(page)
    assert data["base_model"] == "org/base" and data["datasets"] == ["imdb"] and data["language"] == ["en"]
    assert "model-index" not in data and "Nothing was measured in this run." in page
    assert "All arguments had their default values." in page
    assert '"me/model"' in page


@pytest.mark.parametrize("method", catalog.ready(), ids=lambda method: method.slug)
def test_ready_methods_name_their_paper_and_label_kinds(method):
    page = str(render_card(method.slug, model_id="me/model"))
    assert method.paper.removeprefix("arXiv:") in page
    assert all(f"`{kind}`" in page for kind in method.consumes)


def test_results_show_seeds_error_direction_and_baseline():
    rows = [
        ResultRow(
            "imdb",
            "test",
            "eval_accuracy",
            np.float32(0.75),
            "logistic regression",
            0.7,
            seeds=[0, 1, 2],
            stderr=0.011,
        ),
        ResultRow("imdb", "test", "eval_loss", 0.61234),
        ResultRow("imdb", "test", "test_ece", 0.05, seeds=1),
    ]
    page = str(render_card("crosstune", model_id="me/m", results=rows))
    assert cells(page, "Data set") == [
        ["imdb", "test", "accuracy (higher is better)", "0.75", "0.011", "3 (0, 1, 2)", "logistic regression", "0.7"],
        ["imdb", "test", "loss (lower is better)", "0.6123", "-", "not stated", "-", "-"],
        ["imdb", "test", "ece (lower is better)", "0.05", "-", "1", "-", "-"],
    ]
    index = front_matter(page)["model-index"][0]
    assert index["name"] == "m"
    metrics = index["results"][0]["metrics"]
    assert [item["type"] for item in metrics] == ["accuracy", "loss", "ece"]
    assert metrics[0] == {
        "type": "accuracy",
        "value": 0.75,
        "name": "accuracy, mean of 3 seeds (standard error 0.011)",
    }
    assert metrics[1]["value"] == 0.61234
    assert "its baseline on the same data" in page


def test_numpy_values_are_plain_in_the_metadata():
    row = ResultRow(
        np.str_("d: x"), np.str_("test"), "f1", np.float64(0.5), seeds=np.arange(3), stderr=np.float32(0.25)
    )
    card = render_card("crosstune", model_id=np.str_("me/m"), results=[row], tags=[np.str_("a: b")])
    data = front_matter(str(card))
    assert data["tags"][-1] == "a: b" and data["model-index"][0]["name"] == "m"
    assert data["model-index"][0]["results"][0]["dataset"] == {"name": "d: x", "type": "d: x", "split": "test"}
    assert cells(str(card), "Data set")[0][5] == "3 (0, 1, 2)"
    card.data["note"] = np.str_("later: too")
    assert front_matter(str(card))["note"] == "later: too"


def test_a_number_with_several_baselines_is_one_entry_of_the_index():
    rows = [ResultRow("d", "test", "accuracy", 0.5, name, 0.4) for name in ("probe", "zero-shot")]
    card = render_card("crosstune", model_id="me/m", results=[*rows, ResultRow("d", "test", "ece", 0.5)])
    found = [(result.metric_type, result.metric_value) for result in card.data.eval_results]
    assert found == [("accuracy", 0.5), ("ece", 0.5)]
    assert [row[-2:] for row in cells(str(card), "Data set")][:2] == [["probe", "0.4"], ["zero-shot", "0.4"]]


def test_a_number_that_is_not_finite_is_shown_and_kept_from_the_index():
    rows = [ResultRow("d", "test", "loss", float("nan")), ResultRow("d", "test", "nll", float("inf"))]
    page = str(render_card("crosstune", model_id="me/m", results=rows))
    assert [row[3] for row in cells(page, "Data set")] == ["not a number", "infinite"]
    assert "model-index" not in front_matter(page)


@pytest.mark.parametrize(
    "changes, error, named",
    [
        ({"value": "0.5"}, TypeError, "value"),
        ({"value": True}, TypeError, "value"),
        ({"baseline": "b"}, ValueError, "baseline_value"),
        ({"baseline_value": 0.1}, ValueError, "baseline"),
        ({"stderr": -0.1}, ValueError, "stderr"),
        ({"stderr": float("nan")}, ValueError, "stderr"),
        ({"seeds": 0}, ValueError, "seeds"),
        ({"seeds": []}, ValueError, "seeds"),
        ({"dataset": " "}, ValueError, "dataset"),
        ({"metric": ""}, ValueError, "metric"),
    ],
)
def test_an_impossible_result_is_refused(changes, error, named):
    with pytest.raises(error, match=named):
        ResultRow(**({"dataset": "d", "split": "test", "metric": "accuracy", "value": 0.5} | changes))


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"slug": "nothing"}, ValueError, "no card text for 'nothing'.*crosstune"),
        ({"model_id": "  "}, ValueError, "model_id"),
        ({"license": "apache"}, ValueError, "apache-2.0"),
        ({"language": "english: yes"}, ValueError, "language"),
        ({"pipeline_tag": "text-classifier"}, ValueError, "Did you mean text-classification"),
        ({"results": [{"metric": "accuracy"}]}, TypeError, "ResultRow"),
        ({"plots": ["a/p.png", "b/p.png"]}, ValueError, "p.png"),
        ({"plots": ["folder/.."]}, ValueError, "picture"),
    ],
)
def test_bad_arguments_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        render_card(**({"slug": "crosstune", "model_id": "me/m"} | changes))


def test_the_hub_gets_only_names_that_it_accepts(tmp_path, monkeypatch):
    """The Hub refuses a push whose `base_model` or `datasets` is a path; the text still tells them."""
    (tmp_path / "local").mkdir()
    monkeypatch.chdir(tmp_path)
    for base in (str(tmp_path / "local"), "local", "../up", "a/b/c", "https://x.example/m", "bad id", "~me", "ünï"):
        page = str(
            render_card("crosstune", model_id="me/m", base_model=base, datasets=["data/train.csv", "my data", "imdb"])
        )
        data = front_matter(page)
        assert "base_model" not in data and data["datasets"] == (["data/train.csv", "imdb"]), base
        assert str(tmp_path) not in page and "`my data`" in page
    assert front_matter(str(render_card("crosstune", model_id="me/m", license=None)))["license"] == "unknown"


def test_secrets_and_local_paths_stay_off_the_page():
    training = {
        "output_dir": "/home/me/out",
        "hub_token": "hf_abc",
        "hub_model_id": "me/x",
        "push_to_hub": True,
        "api_key": "sk",
        "max_new_tokens": 64,
        "lm": {"password": "pw", "temperature": 0.5},
        "learning_rate": 0.001,
        "betas": (0.9, 0.95),
    }
    page = str(render_card("crosstune", model_id="me/m", training=training))
    assert cells(page, "Argument") == [
        ["max_new_tokens", "64"],
        ["lm.temperature", "0.5"],
        ["learning_rate", "0.001"],
        ["betas", "[0.9, 0.95]"],
    ]


def test_plots_are_linked_by_file_name_with_their_text():
    plots = [CardPlot("/some/where/reliability diagram.png", "ECE 0.05 <b>"), "plain_name.png", ("x.png", "![a](b)")]
    page = str(render_card("crosstune", model_id="me/m", plots=plots))
    assert "![ECE 0.05 &lt;b&gt;](reliability%20diagram.png)" in page
    assert "![plain name](plain_name.png)" in page
    assert skeleton(page).count(("image", "img")) == 3
    assert "/some/where" not in page


def test_a_label_space_is_read_by_its_names_and_descriptions():
    class Space:
        names = ("b", "a")
        descriptions = {"a": "first letter"}

    page = str(render_card("crosstune", model_id="me/m", labels=Space()))
    assert cells(page, "Label") == [["b", "-"], ["a", "first letter"]]


def test_dataset_card_tells_how_labels_were_made():
    card = render_dataset_card(
        "me/labels",
        tool="hf_labels.lm.label_dataset",
        slug="crosstune",
        labelled_by="org/lm",
        source_datasets=["imdb", "my own files"],
        columns=[LabelColumn("labels", "hard", "answer of the model", ["bad", "good"]), LabelColumn("text")],
        num_rows={"train": 10, "test": 2},
        settings={"temperature": 0.0},
        report={"kept": 9, "reasons": {"empty": 1}},
        label_assumptions="The names say what is meant.",
        limits="No person has looked at them.",
        task_categories="text-classification",
        language=["en", "de"],
        license="mit",
    )
    page = str(card)
    assert validate_card(page, kind="dataset", slug="crosstune") == []
    data = front_matter(page)
    assert data["annotations_creators"] == ["machine-generated"] and data["source_datasets"] == ["imdb"]
    assert cells(page, "Count") == [["kept", "9"], ["reasons.empty", "1"]]
    assert cells(page, "Column")[0][1:] == [
        "hard",
        "answer of the model; one class id per row; -1 where the label is missing; classes: bad, good",
    ]
    assert "2403.12468" in page and "Rows: `train` 10, `test` 2" in body_of(page)


@pytest.mark.parametrize("name", ["columns", "label_assumptions", "limits", "dataset_id"])
def test_dataset_card_needs_its_facts(name):
    given_values = {
        "dataset_id": "me/labels",
        "columns": [LabelColumn("labels", "hard")],
        "label_assumptions": "a",
        "limits": "b",
    }
    with pytest.raises(ValueError, match=name):
        render_dataset_card(tool="t", **(given_values | {name: ""}))


def test_an_unknown_label_kind_is_refused():
    with pytest.raises(ValueError, match="one of hard, value"):
        LabelColumn("labels", "fuzzy")


def test_label_kinds_are_those_of_the_package():
    from hf_labels.hub_cards.dataset_card import KIND_TEXT
    from hf_labels.labels.kinds import KINDS

    assert set(KIND_TEXT) == set(KINDS)
