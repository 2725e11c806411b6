"""What tools/check-verdicts does with a plate: write it, have `nanotox grade` judge it, count outcomes."""

import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from accuracy_reading import tell
from numpy.typing import NDArray

from device.cli import main as nanotox
from device.images import write_png
from device.plates import DatasetInfo, Plate, write_dataset_info, write_plate
from device.records import PlateWell, Scale
from training.evaluation.resampling import share_wilson

Image = NDArray[np.uint8]
Draw = Callable[[PlateWell], Iterable[Image]]
"""Gives the fields of a well."""
Judged = list[dict[str, Any]]
"""Wells or samples of role `test` as `nanotox grade --json` prints them, each with its `truth`."""
FIELDS = 10
OUTCOMES = ("toxic", "non_toxic", "inconclusive", "invalid")
RENDERED = DatasetInfo(Scale(0.65, "measured"), "phase", "rendered", "Apache-2.0", "adherent", simulated=True)
HEALTHY = 0.03
"""Share of dead cells of blanks, negative controls and the fields that are spoiled."""
CONTROLS = {"medium": ("blank", HEALTHY), "HDPE": ("negative", HEALTHY), "ZDEC": ("positive", 1.0)}


def controls(n: int = 3) -> list[PlateWell]:
    """Return so many wells of each control."""
    return [
        PlateWell(f"{sample}{i}", sample, role, None, None, i, dead_fraction=dead)
        for sample, (role, dead) in CONTROLS.items()
        for i in range(1, n + 1)
    ]


def judge(
    wells: Sequence[PlateWell], images_of: Draw, info: DatasetInfo, jobs: int, *, keep: Path | None = None
) -> tuple[Judged, Judged]:
    """Return test wells and samples of a plate of images; the new folder `keep` keeps it."""
    with TemporaryDirectory() as name:
        folder = keep or Path(name) / "plate"
        _write(folder, wells, images_of, jobs)
        write_dataset_info(folder, info)
        *verdicts, report = _grade(folder, jobs)
    if not report["controls_valid"]:
        tell(f"the controls are not valid: {', '.join(report['reasons'])}")
    truth = {well.well: well.dead_fraction for well in wells}
    judged = [verdict | {"truth": truth[verdict["well"]]} for verdict in verdicts]
    samples = [sample | {"truth": truth[sample["wells"][0]]} for sample in report["samples"]]
    tested = ([item for item in several if item["role"] == "test"] for several in (judged, samples))
    return next(tested), next(tested)


def _write(folder: Path, wells: Sequence[PlateWell], images_of: Draw, jobs: int) -> None:
    def write(well: PlateWell) -> PlateWell:
        (folder / well.well).mkdir(parents=True)
        files = []
        for number, image in enumerate(images_of(well)):
            files.append(f"{well.well}/{number:02d}.png")
            write_png(folder / files[-1], image)
        return replace(well, files=tuple(files))

    cv2.setNumThreads(1)
    written: list[PlateWell] = []
    begun = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        for well in pool.map(write, wells):
            written.append(well)
            left_s = (time.monotonic() - begun) / len(written) * (len(wells) - len(written))
            if len(written) % 10 == 0:
                tell(f"{len(written)} of {len(wells)} wells drawn, {left_s:.0f} s left")
    write_plate(folder / "plate.csv", Plate(folder.name, tuple(written)))


def _grade(folder: Path, jobs: int) -> Judged:
    """Return the lines of `nanotox grade`: its wells, then the report; RuntimeError if it fails."""
    tell(f"grading {folder}")
    out, err = io.StringIO(), io.StringIO()
    words = ["grade", folder, "--plate", folder / "plate.csv", "--json", "--workers", jobs]
    with redirect_stdout(out), redirect_stderr(err):
        code = nanotox([str(word) for word in words])
    if code not in (0, 3):
        said = err.getvalue()[-500:]
        raise RuntimeError(f"nanotox grade exits with {code} for {folder}; expected 0 or 3; it says: {said}")
    return [json.loads(line) for line in out.getvalue().splitlines()]


def share(part: int, whole: int) -> str:
    """Return a share in words, with Wilson's interval."""
    interval = share_wilson(part, whole)
    return f"{part} of {whole}" + (f" (95 % {interval.low:.4f}-{interval.high:.4f})" if interval else "")


def outcomes(items: Judged) -> list[int]:
    """Return how many items have each of `OUTCOMES`."""
    found = Counter(item["outcome"] for item in items)
    return [found[outcome] for outcome in OUTCOMES]


def reasons(items: Judged) -> str:
    """Return the most frequent reasons and how many items give them."""
    found = Counter(reason for item in items for reason in item["reasons"])
    return ", ".join(f"{reason} {n}" for reason, n in found.most_common(4))


def decided(items: Judged) -> Judged:
    """Return the items that take a side."""
    return [item for item in items if item["outcome"] in ("toxic", "non_toxic")]


def is_right(item: dict[str, Any], limit: float) -> bool:
    """Return whether an item that takes a side takes the true one."""
    return item["outcome"] == ("toxic" if item["truth"] > limit else "non_toxic")
