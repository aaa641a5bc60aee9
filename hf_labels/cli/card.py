"""`hf-labels card <slug>`: the page of a method, or the model card of a folder that holds a trained model."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_labels import catalog
from hf_labels.cli.errors import CommandError, UsageError
from hf_labels.cli.main import Parser
from hf_labels.cli.methods import trainable

PROG = "hf-labels card"


def run(argv: Sequence[str]) -> int:
    """Print the card, or write it."""
    parser = Parser(prog=PROG, description="The page of a method, or the model card of a trained model.")
    parser.add_argument("slug", help="the method")
    parser.add_argument("--model", help="folder of a trained model: write its model card instead of the method's page")
    parser.add_argument("--model_id", help="name of the model in the card; the folder's name when not given")
    parser.add_argument("--base_model", help="Hub id of the model that training began from")
    parser.add_argument("--dataset", help="data set that it was trained and evaluated on")
    parser.add_argument("--license", default="apache-2.0", help="licence id of the Hub (default: apache-2.0)")
    parser.add_argument("--output", help="file or folder to write to, instead of printing")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that this package did not write")
    args = parser.parse_args(argv)
    slug = _need_ready(args.slug)
    if args.model:
        text = str(_model_card(slug, args))
        problems = _problems(text, slug)
    else:
        from hf_labels.hub_cards import render_method_page

        text, problems = str(render_method_page(slug)), []
    for problem in problems:
        print(f"{PROG}: {problem}", file=sys.stderr)
    if args.output is None:
        print(text)
    else:
        print(f"Written: {_write(text, Path(args.output), args.overwrite)}")
    return 0


def _need_ready(name: str) -> str:
    slug = name.lower().replace("-", "_")
    if slug in trainable():
        return slug
    try:
        method = catalog.get(slug)
    except KeyError as error:
        raise UsageError(str(error.args[0]).replace(repr(slug), repr(name)), PROG) from None
    if method.status != "ready":
        ready = ", ".join(m.slug for m in catalog.ready())
        raise UsageError(f"`{slug}` is planned and has no card yet. Ready: {ready}.", PROG)
    return slug


def _model_card(slug: str, args: Any) -> Any:
    from hf_labels.hub_cards import ResultRow, render_card

    folder = Path(args.model)
    if not folder.is_dir():
        raise FileNotFoundError(f"--model: there is no folder {str(folder)!r}. Give the folder of a trained model.")
    config = _read(folder / "config.json")
    if config is None:
        raise CommandError(f"--model: {str(folder)!r} holds no model (no config.json).")
    names = config.get("id2label") or {}
    labels: Any = config.get("label_descriptions") or [names[key] for key in sorted(names, key=int)]
    scores = _read(folder / "eval_results.json") or {}
    skip = ("runtime", "per_second", "epoch")
    rows = [
        ResultRow(args.dataset or "evaluation data", "evaluation", key, float(value))
        for key, value in scores.items()
        if key.startswith("eval_") and isinstance(value, int | float) and not key.endswith(skip)
    ]
    return render_card(
        slug,
        model_id=args.model_id or folder.resolve().name,
        base_model=args.base_model or config.get("backbone"),
        datasets=[args.dataset] if args.dataset else (),
        license=args.license,
        labels=labels or None,
        results=rows,
    )


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{str(path)!r} is no JSON: {error}.") from None
    return values if isinstance(values, dict) else None


def _problems(text: str, slug: str) -> list[str]:
    from hf_labels.hub_cards import validate_card

    return validate_card(text, slug=slug)


def _write(text: str, target: Path, overwrite: bool) -> Path:
    from hf_labels.hub_cards import save_card

    if target.suffix != ".md":
        return save_card(text, target, overwrite=overwrite)
    if target.exists() and not overwrite:
        raise FileExistsError(f"{str(target)!r} exists. Pass --overwrite, or another --output.")
    os.makedirs(target.parent, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return target
