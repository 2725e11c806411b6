"""The command `nanotox-train`: one file a command, found from the tuple `COMMANDS`.

A command's module defines `add_parser(commands)` and `run(args) -> exit code`; at its top it imports the
standard library only, so that `--help` is instant: TensorFlow alone takes ten seconds.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import TypeAlias

from device.errors import StationError

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  argparse gives it no public name
"""What `add_parser` of a command's module gets."""
COMMANDS = ("data", "fit", "gan", "cotrain", "experiment", "export", "parity", "evaluate", "paper")
"""Modules of this package that are commands, in the order of `--help`."""

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: done; a gate that did not pass, or Ctrl-C in a run that the same command goes on with; anything
found that cannot be worked with; any other Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process if None.
    """
    args = make_parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no notes about missing GPUs
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except StationError as error:
        print(f"nanotox-train: error: {error.in_one_line()}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt as stop:
        told = f": {stop}" if stop.args else ""
        print(f"nanotox-train: interrupted{told}", file=sys.stderr)
        return FAILED if told else INTERRUPTED
    return code


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each stores its `run` in the arguments."""
    parser = argparse.ArgumentParser(
        prog="nanotox-train",
        description="Import images, fit networks, generate, co-train, export. For research use only.",
        epilog="Example: nanotox-train fit DIR --out RUN; nanotox-train export RUN --out models/NAME --int8",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"training.cli.{name}").add_parser(commands)
    return parser


def show_progress(line: str) -> None:
    """Print one line of progress to stderr."""
    print(line, file=sys.stderr, flush=True)
