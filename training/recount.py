"""An archive of plates, counted and graded again: each well is a task, a plate is judged from what they say.

Images go the way of `nanotox grade`: the same reader, the same evidence, the same judgment.
"""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from device.analysis.evidence import Evidence, gather_well
from device.analysis.plate_state import PlateState, conclude, slim
from device.errors import ConfigError
from device.fields import FieldFile, FieldReader, open_plate, open_reader
from device.messages import payload
from device.messages.recompute import parse, plate_lines
from device.models import list_bundles
from device.options import add_analysis_options
from device.plates import read_plate, write_whole
from device.records import ModelId, PlateWell, Scale
from training.pool import Result, run_tasks
from training.provenance import tool_versions

RESULTS_FILE = "results.json"
VERDICTS_FILE = "verdicts.jsonl"
WELLS_FOLDER = "wells"
_SAMPLE = ("sample", "role", "dose", "dose_unit", "outcome", "grade", "reasons")
_REPORT = ("plate", "rule", "rule_sha256", "controls_valid", "reasons", "simulated", "decision_sha256")


@dataclass(frozen=True, slots=True)
class WellTask:
    """A well to be read, and all that what is seen in it depends on."""

    plan: PlateWell
    files: tuple[Path, ...]
    stamps: tuple[tuple[int, int], ...]
    """Size in bytes and time of change (ctime, ns) of each file: an image that was replaced, or made
    readable, is read again."""
    places: tuple[tuple[Path, Scale, bool], ...]
    """What is said of the folders of images: their scale, and whether they are simulated."""
    options: Mapping[str, Any]
    """Those of `fields.open_reader`."""
    models: tuple[ModelId, ...]
    made_with: Mapping[str, str]
    """Versions of nanotox and the libraries: another one may count otherwise."""


def recount(
    archive: Path,
    plate: Path,
    out: Path,
    args: argparse.Namespace,
    *,
    workers: int = 0,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Return what RESULTS_FILE in `out` says of all plates; VERDICTS_FILE holds what `grade --json` prints.

    Parameters
    ----------
    archive : Path
        Folder of the images of one plate, or of one such folder a plate.
    plate : Path
        The plate.csv of the one plate; else its name in `archive` itself or in each folder.
    out : Path
        Folder to write, made if missing; wells that were finished in it before are not read again.
    args : argparse.Namespace
        Those of `fields.open_plate`.
    workers, scheduler
        As for `pool.run_tasks`; workers of a cluster must see the images under the same paths.

    Raises
    ------
    ConfigError
        If there is no plate, a plate or its images are not as they should be, with every fault of all plates,
        or as `run_tasks`.
    ModelError
        If the model is unknown, damaged or for other images.
    """
    opened = _open_all(archive, plate, args)
    tasks = {f"{state.plate}/{well}": task for state, _, wells in opened for well, task in wells.items()}
    seen = run_tasks(tasks, read_well, folder=out / WELLS_FOLDER, workers=workers, scheduler=scheduler)
    lines: list[dict[str, Any]] = []
    plates: list[dict[str, Any]] = []
    for state, folder, _ in opened:
        wells = [seen[f"{state.plate}/{well.well}"] for well in state.wells]
        judged = plate_lines(*conclude(state, [parse(Evidence, well["evidence"]) for well in wells]))
        lines += judged
        plates.append(_summary(judged, wells, folder))
    models = dict.fromkeys(model for task in tasks.values() for model in task.models)
    results = {
        "archive": str(archive),
        "options": _options(args),
        "models": [payload(model) for model in models],
        "made_with": tool_versions(),
        "plates": plates,
    }
    write_whole(out / VERDICTS_FILE, [json.dumps(line, allow_nan=False) + "\n" for line in lines])
    write_whole(out / RESULTS_FILE, [json.dumps(results, indent=2, allow_nan=False), "\n"])
    return results


def find_plates(archive: Path, plate: Path) -> list[tuple[Path, Path, str | None]]:
    """Return each plate's table, folder of images and name, None for that of its table; ConfigError if none.

    The folders of an archive are gone through by name.
    """
    if not archive.is_dir():
        raise ConfigError(f"{archive} is no folder; expected the images of a plate, or a folder a plate")
    if plate.is_file():
        return [(plate, archive, None)]
    if plate.name == str(plate):
        if (archive / plate).is_file():
            return [(archive / plate, archive, None)]
        if found := sorted(archive.glob(f"*/{plate}")):
            return [(file, file.parent, file.parent.name) for file in found]
    raise ConfigError(
        f"{plate} is no file, nor the name of one in {archive} or the folders in it; "
        "expected a plate.csv with the wells and their images"
    )


def read_well(task: WellTask) -> Result:
    """Return the evidence of a well as a payload, and what each file that says nothing lacks.

    ConfigError if a file is not the one that the task was made of: on a cluster's worker it may be missing.
    """
    unlike = [path for path, stamp in zip(task.files, task.stamps, strict=True) if _stamp(path) != stamp]
    if unlike:
        raise ConfigError(f"{unlike[0]} is missing here or changed meanwhile; expected it as it was found")
    cv2.setNumThreads(1)  # wells are read side by side
    files = [FieldFile(path, task.plan.well, i) for i, path in enumerate(task.files)]
    args = argparse.Namespace(**task.options, workers=1)
    reader = open_reader(args, [path.parent for path in task.files])
    readings, faults = [], []
    for result in reader.read(files):
        if result.reading is not None:
            readings.append(slim(result.reading))
        if result.fault is not None:
            faults.append((str(result.file.path), result.fault))
    how = reader.settings
    evidence = gather_well(task.plan, readings, assay=how.assay, modality=how.modality, method=how.method)
    return {"evidence": payload(evidence), "faults": faults, "n_files": len(files)}


def _open_all(
    archive: Path, plate: Path, args: argparse.Namespace
) -> list[tuple[PlateState, Path, dict[str, WellTask]]]:
    """Return each plate without readings, its folder, and the task of each of its wells."""
    args = argparse.Namespace(**{**vars(args), "workers": 1, "model": _everywhere(args.model)})
    opened = []
    faults: list[str] = []
    for file, folder, name in find_plates(archive, plate):
        try:
            state, reader, files = open_plate(args, read_plate(file, name=name), folder.resolve())
        except ConfigError as error:
            faults += error.faults
            continue
        wells = {plan.well: _task(plan, reader, files, args) for plan in state.wells}
        opened.append((state, folder.resolve(), wells))
    if faults:
        raise ConfigError(faults)
    return opened


def _task(
    plan: PlateWell, reader: FieldReader, files: Sequence[FieldFile], args: argparse.Namespace
) -> WellTask:
    paths = tuple(file.path for file in files if file.well == plan.well)
    places = tuple((place, *reader.places[place]) for place in dict.fromkeys(path.parent for path in paths))
    stamps = tuple(map(_stamp, paths))
    return WellTask(plan, paths, stamps, places, _options(args), reader.models, tool_versions())


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_ctime_ns


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Return those of `args` that say how images are read."""
    parser = argparse.ArgumentParser()
    add_analysis_options(parser)
    return {name: getattr(args, name) for name in vars(parser.parse_args([])) if name != "workers"}


def _everywhere(model: str) -> str:
    """Return a model's name or folder so that it means the same in any working folder."""
    return model if model in list_bundles() or not Path(model).is_dir() else str(Path(model).resolve())


def _summary(judged: list[dict[str, Any]], wells: list[Result], folder: Path) -> dict[str, Any]:
    *verdicts, whole = judged
    return {
        **{name: whole[name] for name in _REPORT},
        "n_wells": len(wells),
        "n_files": sum(well["n_files"] for well in wells),
        "outcomes": dict(sorted(Counter(verdict["outcome"] for verdict in verdicts).items())),
        "samples": [{name: sample[name] for name in _SAMPLE} for sample in whole["samples"]],
        "faults": [
            (str(Path(file).relative_to(folder)), fault) for well in wells for file, fault in well["faults"]
        ],
    }
