"""The little that this package needs to know about the blocks of a Markdown file: front matter, sections, code."""

import re
from collections.abc import Iterator
from typing import Any

_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[ \t]*(.*)$")


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """Front matter and body.

    Raises:
        ValueError: If there is no front matter, it is not YAML, or it is not a mapping.
    """
    import yaml

    match = _FRONT.match(text)
    if match is None:
        raise ValueError("There is no YAML front matter: the text must begin with a block between two lines `---`.")
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        raise ValueError(f"The front matter is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"The front matter must be a mapping of names to values, got {type(data).__name__}.")
    return data, text[match.end() :]


def lines_with_code(body: str) -> Iterator[tuple[str, str | None]]:
    """Each line with the language of the fenced block it is in: `None` outside, `""` for a block without language.

    The fence lines themselves come with the language `"fence"`.
    """
    fence: str | None = None
    language = ""
    for line in body.split("\n"):
        match = _FENCE.match(line.rstrip("\r"))
        if fence is None:
            if match and not (match[1][0] == "`" and "`" in match[2]):
                fence, language = match[1], (match[2].split() or [""])[0].lower()
                yield line, "fence"
            else:
                yield line, None
        elif match and match[1][0] == fence[0] and len(match[1]) >= len(fence) and not match[2].strip():
            fence = None
            yield line, "fence"
        else:
            yield line, language


def sections(body: str) -> dict[str, str]:
    """Text of every `## ` section by its title, in order; what comes before the first one has the key `""`.

    Raises:
        ValueError: If two sections have one title.
    """
    found: dict[str, list[str]] = {"": []}
    title = ""
    for line, language in lines_with_code(body):
        if language is None and line.startswith("## "):
            title = line[3:].strip()
            if title in found:
                raise ValueError(f"The section `## {title}` appears twice.")
            found[title] = []
        else:
            found[title].append(line)
    return {name: "\n".join(lines).strip() for name, lines in found.items()}


def code_blocks(body: str, language: str = "python") -> list[str]:
    """Contents of the fenced blocks of one language, in order."""
    blocks: list[list[str]] = []
    inside = False
    for line, found in lines_with_code(body):
        if found == language:
            if not inside:
                blocks.append([])
            blocks[-1].append(line)
        inside = found == language
    return ["\n".join(lines) for lines in blocks]


def without_code(body: str) -> str:
    """The body without fenced blocks, code spans and comments: what a reader sees as text."""
    text = "\n".join(line for line, language in lines_with_code(body) if language is None)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return re.sub(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", text, flags=re.DOTALL)
