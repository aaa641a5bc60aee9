"""`hf-labels train <method>`: train a method on any table, alone or under torchrun."""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hf_labels import catalog
from hf_labels.cli.errors import CommandError, Interrupted, UsageError
from hf_labels.cli.methods import trainable

logger = logging.getLogger(__name__)

PROG = "hf-labels train"
EXAMPLE = """Example:
  {prog} --dataset reviews.csv --text_column review --label_column topic \\
      --model sentence-transformers/all-MiniLM-L6-v2 --output_dir out --num_train_epochs 3

--config FILE reads options from a YAML file; options on the command line win.
--resume_from_checkpoint [last | FOLDER] continues an interrupted run.
--help_all also shows the options that every `TrainingArguments` has."""


def run(argv: Sequence[str]) -> int:
    """Parse, prepare, train, evaluate, save, and push when asked."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0 if argv else 2
    slug = _need_trainable(argv[0])
    prog = f"{PROG} {slug}"
    module = importlib.import_module(f"hf_labels.trainers.{slug}")
    arguments, trainer_class = _classes_of(module)
    script_args, training_args = parse(list(argv[1:]), arguments, prog)
    training_args.resume_from_checkpoint = _checkpoint(training_args, prog)
    if training_args.hub_token:
        from hf_labels.hub import UnsavedToken

        training_args.hub_token = UnsavedToken(training_args.hub_token)  # the pickled arguments are pushed
    if training_args.process_index == 0:
        check_output_dir(training_args)

    from hf_labels.cli.prepare import prepare

    with training_args.main_process_first(desc="loading the data"):
        run_args, data = prepare(script_args, kinds_of(module, trainer_class), training_args.seed)
    strategy = training_args.eval_strategy
    if data["eval"] is None and getattr(strategy, "value", strategy) != "no":
        raise CommandError(
            f"--eval_strategy {getattr(strategy, 'value', strategy)} needs evaluation data: pass --eval_dataset, "
            "--eval_split or --eval_fraction."
        )
    from transformers import set_seed

    set_seed(training_args.seed)  # new heads are made before the trainer sets it
    trainer = module.cli_setup(run_args, training_args, data)
    _add_metrics(trainer, data["eval"])
    try:
        trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    except KeyboardInterrupt as stop:
        raise Interrupted(_resume_text(str(stop), argv, training_args.output_dir)) from None
    _finish(trainer, data, run_args, slug)
    trainer.end()
    return 0


def _overview() -> str:
    slugs = trainable()
    width = max(map(len, slugs))
    lines = [f"usage: {PROG} <method> --dataset DATA --model MODEL --output_dir FOLDER [...]", "", "methods:"]
    lines += [f"  {slug:<{width}}  {text}" for slug, text in slugs.items()]
    lines += ["", f"`{PROG} <method> --help` shows the options of one. `hf-labels methods` lists what is planned.", ""]
    return "\n".join([*lines, EXAMPLE.format(prog=f"{PROG} crosstune")])


def _need_trainable(name: str) -> str:
    slug, slugs = name.lower().replace("-", "_"), trainable()
    if slug in slugs:
        return slug
    planned = {method.slug: method for method in catalog.METHODS}
    if slug in planned:
        what = "planned and not there yet" if planned[slug].status == "planned" else "used from Python"
        raise UsageError(f"`{slug}` is {what}. Methods to train: {', '.join(slugs)}.", PROG)
    close = difflib.get_close_matches(slug, [*slugs, *planned], n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"there is no method {name!r}.{hint} Methods to train: {', '.join(slugs)}.", PROG)


def _classes_of(module: Any) -> tuple[type, type]:
    """The training arguments and the trainer that a module defines."""
    from transformers import Trainer, TrainingArguments

    found = []
    for base in (TrainingArguments, Trainer):
        own = [
            value
            for value in vars(module).values()
            if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__
        ]
        if len(own) != 1 or not hasattr(module, "cli_setup"):
            raise CommandError(f"{module.__name__} cannot be run from the command line; use its trainer from Python.")
        found.append(own[0])
    return found[0], found[1]


def kinds_of(module: Any, trainer_class: type) -> dict[str, str]:
    """Label columns that a method reads -> kind, the one it learns from first; those after it are optional.

    A module says `CLI_KINDS = {}` when its method reads text alone.
    """
    if hasattr(module, "CLI_KINDS"):
        return dict(module.CLI_KINDS)
    return dict(getattr(trainer_class, "_label_kinds", None) or {"labels": "hard"})


def parse(argv: list[str], arguments: type, prog: str) -> tuple[Any, Any]:
    """Script and training arguments from the command line and the YAML file.

    Raises:
        UsageError: Unknown option (with the closest one), missing or bad value.
    """
    from transformers import HfArgumentParser

    from hf_labels.cli.arguments import (
        ScriptArguments,
        closest,
        config_words,
        field_names,
        take_config,
        without_fields,
    )

    class Parser(HfArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise UsageError(message, prog)

    known = field_names(ScriptArguments, arguments)
    # An option that the method has too (its own `text_column`, say) is parsed once, as the method's.
    shared = set(field_names(ScriptArguments)) & set(field_names(arguments))
    both: Any = [without_fields(ScriptArguments, shared), arguments]
    parser = Parser(
        both,
        prog=prog,
        allow_abbrev=False,
        add_help=False,
        usage=f"{prog} --dataset DATA --model MODEL --output_dir FOLDER [options]",
        epilog=EXAMPLE.format(prog=prog),
    )
    if {"-h", "--help", "--help_all"} & set(argv):
        _show_help(parser, arguments, everything="--help_all" in argv)
        raise SystemExit(0)
    words, config = take_config(argv, prog)
    words = _fill_resume(words)
    if config is not None:
        words = config_words(config, known, prog) + words
    try:
        *parsed, rest = parser.parse_args_into_dataclasses(
            words, return_remaining_strings=True, look_for_args_file=False
        )
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(str(error), prog) from error
    if rest:
        raise UsageError(f"unknown option {rest[0]!r}.{closest(rest[0], known)}", prog)
    script_part, training_args = parsed
    typed = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in words if word.startswith("--")}
    common = {name: getattr(training_args, name) for name in shared & typed}
    try:
        script_args = ScriptArguments(**vars(script_part), **common)
    except ValueError as error:
        raise UsageError(str(error), prog) from error
    if not training_args.output_dir or training_args.output_dir == "trainer_output":
        raise UsageError("--output_dir is needed: the folder for the trained model.", prog)
    return script_args, training_args


def _show_help(parser: Any, arguments: type, everything: bool) -> None:
    import argparse
    import dataclasses

    from transformers import TrainingArguments

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    shared = {item.name for item in dataclasses.fields(TrainingArguments)}
    often = {"output_dir", "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "seed"}
    often |= {"eval_strategy", "save_strategy", "save_steps", "bf16", "use_cpu", "push_to_hub", "hub_model_id"}
    for action in parser._actions:
        if not everything and action.dest in shared - often:
            action.help = argparse.SUPPRESS
        elif action.help is not argparse.SUPPRESS and action.default not in (None, argparse.SUPPRESS, "", []):
            action.help = f"{action.help or ''} (default: {str(action.default).replace('%', '%%')})"
        action.option_strings = action.option_strings[:1]
    parser.print_help()


def _fill_resume(words: list[str]) -> list[str]:
    """A bare `--resume_from_checkpoint` means the last checkpoint."""
    out = []
    for place, word in enumerate(words):
        out.append(word)
        if word in ("--resume_from_checkpoint", "--resume-from-checkpoint"):
            if place + 1 == len(words) or words[place + 1].startswith("--"):
                out.append("last")
    return out


def _checkpoint(args: Any, prog: str) -> str | None:
    """Folder of the checkpoint to continue from."""
    from transformers.trainer_utils import get_last_checkpoint

    given = args.resume_from_checkpoint
    if not given or str(given).lower() in ("false", "no"):
        return None
    if str(given).lower() in ("last", "true", "yes"):
        found = get_last_checkpoint(args.output_dir) if os.path.isdir(args.output_dir) else None
        if found is None:
            raise CommandError(
                f"--resume_from_checkpoint: {args.output_dir!r} holds no checkpoint. Run without it to start anew."
            )
        return found
    if not (Path(given) / "trainer_state.json").is_file():
        raise CommandError(f"--resume_from_checkpoint: {given!r} is no checkpoint folder (no trainer_state.json).")
    return str(given)


def check_output_dir(args: Any) -> None:
    """Refuse a folder in which another run left a model, before anything is loaded.

    Raises:
        CommandError: The folder holds a model or checkpoints, and neither resuming nor overwriting was asked for.
    """
    folder = Path(args.output_dir)
    if folder.is_file():
        raise CommandError(f"--output_dir {str(folder)!r} is a file. Choose a folder.")
    if args.resume_from_checkpoint or getattr(args, "overwrite_output_dir", False) or not folder.is_dir():
        return
    models = ("config.json", "adapter_config.json", "model.safetensors", "pytorch_model.bin")
    found = sorted(p.name for p in folder.iterdir() if p.name in models or p.name.startswith("checkpoint-"))
    if found:
        resume = "continue it with --resume_from_checkpoint, " if found[0].startswith("checkpoint-") else ""
        can = hasattr(args, "overwrite_output_dir")
        raise CommandError(
            f"--output_dir {str(folder)!r} already holds a model ({', '.join(found[:3])}). Choose another "
            f"folder, {resume}" + ("or pass --overwrite_output_dir." if can else "or delete it.")
        )


def _add_metrics(trainer: Any, evaluation: Any) -> None:
    """Accuracy and calibration, when the method brings no metrics and there are class ids to compare with."""
    if evaluation is None or trainer.compute_metrics is not None or "labels" not in evaluation.column_names:
        return
    from hf_labels.labels.columns import read_column
    from hf_labels.labels.kinds import kind_of

    if kind_of(read_column(evaluation, "labels")) == "hard":
        from hf_labels.metrics import make_calibration_metrics

        trainer.compute_metrics = make_calibration_metrics()


def _resume_text(reason: str, argv: Sequence[str], output_dir: str) -> str:
    """What happened, and the command that goes on."""
    from transformers.trainer_utils import get_last_checkpoint

    reason = reason.partition(" Continue with ")[0].strip() or "Interrupted."
    words = _without(argv, "resume_from_checkpoint", "hub_token")  # a token has no place in a log
    found = get_last_checkpoint(output_dir) if os.path.isdir(output_dir) else None
    if found is None:
        return f"{reason} There is no checkpoint yet; start again with the same command."
    return f"{reason}\nContinue with:\n  {launcher()} train {shlex.join(words)} --resume_from_checkpoint"


def _without(argv: Sequence[str], *options: str) -> list[str]:
    """The command line without some options and their values."""
    words: list[str] = []
    skip = False
    for place, word in enumerate(argv):
        if skip:
            skip = False
        elif word.partition("=")[0].lstrip("-").replace("-", "_") in options and word.startswith("--"):
            skip = "=" not in word and place + 1 < len(argv) and not argv[place + 1].startswith("--")
        else:
            words.append(word)
    return words


def launcher() -> str:
    """How this command was started, to repeat it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        local = os.environ.get("LOCAL_WORLD_SIZE", str(world))
        return f"torchrun --nproc_per_node {local} -m hf_labels.cli"
    return "hf-labels"


def _finish(trainer: Any, data: dict[str, Any], run_args: Any, slug: str) -> None:
    """Evaluate, save, write the card, push."""
    metrics = trainer.evaluate() if data["eval"] is not None else {}
    if metrics:
        trainer.save_metrics("eval", metrics)
    trainer.save_model()
    trainer.save_state()
    source, base = run_args.dataset, run_args.model
    facts = {
        "dataset": os.path.basename(source.rstrip("/")) if os.path.exists(source) else source,
        "dataset_args": run_args.evaluated_on,
        "finetuned_from": None if os.path.exists(base) else base,
    }
    if trainer.args.push_to_hub:
        trainer.push_to_hub(**facts)
    elif trainer.is_world_process_zero():
        trainer.create_model_card(**facts)
    if trainer.is_world_process_zero():
        folder = trainer.args.output_dir
        for key, value in metrics.items():
            if isinstance(value, int | float) and not key.endswith(("_runtime", "_per_second")) and key != "epoch":
                print(f"{key:<24} {value:.4g}")
        print(f"Model, card and metrics of `{slug}` are in {folder}")
        if trainer.args.push_to_hub:
            print(f"and on the Hub: {trainer.hub_model_id}")
        sys.stdout.flush()
