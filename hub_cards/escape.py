"""Text from data, users and language models, made harmless for Markdown, tables and Python code.

Everything that a template prints goes through `prose` unless it is `Markdown` already (see `render.environment`), so a
forgotten escape shows too many backslashes and never a foreign link.
"""

import re
import unicodedata
from typing import Any

# Joiners carry meaning in Persian, Indic scripts and emoji; they are kept after a character that is not ASCII.
_JOINERS = "\u200c\u200d"
_MAYBE_LINK = re.compile(r"://|www\.|@|(?:mailto|xmpp|javascript|data):\S|[^\W_]\.[^\W\d_]{2,}", re.IGNORECASE)
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "\\": "&#92;", "$": "&#36;", "`": "&#96;"}
_BACKSLASHED = frozenset("*_[]{}~#^")
_LINE_START = re.compile(r"^(?:[-+=:]|\d+[.)](?=$| ))")


class Markdown(str):
    """Text that is Markdown already: written by this package, or escaped by one of its functions."""

    __slots__ = ()


def clean(value: Any, limit: int = 500) -> str:
    """One line of visible text: white space folded, invisible characters spelled out, long text cut.

    Args:
        value: Anything; `str(value)` is taken.
        limit (`int`, *optional*, defaults to `500`): Longest result in characters; a cut ends in an ellipsis.

    Returns:
        `str`: Control, bidirectional, zero-width, surrogate and unassigned characters appear as `[U+202E]`.
    """
    text = str(value)
    long = len(text) > 8 * limit
    out: list[str] = []
    for char in text[: 8 * limit]:
        if char.isspace():
            out.append(" ")
        elif unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Cn"):
            out.append(char)
        elif char in _JOINERS and out and not out[-1][-1].isascii():
            out.append(char)
        else:
            out.append(f"[U+{ord(char):04X}]")
    folded = " ".join("".join(out).split())
    if long or len(folded) > limit:
        folded = folded[: limit - 1].rstrip() + "…"
    return folded


def prose(value: Any, limit: int = 500) -> Markdown:
    """Text that reads as it was given, without any structure: no heading, list, link, HTML, table cell or emphasis.

    Words that some renderers turn into links (addresses, domains, e-mail) become code spans. The result is one line,
    safe at the start of a line, in a list item, in a heading and in a table cell.
    """
    if isinstance(value, Markdown):
        return value
    words = [code(word, limit) if _MAYBE_LINK.search(word) else escaped(word) for word in clean(value, limit).split()]
    return _guarded(" ".join(words))


def _guarded(line: str) -> Markdown:
    """No list, rule or underline of a heading at the start of a line."""
    start = _LINE_START.match(line)
    cut = start.end() - 1 if start else 0
    return Markdown(f"{line[:cut]}\\{line[cut:]}" if start else line)


def escaped(word: str) -> str:
    """The characters that mean something in Markdown or HTML, as entities or behind a backslash."""
    return "".join(_ENTITIES.get(char) or (f"\\{char}" if char in _BACKSLASHED else char) for char in word)


def code(value: Any, limit: int = 200) -> Markdown:
    """A code span that holds the text as it is, for names, ids and values. Safe in a table cell as well.

    In a table, Markdown asks for `\\|` inside code too; outside a table that would be shown, so a value with a pipe is
    written as escaped prose instead.
    """
    text = clean(value, limit)
    if not text:
        return Markdown("(empty)")
    if "|" in text:
        return _guarded(_escaped_pieces(text) if _MAYBE_LINK.search(text) else escaped(text))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text[0] == "`" or text[-1] == "`" else ""
    return Markdown(f"{fence}{pad}{text}{pad}{fence}")


def _escaped_pieces(text: str) -> str:
    """Code spans around the pipes, for a text that holds both pipes and what looks like a link."""
    pieces = []
    for piece in text.split("|"):
        inner = piece.strip()
        pieces.append(piece.replace(inner, code(inner, len(inner) + 1)) if inner else piece)
    return "&#124;".join(pieces)


def python_literal(text: str) -> Markdown:
    """A Python string literal that evaluates to `text` and cannot end a code fence."""
    literal = repr(str(text)).replace("`", "\\x60")
    plain = literal[0] == "'" and '"' not in literal and "\\'" not in literal
    return Markdown(f'"{literal[1:-1]}"' if plain else literal)
