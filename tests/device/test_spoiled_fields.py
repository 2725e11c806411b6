"""The claim that no well of spoiled fields passes, put to the gate by `nanotox grade` itself."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
KINDS = {"blur", "black", "saturated", "noise", "tint", "bubble"}


def test_no_well_of_spoiled_fields_is_non_toxic():
    command = [sys.executable, ROOT / "tools" / "check-verdicts", "corrupted", "--n", "120"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    rows = re.findall(r"\| (\w+) [45] \| (\d+) of (\d+) .*?\| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", said)
    assert len(rows) == 12, said
    assert {kind for kind, *_ in rows} == KINDS
    for _, refused, fields, *outcomes in rows:
        toxic, non_toxic, inconclusive, invalid = map(int, outcomes)
        assert toxic + inconclusive + invalid + non_toxic == 1
        assert (toxic, non_toxic) == (0, 0), said
        assert int(refused) >= 0.95 * int(fields), said
