"""The documentation page of a method: its text, with the results that its example measured.

`python -m hf_labels.hub_cards.method_page examples/results` writes the section `Results` of every method text anew.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_labels.hub_cards.escape import Markdown, prose
from hf_labels.hub_cards.parts import environment, shown_value, tidy
from hf_labels.hub_cards.results import direction, number
from hf_labels.hub_cards.texts import MethodText, method_text

RESULTS = "Results"
_AFTER_RESULTS = ("When it fails", "Sources")
_ROW_KEYS = ("name", "setting", "metric", "mean", "stderr", "seeds")
_PAIR_KEYS = ("setting", "a", "b", "mean_difference", "stderr", "wins", "n")
_PROVENANCE = ("dataset", "command", "hardware", "versions", "wall_time_s", "date")


def read_results(results: Mapping[str, Any] | str | os.PathLike[str], slug: str) -> dict[str, Any]:
    """The content of a result file, checked.

    Args:
        results (`Mapping` or path): What `examples/results/<slug>.json` holds, or the file.
        slug (`str`): Method that it must belong to.

    Raises:
        ValueError: If it is no JSON object, belongs to another method, or a row lacks a key.
    """
    if isinstance(results, Mapping):
        data, name = dict(results), "the result"
    else:
        name = f"`{Path(results).name}`"
        try:
            data = json.loads(Path(results).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{name} is not JSON: {error}") from error
    if not isinstance(data, dict) or data.get("method") != slug:
        raise ValueError(f"{name} must be a JSON object with `method` = {slug!r}.")
    for key, keys in (("rows", _ROW_KEYS), ("paired", _PAIR_KEYS)):
        for place, row in enumerate(data.get(key) or ()):
            lacking = [item for item in keys if item not in row]
            if lacking:
                raise ValueError(f"{name}: `{key}[{place}]` lacks {', '.join(lacking)}.")
    if not data.get("rows"):
        raise ValueError(f"{name} has no `rows`: nothing was measured.")
    return data


def _cell(row: Mapping[str, Any] | None) -> Markdown:
    if row is None:
        return Markdown("-")
    return Markdown(f"{number(row['mean'])} ± {number(row['stderr'])} ({int(row['seeds'])})")


def _tables(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One table per metric: a line per system, a column per setting."""
    tables = []
    for metric in dict.fromkeys(str(row["metric"]) for row in rows):
        mine = [row for row in rows if str(row["metric"]) == metric]
        settings = list(dict.fromkeys(str(row["setting"]) for row in mine))
        names = list(dict.fromkeys(str(row["name"]) for row in mine))
        cells = {(str(row["name"]), str(row["setting"])): row for row in mine}
        better = direction(metric)
        tables.append(
            {
                "metric": prose(metric),
                "direction": Markdown(f" ({better})" if better else ""),
                "header": [Markdown("System"), *(prose(setting) for setting in settings)],
                "rule": [Markdown("---"), *(Markdown("---:") for _ in settings)],
                "rows": [[prose(name), *(_cell(cells.get((name, key))) for key in settings)] for name in names],
            }
        )
    return tables


def _paired(pairs: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[list[Markdown]]:
    only = metrics[0] if len(metrics) == 1 else "-"
    return [
        [
            prose(pair["setting"]),
            Markdown(f"{prose(pair['a'])} minus {prose(pair['b'])}"),
            prose(pair.get("metric", only)),
            Markdown(f"{float(pair['mean_difference']):+.4f}"),
            number(pair["stderr"]),
            Markdown(f"{int(pair['wins'])} of {int(pair['n'])}"),
        ]
        for pair in pairs
    ]


def _results_context(data: Mapping[str, Any]) -> dict[str, Any]:
    notes = data.get("notes", data.get("note", ()))
    notes = [notes] if isinstance(notes, str) else list(notes or ())
    metrics = list(dict.fromkeys(str(row["metric"]) for row in data["rows"]))
    controls = data.get("controls")
    provenance = [(prose(key.replace("_", " ")), shown_value(data[key])) for key in _PROVENANCE if data.get(key)]
    if isinstance(controls, Mapping):
        provenance += [(Markdown(f"control: {prose(key)}"), shown_value(value)) for key, value in controls.items()]
    return {
        "caption": Markdown("Mean ± standard error over the seeds (their number in brackets)."),
        "tables": _tables(data["rows"]),
        "paired": _paired(data.get("paired") or (), metrics),
        "notes": notes,
        "provenance": provenance,
    }


def _paper_line(method: MethodText) -> Markdown:
    title = prose(method.paper_title)
    return Markdown(f"Paper: [{title}]({method.url}) ({method.paper})" if method.url else f"Paper: {title}")


def results_section(slug: str, results: Mapping[str, Any] | str | os.PathLike[str]) -> str:
    """Body of the section `Results` of one method, in Markdown.

    Raises:
        ValueError: If the results are not those of this method, or a row lacks a key.
    """
    data = read_results(results, slug)
    return tidy(environment().get_template("results.md.j2").render(results=_results_context(data))).strip()


def with_results(text: str, section: str) -> str:
    """A method text with its section `Results` written anew; it stands before `Sources`."""
    before, mark, rest = text.partition(f"\n## {RESULTS}\n")
    if mark:
        rest = rest[rest.index("\n## ") :]
    else:
        before, mark, rest = text.partition("\n## Sources\n")
        rest = mark + rest
    return f"{before}\n## {RESULTS}\n\n{section}\n{rest}"


def render_method_page(slug: str, results: Mapping[str, Any] | str | os.PathLike[str] | None = None) -> str:
    """The documentation page of one method, in Markdown.

    Args:
        slug (`str`): For example `"crosstune"`.
        results (`Mapping` or path, *optional*): Content or path of a result file, in place of the results that the
            text holds.

    Returns:
        `str`: Title, what it is, label assumptions, usage, loading, results, limits, sources, citation.

    Raises:
        ValueError: If there is no text for `slug`, or the results are not those of this method.
    """
    method = method_text(slug)
    text = dict(method.sections)
    measured = text.pop(RESULTS, "Nothing was measured yet.")
    if results is not None:
        measured = results_section(slug, results)
    text["Loading"] = method.loading("me/my-model")
    page = (
        environment()
        .get_template("method_page.md.j2")
        .render(
            title=prose(method.title),
            paper=_paper_line(method),
            before=[(name, Markdown(body)) for name, body in text.items() if name not in _AFTER_RESULTS],
            after=[(name, Markdown(text[name])) for name in _AFTER_RESULTS],
            results=Markdown(measured),
            citation=Markdown(method.citation),
        )
    )
    return tidy(page)


def update_texts(results: str | os.PathLike[str], texts: str | os.PathLike[str]) -> list[str]:
    """Write the section `Results` of each text `<slug>.md` that has a file `<slug>.json`; the slugs written."""
    written = []
    for path in sorted(Path(texts).glob("*.md")):
        measured = Path(results) / f"{path.stem}.json"
        if measured.is_file():
            text = path.read_text(encoding="utf-8")
            path.write_text(with_results(text, results_section(path.stem, measured)), encoding="utf-8")
            written.append(path.stem)
    return written


if __name__ == "__main__":
    print(*update_texts(sys.argv[1], Path(__file__).parent / "methods"))
