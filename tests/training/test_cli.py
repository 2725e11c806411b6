"""nanotox-train: help without TensorFlow, one line for each mistake."""

import subprocess
import sys

import pytest

from training.cli import COMMANDS, main


def test_help_imports_no_tensorflow():
    code = (
        "import sys, training.cli as c; c.make_parser().format_help(); sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "command", [[name] for name in COMMANDS if name != "data"] + [["data", "import"], ["data", "check"]]
)
def test_each_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    assert "Example: nanotox-train" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "nowhere", "--out", "x"],
        ["export", "nowhere", "--out", "x", "--int8"],
        ["evaluate", "nowhere", "nowhere"],
        ["parity", "nowhere", "nowhere"],
        ["paper", "nowhere", "--out", "x", "--smoke"],
    ],
)
def test_a_missing_folder_is_one_line_and_exit_2(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("nanotox-train: error: ")
    assert message.count("\n") == 1
    assert "nowhere" in message


@pytest.mark.parametrize(
    ("interrupt", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "interrupted; run the same command again: it gives the same numbers"),
        (KeyboardInterrupt("3 tasks are kept"), 1, "interrupted: 3 tasks are kept"),
    ],
)
def test_ctrl_c_is_one_line(monkeypatch, capsys, interrupt, code, told):
    def stop(_args):
        raise interrupt

    monkeypatch.setattr("training.cli.evaluate.run", stop)
    assert main(["evaluate", "a", "b"]) == code
    assert capsys.readouterr().err == f"nanotox-train: {told}\n"
