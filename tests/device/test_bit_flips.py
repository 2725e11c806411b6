"""No flipped bit of a model bundle or of a journal is used unseen.

NANOTOX_LONG=1 in the environment flips 2,000 bits of each instead of 150.
"""

import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from device.errors import ModelError, StationError
from device.journal import Journal
from device.journal.read import open_read_only
from device.journal.verify import verify_journal
from device.model_card import BUNDLE_FILES, SUMS_FILE
from device.models import find_bundle

N = 2000 if os.environ.get("NANOTOX_LONG") else 150
TINY = Path(__file__).parent / "data" / "tiny-cell"
SAID = "SELECT seq, schema, hash, message, full FROM record ORDER BY seq"
NOTED = "SELECT id, ts, boot_id, kind, body FROM event ORDER BY id"


def flip(content, rng):
    flipped = bytearray(content)
    flipped[rng.integers(len(flipped))] ^= 1 << rng.integers(8)
    return bytes(flipped)


@pytest.mark.timeout(3600)
def test_no_flipped_bit_of_a_bundle_is_trusted(tmp_path):
    folder = shutil.copytree(TINY, tmp_path / "bundle")
    files = {name: (TINY / name).read_bytes() for name in (*BUNDLE_FILES, SUMS_FILE)}
    trusted = find_bundle(TINY).id.sha256
    names, rng = sorted(files), np.random.default_rng(1)
    for _ in range(N):
        name = names[rng.integers(len(names))]
        (folder / name).write_bytes(flip(files[name], rng))
        with suppress(ModelError):
            assert not find_bundle(folder, trusted=[trusted]).id.trusted, name
        (folder / name).write_bytes(files[name])
    assert find_bundle(folder, trusted=[trusted]).id.trusted


@pytest.mark.timeout(3600)
def test_no_flipped_bit_changes_what_a_journal_says_unseen(tmp_path, make_reading):
    """A bit that changes nothing that is said, such as one of free space, may pass."""
    path = tmp_path / "journal.db"
    journal = Journal(path, site="lab", station="bench-1")
    journal.note("start", config_sha256="0" * 64)
    journal.append(*(make_reading(i, field=i) for i in range(12)))
    journal.close()
    content, rng, said, n_seen = path.read_bytes(), np.random.default_rng(2), read(path), 0
    for number in range(N):
        path.write_bytes(flip(content, rng))
        try:
            with open_read_only(path) as database:
                verify_journal(database, path)
        except StationError:
            n_seen += 1
        else:
            assert read(path) == said, number
    assert n_seen > N // 4


def read(path):
    database = sqlite3.connect(path)
    try:
        return [database.execute(query).fetchall() for query in (SAID, NOTED, "SELECT ledger_id FROM ledger")]
    finally:
        database.close()
