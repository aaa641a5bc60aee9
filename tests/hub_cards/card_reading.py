"""How the tests read a card: with a CommonMark parser that the package itself does not use."""

import re

import yaml
from markdown_it import MarkdownIt

_PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
_CONTENT = {"text", "code_inline", "softbreak", "text_special"}
AUTOLINK = re.compile(r"https?://|ftp://|www\.|[\w.+-]@[\w-]+\.\w", re.IGNORECASE)

NASTY = [
    "---",
    "x\n---\ny",
    "\n---\nlicense: gpl\n---\n# Owned",
    "key: value",
    "a: b: c #d",
    "- item",
    "1. one",
    "1) one",
    "=====",
    "+ plus",
    ":---",
    "| a | b |",
    "a|b||c\\|d",
    "a\\",
    "\\",
    "`",
    "``` \n",
    "a`b``c```d",
    "~~~\ncode",
    "~~gone~~",
    "# heading",
    "## Results",
    "> quote",
    "    indented",
    "\ttab",
    "<script>alert(1)</script>",
    "<b>bold</b>",
    "<!-- comment",
    "--> end",
    "<img src=x onerror=alert(1)>",
    "&lt;script&gt; &amp; &#60;",
    "![pixel](https://evil.example/p.png)",
    "[click](javascript:alert(1))",
    "[ref][1]\n\n[1]: https://evil.example",
    "[^1]: note",
    "<https://evil.example>",
    "https://evil.example/a_b_c",
    "www.evil.example",
    "someone@evil.example",
    "a@b.co|c",
    "mailto:a@b.co",
    "evil.com is a domain",
    "{{ 7*7 }}",
    "{% for x in y %}",
    "{{ ''.__class__ }}",
    "{# note #}",
    "${HOME} $(id) $$x^2$$ \\(x\\)",
    "*bold* _it_ **b** __b__",
    "!!python/object/apply:os.system ['id']",
    "&anchor *alias",
    "? complex key",
    "%YAML 1.1",
    "@at `tick`",
    "'single' \"double\"",
    "null",
    "~",
    "yes",
    "no",
    "1e3",
    "0x1F",
    "2024-01-01",
    "12:30:45",
    "\u202eevil\u202c",
    "\u2066x\u2069 \u200b\u200f\ufeff",
    "a\u2028b\u2029c\x85d",
    "\x00\x07\x1b[31m",
    "\ud800",
    "\ufffe\uffff",
    "\U000e0041 tag",
    "दृश्य\u200dपाठ می\u200cخواهم 👩\u200d🔬",
    "مرحبا",
    "x" * 20_000,
    "|" * 3_000,
    "`" * 3_000,
    " ",
    " leading and trailing ",
    "a\r\nb\rc",
    "MODEL_ID TASK EXAMPLE",
]


def skeleton(text: str) -> list[tuple[str, str]]:
    """Structure of a page without its words: blocks in order, and the inline parts that are more than words."""
    found = []
    for token in _PARSER.parse(body_of(text)):
        if token.type == "inline":
            found += [(child.type, child.tag) for child in token.children if child.type not in _CONTENT]
        elif token.type != "fence":
            found.append((token.type, token.tag + token.markup))
        else:
            found.append(("fence", token.info))
    return found


def body_of(text: str) -> str:
    """What follows the front matter, found without the help of the package."""
    assert text.startswith("---\n")
    return text[4:].split("\n---\n", 1)[1]


def front_matter(text: str) -> dict:
    return yaml.safe_load(text[4:].split("\n---\n", 1)[0])


def words(markdown: str) -> str:
    """What a reader sees of one line of Markdown."""
    return "".join(
        child.content for token in _PARSER.parse(markdown) if token.type == "inline" for child in token.children
    )


def text_nodes(text: str) -> list[str]:
    """Text outside code spans and code blocks: where some renderers make links of addresses."""
    return [
        child.content
        for token in _PARSER.parse(body_of(text))
        if token.type == "inline"
        for child in token.children
        if child.type == "text"
    ]


def cells(text: str, heading: str) -> list[list[str]]:
    """Rows of the first table whose header begins with `heading`, as read by the parser."""
    rows: list[list[str]] = []
    row: list[str] | None = None
    for token in _PARSER.parse(body_of(text)):
        if token.type == "tr_open":
            row = []
        elif token.type == "inline" and row is not None:
            row.append("".join(child.content for child in token.children))
        elif token.type == "tr_close" and row is not None:
            rows.append(row)
            row = None
        elif token.type == "table_close":
            if rows[0][0] == heading:
                return rows[1:]
            rows = []
    raise AssertionError(f"no table {heading!r}")
