"""Entry point of `hf-labels`. Loads neither torch nor transformers until a command needs them."""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from hf_labels._version import __version__
from hf_labels.cli.errors import CommandError, Interrupted, UsageError

COMMANDS = {
    "train": "train a method on your own data",
    "methods": "list the methods by label problem, or explain one",
    "doctor": "measure what ails the labels of a data set, and name what treats it",
    "card": "write the model card of a method or of a trained model",
    "env": "show versions, devices and cache folders",
    "demo": "train, compare, save and load CrossTune on real text in about a minute",
}
HELP = """usage: hf-labels [--version] [--debug] <command> ...

Models from labels that are noisy, crowd-sourced, few, missing, plural, skewed, pooled, softened or machine-made.

commands:
{commands}

`hf-labels <command> --help` explains a command. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
--debug shows the traceback of an error.
"""
EXPECTED = (ValueError, KeyError, TypeError, OSError, ImportError, CommandError)


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, without a page of usage."""

    def __init__(self, *args, **kwargs) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, self.prog)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv (sequence of `str`, *optional*): Arguments without the program name; `sys.argv[1:]` when not given.

    Returns:
        `int`: Exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    words, debug = _take_debug(list(sys.argv[1:] if argv is None else argv))
    notes = _show_notes()
    try:
        return _dispatch(words)
    except UsageError as error:
        _say(f"{error.command}: {error}")
        _say(f"`{error.command} --help` shows what is possible.")
        return 2
    except Interrupted as error:
        _say(f"\n{error}")
        return 130
    except KeyboardInterrupt:
        _say("\nInterrupted.")
        return 130
    except BrokenPipeError:  # `hf-labels methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except Exception as error:
        if debug:
            raise
        _say(f"hf-labels: {describe(error)}")
        return 1
    finally:
        logging.getLogger("hf_labels").removeHandler(notes)


def describe(error: BaseException) -> str:
    """One message for the user: an error of ours as it is, one of the Hub explained, others with their type."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    expected = isinstance(error, EXPECTED) and bool(text.strip())
    if expected and _raised_by_us(error):
        return text.strip()
    if "huggingface_hub" in sys.modules:
        from hf_labels.hub import explain_hub_error

        explained = explain_hub_error(error)
        if explained:
            return explained
    if expected:
        return text.strip()
    return f"unexpected {type(error).__name__}: {text.strip() or 'no message'}. Run it again with --debug for details."


def _raised_by_us(error: BaseException) -> bool:
    """Whether the last frame is code of this package: then the message is written for the user."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("hf_labels")


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        print(HELP.format(commands="\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())), end="")
        return 0 if words else 2
    if words[0] == "--version":
        print(f"hf_labels {__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"there is no command {name!r}.{hint} Commands: {', '.join(COMMANDS)}.")
    if name == "demo":
        demo = importlib.import_module("hf_labels.cli.demo")
        parser = Parser(prog="hf-labels demo", description=COMMANDS["demo"])
        demo.add_arguments(parser)
        return int(demo.run_demo(parser.parse_args(rest)) or 0)
    return int(importlib.import_module(f"hf_labels.cli.{name}").run(rest) or 0)


def _take_debug(words: list[str]) -> tuple[list[str], bool]:
    """Remove our bare `--debug`; `--debug VALUE` is an option of TrainingArguments and stays."""
    for place, word in enumerate(words):
        if word == "--debug":
            value = words[place + 1] if place + 1 < len(words) else "-"
            if value.startswith("-") or value in COMMANDS:
                return words[:place] + words[place + 1 :], True
    return words, False


def _show_notes() -> logging.Handler:
    """Warnings of this package go to stderr, from the first process only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.WARNING if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    logging.getLogger("hf_labels").addHandler(handler)
    return handler


def _say(message: str) -> None:
    """One message on stderr, from the first process only: all processes of torchrun fail the same way."""
    if os.environ.get("RANK", "0") == "0":
        print(message, file=sys.stderr, flush=True)
