"""What a station measures with: models, rule and plate, opened and checked before the camera."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from device.analysis import plate_state
from device.analysis.assess import AnalysisSettings
from device.analysis.grading import RULES, Rule, default_rule
from device.analysis.judgment import CellClassifier, FieldClassifier
from device.analysis.plate_state import PlateState
from device.baseline import qc_file, read_qc, with_baseline
from device.calibration import in_use, station_scale
from device.cameras import camera_settings
from device.classifier import open_cell_classifier, second_opinion
from device.config import Config, read_config
from device.errors import ConfigError
from device.journal import Journal
from device.messages import LEAVES, Calibrated, Info
from device.model_card import Bundle, settings_from_card
from device.models import default_bundle, field_bundle, find_bundle
from device.plates import Plate, read_plate
from device.publishers import publisher_settings
from device.station.activation import Activation, active_bundle, check_fit, try_bundle
from device.tables import read_rule

log = logging.getLogger(__name__)


def load_config(path: Path, text: str | None = None) -> Config:
    """Return what station.toml, or `text` in its place, says; ConfigError with every fault, options too."""
    return read_config(
        path, camera_settings=camera_settings, publisher_settings=publisher_settings, text=text
    )


@dataclass(frozen=True, slots=True)
class Instruments:
    """What a station measures with, opened and checked."""

    settings: AnalysisSettings
    classify: CellClassifier
    classify_field: FieldClassifier | None
    rule: Rule
    plate: Plate | None


def open_instruments(config: Config, activations: Sequence[Activation] | None = None) -> Instruments:
    """Open models and plate as the configuration names them, with the baseline that the station has learned.

    `activations` stand in place of those that the station keeps.

    Raises
    ------
    ConfigError
        If the rule is unknown, plate.csv has faults, or the baseline is damaged or of another assay.
    ModelError
        If a model is missing, damaged, or made for another assay or modality.
    """
    station, model = config.station, config.model
    rule, plate = check_files(config)
    bundle, second = choose_bundles(config, activations)
    settings = settings_from_card(bundle.card, method=station.method)
    settings = with_baseline(settings, read_qc(qc_file(config), station.assay, station.modality))
    for unknown in (bundle, second):
        if unknown is not None and not unknown.id.trusted:
            try_bundle(unknown.folder, unknown.id.sha256)  # its bytes may crash whoever loads them
    classify = open_cell_classifier(check_fit(config, bundle), num_threads=model.threads)
    classify_field = second_opinion(second, station.assay, station.modality, num_threads=model.threads)
    if second is not None and classify_field is None:
        log.info("field model %s abstains on %s %s by its card", second.name, station.assay, station.modality)
    return Instruments(settings, classify, classify_field, rule, plate)


def choose_bundles(
    config: Config, activations: Sequence[Activation] | None = None
) -> tuple[Bundle, Bundle | None]:
    """Return the cell model that a station uses from its next start on, and the field model, if any.

    A name in station.toml goes before what was activated, and that before the shipped ones; `activations`
    stand in place of those that are kept. ModelError if one is missing or damaged.
    """
    station, model = config.station, config.model
    if model.cell_model is not None:
        bundle = find_bundle(model_place(config, model.cell_model), trusted=model.trusted)
    else:
        bundle = active_bundle(config, "cell", activations) or default_bundle(
            station.assay, station.modality, trusted=model.trusted
        )
    if model.field_model is not None:
        return bundle, field_bundle(model_place(config, model.field_model), trusted=model.trusted)
    return bundle, active_bundle(config, "field", activations) or field_bundle(None, trusted=model.trusted)


def model_place(config: Config, name: str) -> str | Path:
    """Return the folder beside station.toml that a model's name means, else the name."""
    beside = config.path.parent / name
    return beside if beside.is_dir() else name


def open_plate(
    config: Config, rule: Rule, plate: Plate | None, operator: str | None, *, live: bool
) -> PlateState | None:
    """Return the state of a plate without fields; without a plate a live camera rolls, any other has none."""
    section = config.station
    if plate is not None:
        return plate_state.start(
            plate.wells,
            rule,
            plate=plate.name,
            assay=section.assay,
            modality=section.modality,
            method=section.method,
            operator=operator,
            live=live,
        )
    if not live:
        return None
    return plate_state.start_live(rule, assay=section.assay, modality=section.modality, method=section.method)


def make_info(config: Config, tools: Instruments, journal: Journal, version: str) -> Info:
    """Return the birth message of a station of `version`."""
    section, second = config.station, tools.classify_field
    scale = station_scale(config)
    return Info(
        schema="info/1",
        site=section.site,
        station=section.name,
        boot_id=journal.boot_id,
        ledger_id=journal.ledger_id,
        version=version,
        started_at=datetime.now(UTC),
        assay=section.assay,
        modality=section.modality,
        method=section.method,
        cell_model=tools.classify.id,
        field_model=second.id if second is not None else None,
        rule=tools.rule.id,
        camera=config.camera.kind,
        um_per_px=scale.um_per_px,
        um_per_px_source=scale.source,
        config_sha256=config.sha256,
        capabilities=tuple(LEAVES.values()),
        calibrations=tuple(Calibrated(r.id, r.kind, r.at, r.value, r.uncertainty) for r in in_use(config)),
    )


def check_files(config: Config) -> tuple[Rule, Plate | None]:
    """Return the rule and the plate that the configuration names; ConfigError with all faults of both."""
    faults, plate, section = [], None, config.rule
    rule = default_rule(config.station.assay)
    try:
        if section.id is not None and section.id not in RULES:
            expected = ", ".join(RULES)
            faults.append(f"rule.id is {section.id!r}; expected one of {expected} ({config.path.name})")
        elif (named := section.id or section.file) is not None:
            rule = read_rule(named)
    except ConfigError as error:
        faults += error.faults
    if config.plate.file is not None:
        try:
            plate = read_plate(config.plate.file)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return rule, plate
