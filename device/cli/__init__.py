"""The command `nanotox`: one file a command, found from the tuple `COMMANDS`.

A command's module defines `add_parser(commands)` and `run(args) -> exit code`; at its top it imports the
standard library only, so that `nanotox --help` is quick and no command pays for another's libraries.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from device.errors import ConfigError, ModelError, StationError

COMMANDS = (
    *("count", "grade", "report", "export", "audit", "run", "plate", "phantom", "config", "model", "schema"),
    *("demo", "bench", "qc", "calibrate", "doctor", "dataset", "replay", "collect", "dashboard", "simulate"),
)
"""Modules of this package that are commands, in the order of `--help`."""

DONE, FAILED, USAGE, REFUSED, TOXIC, INTERRUPTED = 0, 1, 2, 3, 4, 130
"""Exit codes: done; anything else or a file that could not be read; usage or configuration; some file refused
by the quality gate; toxic with `--fail-on toxic`; Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; None takes the arguments of the process."""
    # numpy's second thread would spin beside the first at every start and after each small product
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    words = sys.argv[1:] if argv is None else argv
    # the parser of the command alone where one is named: a station that starts again is waited for
    args = make_parser(*[word for word in words[:1] if word in COMMANDS]).parse_args(words)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except StationError as error:
        print(f"nanotox: error: {error.in_one_line()}", file=sys.stderr)
        return USAGE if isinstance(error, ConfigError | ModelError) else FAILED
    except KeyboardInterrupt:
        print("nanotox: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (such as `head`) is gone; a write at exit would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def make_parser(*names: str) -> argparse.ArgumentParser:
    """Return the parser of some commands, of all if none is named; each stores its `run` in the arguments."""
    parser = argparse.ArgumentParser(
        prog="nanotox",
        description="Count live and dead cells, grade wells, run the station. For research use only.",
        epilog="Example: nanotox count field.png --um-per-px 0.65 --model phase-cell",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"nanotox {installed_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in names or COMMANDS:
        importlib.import_module(f"device.cli.{name}").add_parser(commands)
    return parser


def installed_version() -> str:
    """Return the version of the installed distribution, or `unknown` where it runs from a bare folder."""
    try:
        return version("nanotox")
    except PackageNotFoundError:
        return "unknown"
