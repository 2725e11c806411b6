"""The claim that only one function may say non_toxic, put to the type checker itself."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = """\
from dataclasses import replace
from typing import Literal

from device.records import NonToxic, Outcome, SampleVerdict, Verdict


def state(verdict: Verdict, sample: SampleVerdict, word: str, proof: object) -> object:
    # try to state non_toxic
    return {}
"""
ATTEMPTS = (
    "replace(verdict, outcome=Outcome.NON_TOXIC)",
    "replace(sample, outcome=Outcome.NON_TOXIC)",
    "replace(sample, outcomes=(Outcome.NON_TOXIC,))",
    "replace(verdict, outcome=Outcome(word))",
    "replace(verdict, outcome=Outcome[word])",
    'replace(verdict, outcome="non_toxic")',
    "NonToxic()",
    "NonToxic(word)",
    "NonToxic(proof)",
    "NonToxic(Outcome.NON_TOXIC)",
    "NonToxic(verdict)",
    "str.__new__(NonToxic)",
    'str.__new__(NonToxic, "non_toxic")',
)
ALLOWED = (
    "replace(verdict, outcome=Outcome.TOXIC)",
    "replace(sample, outcome=verdict.outcome)",
    'str(verdict.outcome) == "non_toxic"',
)


def check(tmp_path, expressions):
    """Return for each expression whether mypy refuses it, and all that it says."""
    for number, expression in enumerate(expressions):
        (tmp_path / f"attempt_{number}.py").write_text(HEAD.format(expression), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(tmp_path)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return [f"attempt_{number}.py:" in said for number in range(len(expressions))], said


def test_nothing_outside_the_verdict_passes_the_type_checker_with_non_toxic(tmp_path):
    refused, said = check(tmp_path, (*ATTEMPTS, *ALLOWED))
    assert refused == [True] * len(ATTEMPTS) + [False] * len(ALLOWED), said
