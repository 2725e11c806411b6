"""From the words of a command line to a model, from image files to readings: for `count` and `grade`."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.assess import AnalysisSettings, CellClassifier, assess
from device.classifier import open_cell_classifier
from device.errors import ConfigError, ImageError, ModelError
from device.images import read_gray
from device.model_card import Bundle, fit_faults, settings_from_card
from device.models import DEFAULT_NAMES, default_bundle, find_bundle, list_bundles
from device.plates import DATASET_FILE, DatasetInfo, read_dataset_info, scale_of
from device.records import Assay, CellClass, Frame, Method, Modality, Reading, Scale

Keep = Callable[[Path, NDArray[np.uint8], Reading], None]
"""Called with the file, its image and its reading, to write pictures; from a worker's thread."""
See = Callable[[Path, str, NDArray[np.generic]], None]
"""Called with the file, a stage's name and its picture; from a worker's thread."""

_Word = TypeVar("_Word", bound=str)


@dataclass(frozen=True, slots=True)
class FieldFile:
    """One image file and the place it shows."""

    path: Path
    well: str | None = None
    field: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FieldResult:
    """What became of one file: a reading, or why there is none."""

    file: FieldFile
    reading: Reading | None
    error: str | None
    timing_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """What a command line says of how to read images; None where it says nothing."""

    um_per_px: float | None
    assay: Assay | None
    modality: Modality | None
    model: str | None
    method: Method
    workers: int = 1


class FieldReader:
    """Reads image files with one model and one set of settings, in the order given.

    Parameters
    ----------
    settings : AnalysisSettings
        How each field is read.
    bundle : Bundle or None
        Cell model; None for the paper's chain as printed.
    scales : dict of Path to Scale
        By folder of the image.
    simulated : set of Path
        Folders of rendered images.
    workers : int
        Images read side by side, each with its own interpreter.
    """

    def __init__(
        self,
        settings: AnalysisSettings,
        bundle: Bundle | None,
        *,
        scales: dict[Path, Scale],
        simulated: set[Path],
        workers: int,
    ) -> None:
        self.settings, self.bundle = settings, bundle
        self._scales, self._simulated, self._workers = scales, simulated, workers
        self._local = threading.local()
        # an unfit model or runtime is said at once, not with the first image
        self._first: CellClassifier | None = self._open()

    def _open(self) -> CellClassifier | None:
        return None if self.bundle is None else open_cell_classifier(self.bundle)

    def read(
        self, files: Sequence[FieldFile], *, keep: Keep | None = None, see: See | None = None
    ) -> Iterator[FieldResult]:
        """Yield the result of each file, in the order of `files`."""
        if self._workers == 1:
            for number, file in enumerate(files):
                yield self._read(file, number, self._first, keep, see)
            return
        cv2.setNumThreads(1)
        with ThreadPoolExecutor(self._workers, initializer=self._open_in_thread) as pool:
            # few at a time: a thousand fields' pictures would not fit into memory
            waiting: deque[Future[FieldResult]] = deque()
            for number, file in enumerate(files):
                waiting.append(pool.submit(self._read_in_thread, file, number, keep, see))
                if len(waiting) > 2 * self._workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _open_in_thread(self) -> None:
        self._local.classify = self._open()

    def _read_in_thread(
        self, file: FieldFile, number: int, keep: Keep | None, see: See | None
    ) -> FieldResult:
        return self._read(file, number, self._local.classify, keep, see)

    def _read(
        self,
        file: FieldFile,
        number: int,
        classify: CellClassifier | None,
        keep: Keep | None,
        see: See | None,
    ) -> FieldResult:
        watch = _Stopwatch(file.path, see)
        try:
            image = read_gray(file.path)
        except ImageError as error:
            return FieldResult(file, None, str(error))
        watch("read", None)
        folder = file.path.parent
        frame = Frame(
            image=image,
            taken_at=datetime.now(UTC),
            source=str(file.path),
            sequence=number,
            scale=self._scales.get(folder),
            well=file.well,
            field=file.field,
            simulated=folder in self._simulated,
        )
        reading = assess(frame, classify, self.settings, observe=watch)
        timing_ms = watch.finish()
        if keep is not None:
            keep(file.path, image, reading)
        return FieldResult(file, reading, None, timing_ms)


class _Stopwatch:
    """Takes the time between stages, leaving out what is spent on writing their pictures."""

    def __init__(self, path: Path, see: See | None) -> None:
        self._path, self._see = path, see
        self._timing_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, stage: str, picture: NDArray[np.generic] | None) -> None:
        spent = 1e3 * (time.perf_counter() - self._last)
        self._timing_ms[stage] = self._timing_ms.get(stage, 0.0) + spent
        if self._see is not None and picture is not None:
            self._see(self._path, stage, picture)
        self._last = time.perf_counter()

    def finish(self) -> dict[str, float]:
        """Return milliseconds by stage, and their `total`."""
        self("rest", None)
        total = sum(self._timing_ms.values())
        return {name: round(value, 3) for name, value in {**self._timing_ms, "total": total}.items()}


def open_reader(request: Request, folders: Sequence[Path]) -> FieldReader:
    """Return a reader for the images of some folders, everything checked beforehand.

    Parameters
    ----------
    request : Request
        What the command line says.
    folders : sequence of Path
        Folders that hold the images; dataset.json is looked for in each and in its parent.

    Raises
    ------
    ConfigError
        With every fault at once: a scale that nobody states, statements that contradict each other.
    ModelError
        If no model fits, or the one named is damaged or for other images.
    """
    infos = {folder: find_dataset_info(folder) for folder in dict.fromkeys(folders)}
    scales = {folder: scale_of(info, request.um_per_px) for folder, info in infos.items()}
    faults = [
        f"no scale is known for {folder}; expected --um-per-px X (micrometers a pixel of its images) or a "
        f"{DATASET_FILE} in it that states um_per_px"
        for folder, scale in scales.items()
        if scale is None
    ]
    assay = _agreed(
        "assay", request.assay, {info.assay for info in infos.values() if info and info.assay}, faults
    )
    modality = _agreed(
        "modality", request.modality, {info.modality for info in infos.values() if info}, faults
    )
    if faults:
        raise ConfigError(faults)
    settings, bundle = _settings_and_bundle(request, assay, modality)
    return FieldReader(
        settings,
        bundle,
        scales={folder: scale for folder, scale in scales.items() if scale is not None},
        simulated={folder for folder, info in infos.items() if info is not None and info.simulated},
        workers=request.workers,
    )


def explain_unreadable(files: Sequence[FieldFile]) -> Iterator[FieldResult]:
    """Yield why each of some files cannot be read; for when none can, and no model is needed to say so."""
    for file in files:
        try:
            read_gray(file.path)
        except ImageError as error:
            yield FieldResult(file, None, str(error))


def find_dataset_info(folder: Path) -> DatasetInfo | None:
    """Return what dataset.json of a folder, else of its parent, says; None where there is none."""
    for place in (folder, folder.resolve().parent):
        if (place / DATASET_FILE).is_file():
            return read_dataset_info(place)
    return None


def _agreed(what: str, option: _Word | None, stated: set[_Word], faults: list[str]) -> _Word | None:
    said = stated | ({option} if option is not None else set())
    if len(said) > 1:
        faults.append(
            f"{what} is {' and '.join(sorted(said))} (--{what} and {DATASET_FILE}); expected one; "
            "read folders of different kinds one by one"
        )
    return next(iter(said), None)


def _settings_and_bundle(
    request: Request, assay: Assay | None, modality: Modality | None
) -> tuple[AnalysisSettings, Bundle | None]:
    if request.method == "paper" and request.model is None:
        if assay is None or modality is None:
            missing = " and ".join(
                f"--{name}" for name, value in (("assay", assay), ("modality", modality)) if not value
            )
            raise ConfigError(f"method paper without a model does not know the images; expected {missing}")
        return AnalysisSettings(assay, modality, "paper"), None
    bundle = find_bundle(request.model) if request.model is not None else _bundle_for(assay, modality)
    faults = fit_faults(bundle.card, assay=assay, modality=modality)
    if bundle.card.kind != "cell":
        faults.append(f"{bundle.name} is a {bundle.card.kind} model; expected a cell model")
    elif request.method == "hybrid" and CellClass.OTHER.value not in bundle.card.classes:
        faults.append(
            f"model {bundle.name} does not know {CellClass.OTHER.value}; expected --method paper with it"
        )
    if faults:
        raise ModelError("; ".join(faults))
    return settings_from_card(bundle.card, method=request.method), bundle


def _bundle_for(assay: Assay | None, modality: Modality | None) -> Bundle:
    shipped = list_bundles()
    fitting = [
        kind
        for kind, name in DEFAULT_NAMES.items()
        if name in shipped and assay in (None, kind[0]) and modality in (None, kind[1])
    ]
    if assay is None or (modality is None and len(fitting) != 1):
        unknown = "assay" if assay is None else "modality"
        raise ConfigError(
            f"the {unknown} is not known; expected --{unknown}, --model NAME, or a {DATASET_FILE} that "
            f"states it (shipped models: {', '.join(shipped) or 'none'})"
        )
    return default_bundle(assay, modality or fitting[0][1])
