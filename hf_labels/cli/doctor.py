"""`hf-labels doctor DATASET`: what ails the labels of a data set, with intervals and treatments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hf_labels.cli.errors import UsageError
from hf_labels.cli.main import Parser

PROG = "hf-labels doctor"


def run(argv: Sequence[str]) -> int:
    """Print the report, and write the page and the numbers if asked to."""
    parser = Parser(prog=PROG, description="What ails the labels of a data set, how sure that is, and what treats it.")
    parser.add_argument("dataset", help="a Hub id, a folder, or a CSV, TSV, JSONL, JSON or Parquet file")
    parser.add_argument("--split", help="rows to examine (default: train, or the first)")
    parser.add_argument("--eval_split", help="rows to compare with (default: validation or test, when present)")
    parser.add_argument("--config", help="configuration of a Hub data set")
    parser.add_argument("--text_column", help="column with the text, when its name does not tell")
    parser.add_argument("--label_column", help="column with the labels, when its name does not tell")
    parser.add_argument("--probs_column", help="column with a model's probabilities, to measure their calibration")
    parser.add_argument("--encoder", help="frozen encoder: a Hub id, a folder, or tfidf (default: MiniLM)")
    parser.add_argument("--no_embeddings", action="store_true", help="only what needs no encoder")
    parser.add_argument("--html", help="write one self-contained page with tables and pictures")
    parser.add_argument("--json", help="write the numbers (`DoctorReport.to_json` says what is what)")
    parser.add_argument("--seed", type=int, default=0, help="of folds and resamples (default: 0)")
    args = parser.parse_args(argv)
    _check(args)
    from hf_labels.doctor.examination import examine

    report = examine(
        args.dataset,
        split=args.split,
        eval_split=args.eval_split,
        text_column=args.text_column,
        label_column=args.label_column,
        probs_column=args.probs_column,
        config=args.config,
        encoder=args.encoder,
        embeddings=not args.no_embeddings,
        seed=args.seed,
    )
    print(report.text())
    if args.json:
        report.to_json(args.json)
        print(f"Written: {args.json}")
    if args.html:
        print(f"Written: {report.to_html(args.html)}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """What can be known to be wrong before the data are read, which may take long."""
    if args.seed < 0:
        raise UsageError(f"--seed must be 0 or more, got {args.seed}.", PROG)
    if args.no_embeddings and args.encoder:
        raise UsageError("--encoder and --no_embeddings exclude each other. Leave one out.", PROG)
    if args.html and Path(args.html).suffix.lower() != ".html":
        raise UsageError(f"--html must name a file that ends in .html, got {args.html!r}.", PROG)
    for option, place in (("html", args.html), ("json", args.json)):
        if not place:
            continue
        if Path(place).is_dir():
            raise UsageError(f"--{option} {place!r} is a folder. Name a file.", PROG)
        if Path(place).resolve() == Path(args.dataset).expanduser().resolve():
            raise UsageError(f"--{option} {place!r} is the data set itself. Name another file.", PROG)
        try:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--{option} {place!r} cannot be written: {error}", PROG) from error
