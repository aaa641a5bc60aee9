"""Self-contained pages and galleries of suspected label errors."""

import html.parser
import re

import datasets
import numpy as np
import PIL.Image
import pytest

from hf_labels.hub_cards import Part, embed_image, label_issue_page, label_issue_picture, write_page
from hf_labels.labels.issues import LabelIssues

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)> $x^2$ \u202e {{ 7 * 7 }}"


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.addresses = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attrs)


def issues(names=("spam", EVIL)):
    return LabelIssues(
        np.array([0, 1, 0]),
        np.array([1, 0, 0]),
        np.array([0.2, 0.1, 0.9]),
        np.array([True, True, False]),
        names,
        "a tool",
    )


def texts():
    return datasets.Dataset.from_dict({"text": ["one", EVIL, "three"], "labels": [0, 1, 0]})


def images():
    pictures = [PIL.Image.fromarray(np.full((300, 200), 80 * i, dtype=np.uint8)) for i in range(3)]
    return datasets.Dataset.from_dict({"image": pictures}, features=datasets.Features({"image": datasets.Image()}))


def test_page_shows_flagged_rows_in_order_and_every_text_escaped(tmp_path):
    text = label_issue_page(issues(), texts(), tmp_path / "issues.html").read_text()
    tags = Tags(text)
    assert "script" not in tags.found and "img" not in tags.found and not tags.addresses
    assert "2 of 3 judged rows are flagged by a tool" in text
    assert re.findall(r'<td class="number">(\d+)</td>', text) == ["1", "0"]
    assert "{{ 7 * 7 }}" in text and "[U+202E]" in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text


def test_page_of_images_holds_them_inside(tmp_path):
    text = label_issue_page(issues(), images(), tmp_path / "issues.html", limit=1).read_text()
    tags = Tags(text)
    assert tags.found.count("img") == 1 and tags.addresses[0].startswith("data:image/png;base64,")
    assert "The 1 most suspicious ones are shown." in text


def test_nothing_flagged_is_said(tmp_path):
    none = LabelIssues(np.array([0]), np.array([0]), np.array([0.9]), np.array([False]))
    data = datasets.Dataset.from_dict({"text": ["one"]})
    assert "0 of 1 judged rows are flagged" in label_issue_page(none, data, tmp_path / "issues.html").read_text()
    with pytest.raises(ValueError, match="nothing to draw"):
        label_issue_picture(none, data, tmp_path / "issues.png")


@pytest.mark.parametrize("data", [texts, images])
def test_picture_has_a_text_that_stands_for_it(data, tmp_path):
    plot = label_issue_picture(issues(("spam", "ham")), data(), tmp_path / "issues.png", title="$x")
    assert PIL.Image.open(plot.path).size[0] > 200
    assert plot.alt == "The 2 most suspicious of 2 flagged rows; the first is row 1, labelled ham, suggested spam"


def test_column_to_show_is_found_or_asked_for(tmp_path):
    data = texts().remove_columns("text")
    with pytest.raises(ValueError, match="neither an image nor a text column"):
        label_issue_page(issues(), data, tmp_path / "issues.html")
    with pytest.raises(KeyError, match="`txt`"):
        label_issue_page(issues(), texts(), tmp_path / "issues.html", column="txt")
    with pytest.raises(ValueError, match="2 rows"):
        label_issue_page(issues(), texts().select([0, 1]), tmp_path / "issues.html")


def test_page_parts(tmp_path):
    part = Part("A & B", ["first", "second"], ["hf-labels methods"], ("name", "value"), [["x", 0.123456], ["y", True]])
    text = write_page(tmp_path / "page.html", "Title", [part], ["intro"]).read_text()
    assert "A &amp; B" in text and "<pre>hf-labels methods</pre>" in text and "0.1235" in text and ">True<" in text
    with pytest.raises(ValueError, match="must end in .html"):
        write_page(tmp_path / "page.txt", "Title", [])
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        embed_image(tmp_path / "page.html", "a page")
