"""The bundle store: finds a model by name or folder, verifies its checksums, and says whether it is trusted.

Shipped bundles lie in `models/` of a checkout and in `device/bundles/` of an installed wheel. Nothing of a
bundle is parsed before its SHA-256 was compared: a cut-off model crashes tflite-runtime.
"""

import hashlib
import io
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np

from device.errors import ModelError
from device.model_card import (
    BUNDLE_FILES,
    CARD_FILE,
    GOLDEN_FILE,
    MODEL_FILE,
    SUMS_FILE,
    Bundle,
    Card,
    Golden,
    card_text,
    read_card,
)
from device.plates import file_sha256
from device.records import Assay, Modality, ModelId

TRUST_FILE = "TRUSTED"
DEFAULT_NAMES: Mapping[tuple[Assay, Modality], str] = {
    ("adherent", "phase"): "phase-cell",
    ("adherent", "brightfield"): "brightfield-cell",
    ("suspension", "brightfield"): "chamber-cell",
}
"""Cell model taken where none is named."""
DEFAULT_FIELD, NO_FIELD = "field", "none"
"""Field model taken where none is named, and the word for doing without."""
_SHA256 = re.compile("[0-9a-f]{64}")


def bundles_folder() -> Path:
    """Return the folder of the shipped bundles: the wheel's `device/bundles` or the checkout's `models`."""
    package = Path(__file__).resolve().parent
    installed = package / "bundles"
    return installed if installed.is_dir() else package.parent / "models"


def list_bundles() -> list[str]:
    """Return the names of the shipped bundles, sorted."""
    return sorted(path.parent.name for path in bundles_folder().glob(f"*/{CARD_FILE}"))


def find_bundle(name_or_dir: str | Path, *, trusted: Iterable[str] = ()) -> Bundle:
    """Return the shipped bundle of that name, else the one in that folder, verified by its checksums.

    `trusted` are SHA-256 of SHA256SUMS files that are trusted beside those of the shipped list.

    Raises
    ------
    ModelError
        If it is missing, incomplete, damaged, or its card has faults.
    """
    folder = Path(name_or_dir)
    shipped = bundles_folder() / name_or_dir
    if isinstance(name_or_dir, str) and "/" not in name_or_dir and (shipped / CARD_FILE).is_file():
        folder = shipped
    if not folder.is_dir():
        names = ", ".join(list_bundles()) or "none"
        raise ModelError(
            f"no model {str(name_or_dir)!r}; expected the folder of a bundle or a shipped name ({names})"
        )
    return _read_bundle(folder, {*trusted, *read_trust_list(bundles_folder() / TRUST_FILE)})


def default_bundle(assay: Assay, modality: Modality, *, trusted: Iterable[str] = ()) -> Bundle:
    """Return the shipped cell model for an assay and modality.

    Raises
    ------
    ModelError
        If no shipped model fits.
    """
    name = DEFAULT_NAMES.get((assay, modality))
    if name is None or name not in list_bundles():
        fits = ", ".join(f"{a} {m}" for (a, m), n in DEFAULT_NAMES.items() if n in list_bundles()) or "none"
        raise ModelError(
            f"no model is shipped for assay {assay} in {modality}; expected one of: {fits}; "
            "or name a bundle of your own with --model (model.cell_model in station.toml)"
        )
    return find_bundle(name, trusted=trusted)


def field_bundle(name_or_dir: str | Path | None, *, trusted: Iterable[str] = ()) -> Bundle | None:
    """Return the field model that is asked for: None is the shipped one, `none` does without.

    Raises
    ------
    ModelError
        As `find_bundle`, or if the model is one of cells.
    """
    if name_or_dir == NO_FIELD or (name_or_dir is None and DEFAULT_FIELD not in list_bundles()):
        return None
    bundle = find_bundle(name_or_dir or DEFAULT_FIELD, trusted=trusted)
    if bundle.card.kind != "field":
        raise ModelError(
            f"{bundle.name} is a {bundle.card.kind} model; expected a field model, or {NO_FIELD!r} to do "
            "without"
        )
    return bundle


def write_bundle(folder: Path, *, card: Card, model: bytes, golden: Golden) -> str:
    """Write a bundle folder and return the SHA-256 of its SHA256SUMS, which a trust list names.

    The folder is made if missing; files of an earlier bundle in it are replaced, the checksums last.

    Raises
    ------
    ModelError
        If the card could not be read back.
    """
    text = card_text(card)
    read_card(text, str(folder / CARD_FILE))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(model)
    (folder / CARD_FILE).write_text(text, encoding="utf-8")
    arrays = {item.name: getattr(golden, item.name) for item in fields(Golden)}
    with (folder / GOLDEN_FILE).open("wb") as file:
        np.savez_compressed(file, **{name: array for name, array in arrays.items() if array is not None})
    sums = "".join(f"{file_sha256(folder / name)}  {name}\n" for name in BUNDLE_FILES)
    (folder / SUMS_FILE).write_text(sums, encoding="ascii")
    return hashlib.sha256(sums.encode("ascii")).hexdigest()


def read_trust_list(path: Path) -> frozenset[str]:
    """Return the checksums that a trust list names: one SHA-256 a line, then a name; `#` starts a comment.

    A missing file is an empty list.

    Raises
    ------
    ModelError
        If a line does not start with a SHA-256.
    """
    if not path.is_file():
        return frozenset()
    sums = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if words and not _SHA256.fullmatch(words[0]):
            raise ModelError(
                f"{path} line {number} starts with {words[0]!r}; expected a SHA-256 of 64 hex digits"
            )
        sums.update(words[:1])
    return frozenset(sums)


def _read_bundle(folder: Path, trusted: set[str]) -> Bundle:
    contents, sha256 = _verified_files(folder)
    card = read_card(contents[CARD_FILE], str(folder / CARD_FILE))
    golden = _read_golden(contents[GOLDEN_FILE], folder / GOLDEN_FILE, card)
    model = contents[MODEL_FILE]
    if model[4:8] != b"TFL3":
        raise ModelError(f"{folder / MODEL_FILE} is no TFLite model; export the bundle again")
    return Bundle(card.name, folder, card, model, golden, ModelId(card.name, sha256, sha256 in trusted))


def _verified_files(folder: Path) -> tuple[dict[str, bytes], str]:
    """Return the files of a bundle by name and the SHA-256 of its SHA256SUMS, every checksum compared."""
    sums = _read_file(folder / SUMS_FILE)
    expected: dict[str, str] = {}
    for line in sums.decode("ascii", "replace").splitlines():
        digest, _, name = line.partition("  ")
        if not _SHA256.fullmatch(digest) or name not in BUNDLE_FILES:
            raise ModelError(
                f"{folder / SUMS_FILE} has the line {line!r}; expected a SHA-256, two spaces and one of "
                f"{', '.join(BUNDLE_FILES)}; export the bundle again"
            )
        expected[name] = digest
    missing = [name for name in BUNDLE_FILES if name not in expected]
    if missing:
        raise ModelError(f"{folder / SUMS_FILE} does not list {', '.join(missing)}; export the bundle again")
    contents = {name: _read_file(folder / name) for name in BUNDLE_FILES}
    for name, content in contents.items():
        found = hashlib.sha256(content).hexdigest()
        if found != expected[name]:
            raise ModelError(
                f"{folder / name} has SHA-256 {found[:12]}...; expected {expected[name][:12]}... by "
                f"{SUMS_FILE}: the file was damaged or changed; copy the bundle again"
            )
    return contents, hashlib.sha256(sums).hexdigest()


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        needed = ", ".join((*BUNDLE_FILES, SUMS_FILE))
        raise ModelError(f"{path} cannot be read ({error.strerror}); a bundle needs {needed}") from error


def _read_golden(content: bytes, path: Path, card: Card) -> Golden:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            known = ("inputs", "logits", "features", *({"means", "whitening"} & set(file.files)))
            arrays = {name: file[name] for name in known}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{path} is no archive of inputs, logits and features; export the bundle again"
        ) from error
    count = len(arrays["inputs"]) if arrays["inputs"].ndim else 0
    expected = {
        "inputs": ("uint8", (count, card.input_px, card.input_px)),
        "logits": ("int8", (count, len(card.classes))),
        "features": ("int8", (count, card.n_features)),
        "means": ("float32", (len(card.classes), card.n_features)),
        "whitening": ("float32", (card.n_features, card.n_features)),
    }
    for name, array in arrays.items():
        dtype, shape = expected[name]
        if array.dtype != dtype or array.shape != shape:
            raise ModelError(
                f"{path} {name} are {array.dtype} of shape {array.shape}; expected {dtype} of shape {shape}; "
                "export the bundle again"
            )
        array.flags.writeable = False
    if count == 0:
        raise ModelError(f"{path} has no inputs; expected some, such as 64; export the bundle again")
    return Golden(**arrays)
