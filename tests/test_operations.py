"""docs/operations.md explains all that a station can say to the person who keeps it."""

import re
from pathlib import Path

from device import cli
from device.station.health import CONDITIONS

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "operations.md").read_text()


def rows(heading):
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `?(\w+)`? \|", section, re.MULTILINE)


def test_every_alert_is_explained_and_no_other():
    assert set(rows("Alerts")) - {"code"} == set(CONDITIONS)


def test_every_exit_status_is_explained_and_no_other():
    codes = {cli.DONE, cli.FAILED, cli.USAGE, cli.REFUSED, cli.TOXIC, cli.INTERRUPTED}
    assert set(rows("Exit statuses")) - {"status"} == {str(code) for code in codes}
