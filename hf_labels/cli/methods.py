"""`hf-labels methods`: what there is, by label problem, straight from the catalog."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from hf_labels import catalog
from hf_labels.cli.errors import UsageError
from hf_labels.cli.main import Parser


def trainable() -> dict[str, str]:
    """Slugs that `hf-labels train` takes -> one line about them; read from the catalog."""
    slugs = {
        method.slug: method.summary
        for method in catalog.ready()
        if any(path.startswith(f"trainers.{method.slug}:") for path in method.public) and _has_command(method.slug)
    }
    for path in catalog.SHARED:
        module, _, name = path.partition(":")
        slug = module.removeprefix("trainers.")
        if module.startswith("trainers.") and slug != "base" and name.endswith("Trainer"):
            slugs.setdefault(slug, "Any classifier on probabilities as labels (shared part of many methods).")
    return slugs


def _has_command(slug: str) -> bool:
    """Whether the module of a trainer says how the command line sets it up; read from its text, without torch."""
    package = importlib.util.find_spec("hf_labels.trainers")
    places = [] if package is None else package.submodule_search_locations or []
    files = [Path(place) / f"{slug}.py" for place in places]
    return any(file.is_file() and "\ndef cli_setup(" in file.read_text(encoding="utf-8") for file in files)


def run(argv: Sequence[str]) -> int:
    """List all methods, or explain one."""
    parser = Parser(prog="hf-labels methods", description="List the methods by label problem, or explain one.")
    parser.add_argument("slug", nargs="?", help="the method to explain")
    parser.add_argument("--problem", choices=tuple(catalog.PROBLEMS), help="only methods for this label problem")
    parser.add_argument("--ready", action="store_true", help="only what can be used today")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    if args.slug:
        print(_one(args.slug, args.json))
    else:
        print(_all(args.problem, args.ready, args.json))
    return 0


def _as_json(method: catalog.Method) -> dict:
    return {
        **dataclasses.asdict(method),
        "problem_text": catalog.PROBLEMS[method.problem],
        "url": method.url,
        "trainable": method.slug in trainable(),
    }


def _all(problem: str | None, ready: bool, as_json: bool) -> str:
    groups = {
        name: [m for m in rows if not ready or m.status == "ready"]
        for name, rows in catalog.by_problem().items()
        if problem in (None, name)
    }
    if as_json:
        return json.dumps([_as_json(m) for rows in groups.values() for m in rows], indent=2, ensure_ascii=False)
    wide = shutil.get_terminal_size((100, 24)).columns
    indent = max(len(m.slug) for m in catalog.METHODS) + 13
    lines = []
    for name, rows in groups.items():
        if not rows:
            continue
        lines.append(f"\n{name}: {catalog.PROBLEMS[name]}")
        for method in rows:
            head = f"  {method.slug:<{indent - 12}} {method.status:<8} "
            text = textwrap.wrap(method.summary, max(wide - indent, 30))
            lines.append(head + ("\n" + " " * len(head)).join(text))
    shown = [m for rows in groups.values() for m in rows]
    count = sum(m.status == "ready" for m in shown)
    lines.append(f"\n{len(shown)} methods, {count} ready, {len(shown) - count} planned.")
    lines.append(f"Trainable from the command line: {', '.join(trainable())} (`hf-labels train <slug> --help`).")
    lines.append("`hf-labels methods <slug>` explains one.")
    return "\n".join(lines).lstrip("\n")


def _one(slug: str, as_json: bool) -> str:
    wanted = slug.lower().replace("-", "_")
    if wanted in trainable() and wanted not in {m.slug for m in catalog.METHODS}:
        return _shared_part(wanted, as_json)
    try:
        method = catalog.get(wanted)
    except KeyError as error:
        raise UsageError(str(error.args[0]).replace(repr(wanted), repr(slug)), "hf-labels methods") from None
    if as_json:
        return json.dumps(_as_json(method), indent=2, ensure_ascii=False)
    names = [path.rpartition(":")[2] for path in method.public]
    rows = {
        "Label problem": f"{method.problem}: {catalog.PROBLEMS[method.problem]}",
        "Reads": "; ".join(_kind(kind) for kind in method.consumes),
        "Gives": method.produces,
        "Paper": f"{method.paper}, {method.year}" + (f", {method.url}" if method.url else ""),
        "Status": "ready" if method.status == "ready" else "planned, not there yet",
        "Names": ", ".join(names),
        "Metrics": ", ".join(method.metrics),
        "Experiment": method.experiment,
    }
    wide = max(shutil.get_terminal_size((100, 24)).columns - 15, 30)
    lines = [f"{method.slug}: {method.title}", "", *textwrap.wrap(method.summary, wide + 15), ""]
    for key, text in rows.items():
        lines.append(f"{key:<14} " + ("\n" + " " * 15).join(textwrap.wrap(text, wide)))
    if method.slug in trainable():
        lines += [
            "",
            f"Train it:  hf-labels train {method.slug} --dataset data.csv --model <backbone> --output_dir out",
        ]
    if method.status == "ready":
        lines += ["" if method.slug not in trainable() else "", f"Read more: hf-labels card {method.slug}"]
        lines += [f"In Python: from hf_labels import {', '.join(names)}"]
    return "\n".join(lines)


def _kind(kind: str) -> str:
    from hf_labels.labels.kinds import KINDS

    row = KINDS[kind]
    return f"{kind} (column `{row.column}` {row.shape}, {row.dtype}; missing: {row.missing})"


def _shared_part(slug: str, as_json: bool) -> str:
    names = [path.rpartition(":")[2] for path in catalog.SHARED if path.startswith(f"trainers.{slug}:")]
    summary = trainable()[slug]
    if as_json:
        part = {"slug": slug, "summary": summary, "public": names, "trainable": True, "status": "ready"}
        return json.dumps(part, indent=2)
    return "\n".join(
        [
            f"{slug}: {summary}",
            "",
            f"Train it:  hf-labels train {slug} --dataset data.jsonl --model <model> --output_dir out",
            f"Read more: hf-labels card {slug}",
            f"In Python: from hf_labels import {', '.join(names)}",
        ]
    )
