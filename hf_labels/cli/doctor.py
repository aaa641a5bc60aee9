"""`hf-labels doctor DATASET`: what ails the labels of a data set, with intervals and treatments."""

from __future__ import annotations

from collections.abc import Sequence

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
    parser.add_argument("--json", help="write the numbers")
    parser.add_argument("--seed", type=int, default=0, help="of folds and resamples (default: 0)")
    args = parser.parse_args(argv)
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
