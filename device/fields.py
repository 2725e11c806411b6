"""From the words of a command line to a model, from image files to readings and plates of them."""

import argparse
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.assess import AnalysisSettings, assess
from device.analysis.grading import default_rule
from device.analysis.judgment import CellClassifier, FieldClassifier
from device.analysis.plate_state import PlateState, start
from device.analysis.quality import limits_for
from device.analysis.repeats import refuse_repeat
from device.classifier import open_cell_classifier, second_opinion
from device.errors import ConfigError, ImageError, ModelError
from device.images import read_reduced
from device.model_card import Bundle, fit_faults, settings_from_card
from device.models import DEFAULT_NAMES, default_bundle, field_bundle, find_bundle, list_bundles
from device.plates import DATASET_FILE, Plate, find_dataset_info, find_fields, scale_of
from device.records import Assay, CellClass, Frame, Modality, Reading, Scale
from device.tables import read_rule

Keep = Callable[[Path, NDArray[np.uint8], Reading], None]
"""Called with the file, its image as decoded and its reading, to write pictures; from a worker's thread."""
See = Callable[[Path, str, NDArray[np.generic]], None]
"""Called with the file, a stage's name and its picture; from a worker's thread."""


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

    @property
    def fault(self) -> str | None:
        """Why the file says nothing about its well, None if it does."""
        if self.reading is None:
            return f"unreadable: {self.error}"
        quality = self.reading.quality
        return None if quality.passed else f"refused: {', '.join(quality.refused_by)}"


class FieldReader:
    """Reads image files with one set of settings and one model, None for the paper's chain as printed.

    `second` is the field model, asked where its card lets it speak. `places` gives the scale of a folder's
    images, and whether they are simulated. `workers` images are read side by side, each with its own
    interpreters.
    """

    def __init__(
        self,
        settings: AnalysisSettings,
        bundle: Bundle | None,
        *,
        second: Bundle | None = None,
        places: dict[Path, tuple[Scale, bool]],
        workers: int,
    ) -> None:
        self.settings, self.places = settings, places
        self._workers = workers
        self._free: queue.SimpleQueue[tuple[CellClassifier | None, FieldClassifier | None]]
        self._free = queue.SimpleQueue()
        for _ in range(workers):
            cells = None if bundle is None else open_cell_classifier(bundle)
            opinion = second_opinion(second, settings.assay, settings.modality)
            self.models = tuple(model.id for model in (cells, opinion) if model is not None)
            self._free.put((cells, opinion))

    def read(
        self, files: Sequence[FieldFile], *, keep: Keep | None = None, see: See | None = None
    ) -> Iterator[FieldResult]:
        """Yield the result of each file, in their order; a field seen again in its well is refused."""
        before: Reading | None = None
        for result in self._read_all(files, keep, see):
            reading = None if result.reading is None else refuse_repeat(result.reading, before)
            before = reading if reading is not None and reading.quality.passed else before
            yield replace(result, reading=reading)

    def _read_all(
        self, files: Sequence[FieldFile], keep: Keep | None, see: See | None
    ) -> Iterator[FieldResult]:
        if self._workers == 1:
            for number, file in enumerate(files):
                yield self._read(file, number, keep, see)
            return
        cv2.setNumThreads(1)
        with ThreadPoolExecutor(self._workers) as pool:
            # few at a time: a thousand fields' pictures would not fit into memory
            waiting: deque[Future[FieldResult]] = deque()
            for number, file in enumerate(files):
                waiting.append(pool.submit(self._read, file, number, keep, see))
                if len(waiting) > 2 * self._workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _read(self, file: FieldFile, number: int, keep: Keep | None, see: See | None) -> FieldResult:
        timing_ms: dict[str, float] = {}
        last = time.perf_counter()

        def observe(stage: str, picture: NDArray[np.generic] | None) -> None:
            nonlocal last
            timing_ms[stage] = timing_ms.get(stage, 0.0) + 1e3 * (time.perf_counter() - last)
            if see is not None and picture is not None:
                see(file.path, stage, picture)
            last = time.perf_counter()  # the writing of pictures takes no part

        scale, simulated = self.places.get(file.path.parent, (None, False))
        try:
            um_per_px = None if scale is None or self.settings.exact else scale.um_per_px
            found = read_reduced(file.path, um_per_px)
        except ImageError as error:
            return FieldResult(file, None, str(error))
        observe("read", None)
        place = (file.well, file.field, simulated, found.full_size, found.tint)
        frame = Frame(found.image, datetime.now(UTC), str(file.path), number, scale, *place)
        classify, classify_field = models = self._free.get()
        try:
            reading = assess(frame, classify, self.settings, classify_field=classify_field, observe=observe)
        finally:
            self._free.put(models)
        observe("rest", None)
        timing_ms["total"] = sum(timing_ms.values())
        if keep is not None:
            keep(file.path, found.image, reading)
        return FieldResult(file, reading, None, {name: round(ms, 3) for name, ms in timing_ms.items()})


def open_reader(args: argparse.Namespace, folders: Sequence[Path]) -> FieldReader:
    """Return a reader for the images of some folders, everything checked beforehand.

    Parameters
    ----------
    args : argparse.Namespace
        With what `options.add_analysis_options` adds.
    folders : sequence of Path
        Folders that hold the images, none if there are no images; dataset.json is looked for in each and in
        its parent.

    Raises
    ------
    ConfigError
        With every fault at once: a scale that nobody states, statements that contradict each other.
    ModelError
        If no model fits, or the one named is damaged or for other images.
    """
    if not folders:
        # each file is told why it cannot be read, and no model is needed to say so
        return FieldReader(AnalysisSettings("adherent", "phase", "paper"), None, places={}, workers=1)
    infos = {folder: find_dataset_info(folder) for folder in dict.fromkeys(folders)}
    places: dict[Path, tuple[Scale, bool]] = {}
    faults: list[str] = []
    for folder, info in infos.items():
        scale = scale_of(info, args.um_per_px)
        if scale is None:
            faults.append(
                f"no scale is known for {folder}; expected --um-per-px X (micrometers a pixel of its images) "
                f"or a {DATASET_FILE} in it that states um_per_px"
            )
        else:
            places[folder] = scale, info is not None and info.simulated
    agreed = {}
    for what in ("assay", "modality"):
        said = {getattr(args, what), *(getattr(info, what) for info in infos.values() if info)} - {None}
        if len(said) > 1:
            faults.append(
                f"{what} is {' and '.join(sorted(said))} (--{what} and {DATASET_FILE}); expected one; "
                "read folders of different kinds one by one"
            )
        agreed[what] = next(iter(said), None)
    if faults:
        raise ConfigError(faults)
    settings, bundle = _settings_and_bundle(args, agreed["assay"], agreed["modality"])
    second = field_bundle(args.field_model)
    return FieldReader(settings, bundle, second=second, places=places, workers=args.workers)


def open_plate(
    args: argparse.Namespace, plate: Plate, folder: Path
) -> tuple[PlateState, FieldReader, list[FieldFile]]:
    """Return a plate without readings, what reads its images in `folder`, and these, well by well.

    `args` are those of `open_reader`, and `rule`: a name, a file, or None for the rule of the assay. Raises
    as `open_reader`, `plates.find_fields` and `tables.read_rule`.
    """
    rule = None if args.rule is None else read_rule(args.rule)
    fields = find_fields(plate, folder)
    files = [FieldFile(path, well, i) for well, paths in fields.items() for i, path in enumerate(paths)]
    reader = open_reader(args, [file.path.parent for file in files])
    settings = reader.settings
    state = start(
        plate.wells,
        rule or default_rule(settings.assay),
        plate=plate.name,
        assay=settings.assay,
        modality=settings.modality,
        method=settings.method,
    )
    return state, reader, files


def _settings_and_bundle(
    args: argparse.Namespace, assay: Assay | None, modality: Modality | None
) -> tuple[AnalysisSettings, Bundle | None]:
    if args.method == "paper" and args.model is None:
        if assay is None or modality is None:
            missing = [f"--{name}" for name, value in (("assay", assay), ("modality", modality)) if not value]
            raise ConfigError(
                f"method paper without a model does not know the images; expected {' and '.join(missing)}"
            )
        return AnalysisSettings(assay, modality, "paper", limits_for(assay, modality), exact=args.exact), None
    bundle = find_bundle(args.model) if args.model is not None else _bundle_for(assay, modality)
    faults = fit_faults(bundle.card, assay=assay, modality=modality)
    if bundle.card.kind != "cell":
        faults.append(f"{bundle.name} is a {bundle.card.kind} model; expected a cell model")
    elif args.method == "hybrid" and CellClass.OTHER not in bundle.card.classes:
        faults.append(f"model {bundle.name} does not know {CellClass.OTHER}; expected --method paper with it")
    if faults:
        raise ModelError("; ".join(faults))
    return replace(settings_from_card(bundle.card, method=args.method), exact=args.exact), bundle


def _bundle_for(assay: Assay | None, modality: Modality | None) -> Bundle:
    shipped = list_bundles()
    lit = [m for (a, m), name in DEFAULT_NAMES.items() if a == assay and name in shipped]
    if modality is None and len(lit) == 1:
        modality = lit[0]
    if assay is None or modality is None:
        unknown = "assay" if assay is None else "modality"
        raise ConfigError(
            f"the {unknown} is not known; expected --{unknown}, --model NAME, or a {DATASET_FILE} that "
            f"states it (shipped models: {', '.join(shipped) or 'none'})"
        )
    return default_bundle(assay, modality)
