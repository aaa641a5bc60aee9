import ast

import pytest
from card_reading import AUTOLINK, NASTY, words
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hf_labels.hub_cards import Markdown, code, prose, python_literal
from hf_labels.hub_cards.escape import clean

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
LOUD = "`|<>[](){}#*_-+=~!\\&$%@:/. \n\r\t1a\u2028\u202e\x85\x00'\"^é\u200d\ud800"
anything = st.one_of(st.text(st.characters(), max_size=60), st.text(LOUD, max_size=40), st.sampled_from(NASTY))


def only_words(markdown: str) -> bool:
    """One paragraph (or nothing) made of text and code spans."""
    tokens = PARSER.parse(markdown)
    kinds = [token.type for token in tokens]
    inner = {child.type for token in tokens if token.type == "inline" for child in token.children}
    return kinds in ([], ["paragraph_open", "inline", "paragraph_close"]) and inner <= {"text", "code_inline"}


@settings(deadline=None, max_examples=400)
@given(anything)
def test_prose_and_code_read_as_given_and_add_no_structure(text):
    for write in (prose, code):
        written = write(text, 300)
        assert "\n" not in written and only_words(written), written
        seen = words(written)
        assert seen == clean(text, 300) or (not clean(text) and seen in ("", "(empty)"))
        for place in ("# {}", "- {}", "> {}", "line\n{}", "{}\n===", "1. {}"):
            before, after = (PARSER.parse(place.format(word)) for word in ("word", written or "word"))
            assert [token.type for token in before] == [token.type for token in after], place


@settings(deadline=None, max_examples=400)
@given(anything, anything)
def test_a_table_keeps_its_cells(first, second):
    for one, two in ((prose(first), code(second)), (code(first), prose(second))):
        tokens = PARSER.parse(f"| a | b |\n| --- | --- |\n| {one} | {two} |\n| end | row |\n")
        inline = [token for token in tokens if token.type == "inline"]
        assert len(inline) == 6 and inline[4].content == "end"
        seen = ["".join(child.content for child in token.children) for token in inline[2:4]]
        assert seen == [words(one), words(two)]
        assert {child.type for token in inline for child in token.children} <= {"text", "code_inline"}


@pytest.mark.parametrize(
    "text", ["see https://a.example/x now", "www.a.example", "mail me@a.example", "go to evil.com."]
)
def test_addresses_are_never_plain_text(text):
    nodes = [child for token in PARSER.parse(prose(text)) if token.children for child in token.children]
    assert [node.type for node in nodes].count("code_inline") == 1
    assert not any(AUTOLINK.search(node.content) for node in nodes if node.type == "text")


@settings(deadline=None, max_examples=300)
@given(anything)
def test_python_literal_is_the_text_and_stays_in_its_fence(text):
    written = python_literal(text)
    assert ast.literal_eval(written) == text
    assert "`" not in written and written.isprintable()
    assert words(f"before\n\n```python\nx = {written}\n```\n") == "before"


def test_ordinary_text_is_left_alone():
    for text in (
        "A sentence, with commas; it ends here.",
        "Crème brûlée (2nd edition): 3.5% off!",
        "日本語のラベル",
        "a-b c+d e=f",
    ):
        assert prose(text) == text
    assert code("learning_rate") == "`learning_rate`"
    assert python_literal("me/model") == '"me/model"'


def test_invisible_characters_are_spelled_out_and_joiners_survive():
    assert clean("a\u202eb\x00") == "a[U+202E]b[U+0000]"
    assert clean("می\u200cخواهم 👩\u200d🔬") == "می\u200cخواهم 👩\u200d🔬"
    assert clean("a\u200db") == "a[U+200D]b"


def test_long_text_is_cut_with_an_ellipsis():
    assert clean("word " * 10_000, 20) == "word word word word…"
    assert len(prose("<" * 1_000_000, 50)) == 49 * len("&lt;") + 1


def test_markdown_is_not_escaped_again():
    assert prose(Markdown("**b**")) == "**b**"
    assert prose(prose("a*b")) == prose("a*b")
