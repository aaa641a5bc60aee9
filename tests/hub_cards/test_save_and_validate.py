import stat
import subprocess
import sys

import pytest
from card_reading import front_matter
from huggingface_hub import ModelCard

from hf_labels.hub_cards import CardPlot, ResultRow, render_card, save_card, validate_card
from hf_labels.hub_cards.validate import image_links

CARD = str(render_card("crosstune", model_id="me/m", base_model="org/b", results=[ResultRow("d", "test", "f1", 0.5)]))
PICTURE = b"\x89PNG\r\n\x1a\n"


def test_saved_card_is_loaded_by_the_hub_client_with_the_same_data(tmp_path):
    card = render_card(
        "crosstune", model_id="me/m", datasets="imdb", results=[ResultRow("a: b\n---\nc", "test", "accuracy", 0.25)]
    )
    path = save_card(card, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "README.md" and path.read_bytes() == str(card).encode()
    again = ModelCard.load(path)
    assert again.data.to_dict() == card.data.to_dict()
    assert again.data.eval_results[0].dataset_name == "a: b\n---\nc"
    assert again.text == card.text
    assert [item.name for item in path.parent.iterdir()] == ["README.md"]


def test_our_own_card_is_written_anew(tmp_path):
    save_card(CARD, tmp_path)
    (tmp_path / "README.md").chmod(0o640)
    save_card(CARD.replace("# me/m", "# me/other"), tmp_path)
    assert "# me/other" in (tmp_path / "README.md").read_text()
    assert stat.S_IMODE((tmp_path / "README.md").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "own", ["# mine\n", "", "---\ntags: [hf_labels]\n---\n# mine", CARD.replace("<!--", "&lt;!--")]
)
def test_a_card_that_a_person_wrote_stays(tmp_path, own):
    (tmp_path / "README.md").write_text(own)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_card(CARD, tmp_path, plots=[])
    assert (tmp_path / "README.md").read_text() == own
    save_card(CARD, tmp_path, overwrite=True)
    assert (tmp_path / "README.md").read_text() == CARD


def test_a_card_that_quotes_our_mark_is_not_ours(tmp_path):
    card = str(render_card("crosstune", model_id="me/m", labels=["<!-- hf_labels card: x -->"]))
    own = "\n".join(line for line in card.split("\n") if not line.startswith("<!-- hf_labels card"))
    (tmp_path / "README.md").write_text(own)
    with pytest.raises(FileExistsError):
        save_card(CARD, tmp_path)


def test_pictures_come_along_and_must_exist(tmp_path):
    elsewhere = tmp_path / "plots"
    elsewhere.mkdir()
    picture = elsewhere / "reliability diagram.png"
    picture.write_bytes(PICTURE)
    card = render_card("crosstune", model_id="me/m", plots=[CardPlot(picture, "ECE")])
    target = tmp_path / "model"
    with pytest.raises(FileNotFoundError, match="reliability diagram.png"):
        save_card(card, target)
    assert not (target / "README.md").exists()
    save_card(card, target, plots=[CardPlot(picture, "ECE")])
    assert (target / "reliability diagram.png").read_bytes() == PICTURE
    assert validate_card(card, target) == []
    save_card(card, target, plots=[target / "reliability diagram.png"])  # already in place
    assert (target / "reliability diagram.png").read_bytes() == PICTURE
    with pytest.raises(FileNotFoundError, match="draw it"):
        save_card(card, target, plots=["nowhere.png"])
    (tmp_path / "reliability diagram.png").write_bytes(b"other")
    with pytest.raises(ValueError, match="reliability diagram.png"):
        save_card(card, target, plots=[picture, tmp_path / "reliability diagram.png"])


def test_a_failed_write_leaves_the_old_card(tmp_path, monkeypatch):
    from hf_labels.hub_cards import save

    save_card(CARD, tmp_path)

    def broken(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(save.os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        save_card(CARD + "\nmore\n", tmp_path)
    assert (tmp_path / "README.md").read_text() == CARD
    assert [item.name for item in tmp_path.iterdir()] == ["README.md"]


def test_a_good_card_has_no_problem():
    assert validate_card(CARD, slug="crosstune") == []


@pytest.mark.parametrize(
    "old, new, problem",
    [
        ("---\n", "", "no YAML front matter"),
        ("library_name: hf_labels\n", "", "lacks `library_name`"),
        ("license: apache-2.0\n", "", "lacks `license`"),
        ("license: apache-2.0", "license: free", "'free' is not a licence"),
        ("license: apache-2.0", "license: [", "not valid YAML"),
        ("pipeline_tag: text-classification", "pipeline_tag: nonsense", "'nonsense' is not a task"),
        ("pipeline_tag: text-classification\n", "", "lacks `pipeline_tag`"),
        ("- hf_labels\n", "", "lacks 'hf_labels'"),
        ("- crosstune\n", "", "lacks 'crosstune'"),
        ("base_model: org/b", "base_model: /home/me/b", "not a Hub id"),
        ("license: apache-2.0", "license: mit\nlanguage: english", "language"),
        ("license: apache-2.0", "license: mit\ndatasets:\n- my data", "not a Hub id"),
        ("  - task:\n", "  - tusk:\n", "model-index"),
        ("## Limits\n", "## Limitations\n", "`## Limits` is missing"),
        ("## Limits\n", "## Limits\n\n## More\n", "`## Limits` is empty"),
        ("## Limits\n", "## Results\n", "twice"),
        ("## Limits\n", "## Limits\n\n[More Information Needed]\n", "More Information Needed"),
        ("## Limits\n", "## Limits\n\nTODO: write\n", "TODO"),
        ("## Limits\n", "## Limits\n\n{{ limits }}\n", "Left to fill in"),
        ("print(model", "print((model", "Python block 1 does not compile"),
        ("## Limits\n", "## Limits\n\n![](a.png)\n", "no alternative text"),
        ("## Limits\n", "## Limits\n\n![a](missing.png)\n", "`missing.png` is not beside the card"),
        ("## Limits\n", "## Limits\n\n![a](../a.png)\n", "relative to the card"),
        ("## Limits\n", "## Limits\n\n![a](/etc/a.png)\n", "relative to the card"),
    ],
)
def test_each_problem_is_found(tmp_path, old, new, problem):
    assert old in CARD
    found = validate_card(CARD.replace(old, new, 1), tmp_path, slug="crosstune")
    assert any(problem in item for item in found), found


def test_words_in_code_are_no_placeholders():
    card = CARD.replace(
        "## Limits\n", "## Limits\n\n`TODO` and `{{ x }}` `![a](b.png)`\n\n```\n[More Information Needed]\n```\n"
    )
    assert validate_card(card, ".") == []
    assert image_links("`![a](b.png)` ![c](d%20e.png) \\![f](g.png)") == ["d%20e.png"]


def test_kind_is_checked():
    with pytest.raises(ValueError, match="dataset"):
        validate_card(CARD, kind="space")
    assert any("Columns" in item for item in validate_card(CARD, kind="dataset"))


def test_words_that_other_yaml_readers_take_for_numbers_are_quoted():
    card = str(render_card("crosstune", model_id="me/m", tags=["1e3", "0o17", "no", "plain"]))
    assert all(f"\n- {word}\n" in card for word in ('"1e3"', '"0o17"', "'no'", "plain"))
    assert front_matter(card)["tags"][2:] == ["1e3", "0o17", "no", "plain"]


def test_importing_the_package_is_light():
    code = (
        "import sys, hf_labels.hub_cards as cards; dir(cards);"
        "heavy = {'torch', 'transformers', 'jinja2', 'huggingface_hub', 'matplotlib', 'numpy'} & set(sys.modules);"
        "assert not heavy, heavy;"
        "assert all(getattr(cards, name) for name in cards.__all__);"
        "heavy = {'torch', 'transformers', 'datasets', 'matplotlib'} & set(sys.modules); assert not heavy, heavy;"
        "card = str(cards.render_card('crosstune', model_id='a/b')); assert cards.validate_card(card) == [];"
        "heavy = {'torch', 'transformers', 'datasets', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
