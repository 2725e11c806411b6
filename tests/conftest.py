"""What tests of both halves need: a station that kept its frames."""

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# a busy machine is no fault of the code
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

CONFIG = f"""
[station]
site = "lab"
name = "bench-1"
assay = "adherent"
modality = "phase"
[scale]
um_per_px = 0.65
[camera]
kind = "folder"
path = "."
[plate]
file = "plate.csv"
[frames]
keep = true
[publisher]
kind = "jsonl"
[model]
cell_model = "{Path(__file__).parents[1] / "models" / "phase-cell"}"
"""


@pytest.fixture(scope="session")
def keep_frames():
    """A function that runs a station over the images of a folder; it leaves journal, frames, station.toml."""
    from device.station import Station, load_config

    def run(folder, rows):
        (folder / "plate.csv").write_text("\n".join(["file,well,sample,role", *rows]) + "\n")
        (folder / "station.toml").write_text(CONFIG)
        Station(load_config(folder / "station.toml"), version="9.9").run(threading.Event())

    return run
