"""The command line as a whole: help, errors, exit codes."""

import argparse
import importlib
import os
import resource
import subprocess
import sys
from typing import get_args

import pytest

from device import cli, options
from device.errors import ConfigError, ImageError, ModelError
from device.records import Assay, Method, Modality


def parsers(parser, path):
    found = [(path, parser)]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                found += parsers(sub, f"{path} {name}")
    return found


@pytest.mark.parametrize(("path", "parser"), parsers(cli.make_parser(), "nanotox"))
def test_every_command_has_help_with_an_example(path, parser):
    assert f"Example: {path} " in (parser.epilog or "") or path == "nanotox"
    assert "Example: nanotox" in parser.format_help().replace("\n", " ")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_imports_the_standard_library_only(name):
    module = importlib.import_module(f"device.cli.{name}")
    assert callable(module.add_parser)


def test_choices_are_those_of_the_records():
    assert get_args(Assay) == options.ASSAYS
    assert get_args(Modality) == options.MODALITIES
    assert get_args(Method) == options.METHODS


def test_help_comes_quickly():
    def cpu_s():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    start = cpu_s()
    subprocess.run([sys.executable, "-m", "device.cli", "--help"], check=True, capture_output=True)
    # about 0.1 s; processor time, because the machine may be busy with other things
    assert cpu_s() - start < 0.4


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("nanotox ")


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["model"], ["model", "verify"]])
def test_wrong_usage_is_exit_2(argv, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(argv)
    assert left.value.code == 2
    assert "usage: nanotox" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(["a is 1; expected 2", "b is 3; expected 4"]), 2),
        (ModelError("m"), 2),
        (ImageError("i"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_are_one_line_and_an_exit_code(error, code, monkeypatch, capsys):
    def run(_):
        raise error

    monkeypatch.setattr("device.cli.model.run_list", run)
    assert cli.main(["model", "list"]) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("nanotox: ")


def test_a_reader_that_goes_away_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "device.cli", "model", "list"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
