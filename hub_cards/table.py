"""The table of methods in README.md, written from the catalog: `python -m hf_labels.hub_cards.table README.md`."""

import sys
from pathlib import Path

from hf_labels.catalog import METHODS, PROBLEMS, by_problem, ready

START, END = "<!-- methods: start -->", "<!-- methods: end -->"


def methods_table() -> str:
    """Markdown of all methods by label problem, with their status."""
    lines = [f"{len(ready())} of {len(METHODS)} methods are ready; the others are planned and export nothing yet.", ""]
    lines += ["| label problem | method | becomes | paper | status |", "| --- | --- | --- | --- | --- |"]
    for problem, rows in by_problem().items():
        for number, method in enumerate(rows):
            first = f"**{problem}**: {PROBLEMS[problem]}" if number == 0 else ""
            paper = f"[{method.paper}]({method.url})" if method.url else method.paper
            title = (
                f"[{method.title}](hub_cards/methods/{method.slug}.md)" if method.status == "ready" else method.title
            )
            status = "**ready**" if method.status == "ready" else "planned"
            lines.append(f"| {first} | {title} (`{method.slug}`) | {method.produces} | {paper} | {status} |")
    return "\n".join(lines)


def update(text: str) -> str:
    """`text` with the part between the two markers replaced by the table.

    Raises:
        ValueError: If a marker is missing.
    """
    if START not in text or END not in text:
        raise ValueError(f"The text has no `{START}` ... `{END}` pair to write the table between.")
    before, _, rest = text.partition(START)
    return f"{before}{START}\n{methods_table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(update(path.read_text(encoding="utf-8")), encoding="utf-8")
