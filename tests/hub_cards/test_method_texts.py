import ast
import json
from pathlib import Path

import pytest
from card_reading import NASTY, cells, skeleton

from hf_labels import catalog
from hf_labels.hub_cards import method_slugs, method_text, render_method_page
from hf_labels.hub_cards.blocks import code_blocks, sections
from hf_labels.hub_cards.hub_names import PIPELINE_TAGS
from hf_labels.hub_cards.method_page import results_section, update_texts
from hf_labels.hub_cards.texts import SECTIONS, parse_method_text

ROOT = Path(__file__).resolve().parents[2]
GOOD = "---\nslug: s\ntitle: T\npaper: arXiv:1\npaper_title: P\npipeline_tag: other\n"
GOOD += "library_name: l\ncitation: c\n---\n\n"
GOOD += "".join(f"## {name}\n\ntext\n\n" for name in SECTIONS)


def results(slug="crosstune", text=""):
    rows = [
        {"name": name, "setting": f"K={k}{text}", "metric": metric, "mean": 0.5 + k / 100, "std": 0.1, "stderr": 0.03}
        | {"seeds": 10, "values": [0.5] * 10}
        for name in (f"CrossTune{text}", "logistic probe")
        for k in (2, 4)
        for metric in ("accuracy", f"ece{text}")
    ]
    pair = {
        "setting": "K=2",
        "a": f"CrossTune{text}",
        "b": "logistic probe",
        "mean_difference": 0.0541,
        "stderr": 0.017,
    }
    return {
        "method": slug,
        "dataset": f"drug reviews{text}",
        "rows": rows,
        "paired": [pair | {"wins": 9, "n": 10}],
        "controls": {f"zero-shot{text}": {"accuracy": 0.6}},
        "notes": [f"A note{text}."],
        "command": f"python examples/crosstune.py{text}",
        "versions": {"torch": "2.13.0"},
        "hardware": "2 cores",
        "wall_time_s": 44.2,
        "date": "2026-01-01",
    }


@pytest.mark.parametrize("slug", method_slugs())
def test_every_text_is_whole_and_its_code_compiles(slug):
    method = method_text(slug)
    assert method.slug == slug and method.pipeline_tag in PIPELINE_TAGS
    assert method.url is None or method.url.startswith("https://")
    assert method.citation.startswith("@") and method.citation.count("{") == method.citation.count("}")
    compile(method.usage_code, slug, "exec")
    loads = ("from_pretrained", "pipeline", "load_report", "load_from_disk")  # label tools make no model
    assert any(name in method.usage_code for name in loads)
    assert not {"TODO", "TBD"} & set(" ".join(method.sections.values()).split())


@pytest.mark.parametrize("slug", method_slugs())
def test_texts_agree_with_the_catalog(slug):
    row = next((method for method in catalog.METHODS if method.slug == slug), None)
    if row is None:  # a shared part: it must be one of the public names that belong to no method
        assert any(slug in name for name in catalog.SHARED)
    else:
        assert (method_text(slug).title, method_text(slug).paper) == (row.title, row.paper)


@pytest.mark.parametrize("model_id", ["me/model", *NASTY], ids=range(len(NASTY) + 1))
def test_loading_code_gives_the_id_as_it_is(model_id):
    for slug in method_slugs():
        tree = ast.parse(method_text(slug).loading_code(model_id))
        literals = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        assert model_id in literals


def test_loading_code_fits_the_task():
    code = method_text("soft_labels").loading_code("me/m", "image-classification")
    assert "from PIL import Image" in code and 'pipeline("image-classification", model="me/m")' in code
    assert "Image.new" in code
    assert "PIL" not in method_text("soft_labels").loading_code("me/m")
    assert "import numpy" in method_text("soft_labels").loading_code("me/m", "audio-classification")


def test_an_unknown_slug_names_the_known_ones():
    with pytest.raises(ValueError, match="'nope'.*crosstune"):
        method_text("nope")


@pytest.mark.parametrize("name", SECTIONS)
def test_a_missing_or_empty_section_is_named(name):
    for text in (GOOD.replace(f"## {name}\n\ntext", ""), GOOD.replace(f"## {name}\n\ntext", f"## {name}\n\n")):
        with pytest.raises(ValueError, match=f"methods/s.md.*## {name}"):
            parse_method_text(text, "methods/s.md")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("paper: arXiv:1\n", "", "paper"),
        ("citation: c", "citation: ''", "citation"),
        ("---\nslug", "slug", "no YAML front matter"),
        ("title: T", "title: [", "not valid YAML"),
        ("slug: s\ntitle: T", "- a", "not valid YAML|mapping"),
        ("## Usage", "## Sources", "twice"),
    ],
)
def test_a_broken_text_is_explained(old, new, message):
    assert parse_method_text(GOOD, "x").title == "T"
    with pytest.raises(ValueError, match=message):
        parse_method_text(GOOD.replace(old, new, 1), "x")


def test_headings_in_code_are_not_sections():
    body = "## A\n\n```python\n## not a section\nx = 1\n```\n\n````\n```python\nno\n```\n````\n"
    body += "\n## B\n\n~~~python\ny = 2\n~~~\n"
    assert list(sections(body)) == ["", "A", "B"]
    assert code_blocks(body) == ["## not a section\nx = 1", "y = 2"]


def test_method_page_shows_the_measured_numbers(tmp_path):
    path = tmp_path / "crosstune.json"
    path.write_text(json.dumps(results()))
    page = render_method_page("crosstune", path)
    assert page == render_method_page("crosstune", results())
    read = "---\na: 1\n---\n" + page
    assert cells(read, "System") == [
        ["CrossTune", "0.52 ± 0.03 (10)", "0.54 ± 0.03 (10)"],
        ["logistic probe", "0.52 ± 0.03 (10)", "0.54 ± 0.03 (10)"],
    ]
    assert page.count("| System | K=2 | K=4 |") == 2
    assert "**accuracy** (higher is better)" in page and "**ece** (lower is better)" in page
    assert cells(read, "Setting") == [["K=2", "CrossTune minus logistic probe", "-", "+0.0541", "0.017", "9 of 10"]]
    measured = dict(cells(read, "Measured with"))
    assert measured["command"] == "python examples/crosstune.py" and measured["wall time s"] == "44.2"
    assert measured["control: zero-shot"] == '{"accuracy": 0.6}'
    assert "- A note." in page
    for name in (*SECTIONS, "Results"):
        assert f"\n## {name}\n" in page
    assert method_text("crosstune").citation in page


@pytest.mark.parametrize("text", [item for item in NASTY if len(item) < 100], ids=repr)
def test_hostile_results_add_nothing_to_the_page(text):
    plain = skeleton("---\na: 1\n---\n" + render_method_page("crosstune", results(text=" word")))
    assert skeleton("---\na: 1\n---\n" + render_method_page("crosstune", results(text=f" {text}"))) == plain


def test_page_without_results_says_so():
    assert "Nothing was measured yet." in render_method_page("soft_labels")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"method": "other"}, "method"),
        ({"rows": []}, "nothing was measured"),
        ({"rows": [{"name": "a"}]}, r"rows\[0\]. lacks setting, metric, mean"),
        ({"paired": [{"a": "x"}]}, r"paired\[0\]. lacks setting"),
    ],
)
def test_a_bad_result_file_is_explained(change, message):
    with pytest.raises(ValueError, match=message):
        render_method_page("crosstune", results() | change)


def test_a_result_file_that_is_not_json_is_named(tmp_path):
    path = tmp_path / "crosstune.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="`crosstune.json` is not JSON"):
        render_method_page("crosstune", path)


MEASURED = [path for path in sorted((ROOT / "examples" / "results").glob("*.json")) if path.stem in method_slugs()]


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.stem)
def test_page_holds_the_results_that_were_measured(path):
    """Repair: `make readme`."""
    assert method_text(path.stem).sections["Results"] == results_section(path.stem, path)
    page = render_method_page(path.stem)
    for row in json.loads(path.read_text())["rows"]:
        assert row["name"].split()[0] in page


def test_results_are_written_once_and_before_the_sources(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(results() | {"method": "x"}))
    (tmp_path / "other.md").write_text(GOOD)
    (tmp_path / "x.md").write_text(GOOD)
    assert update_texts(tmp_path, tmp_path) == ["x"]
    once = (tmp_path / "x.md").read_text()
    parsed = parse_method_text(once, "x")
    assert parsed.sections["Results"] == results_section("x", tmp_path / "x.json")
    assert list(parsed.sections)[-2:] == ["Results", "Sources"]
    assert {k: v for k, v in parsed.sections.items() if k != "Results"} == parse_method_text(GOOD, "x").sections
    update_texts(tmp_path, tmp_path)
    assert (tmp_path / "x.md").read_text() == once and (tmp_path / "other.md").read_text() == GOOD
