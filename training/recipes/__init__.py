"""Recipes: one TOML file a bundle says all that makes it again; a card names the recipe and its hash."""

import dataclasses
import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from device.analysis.crops import FieldView
from device.errors import ConfigError
from device.model_card import Recipe as RecipeId
from device.plates import file_sha256
from device.records import Assay, Modality
from training.fitting import FitSettings
from training.labeling import LabelSettings
from training.rendered import RenderSettings

_FOLDER = Path(__file__).resolve().parent
_Settings = TypeVar("_Settings")


@dataclass(frozen=True, slots=True)
class BlendSettings:
    """Rounded cells blended into the real fields of a healthy culture; each field: meaning, range."""

    copies: int = 2
    """Blended copies of each real field beside the field itself, >= 0."""
    rounded: tuple[int, int] = (5, 40)
    """Fewest and most cells blended into a copy."""
    seed: int = 1
    """Of cells and places."""


@dataclass(frozen=True, slots=True)
class FieldSettings:
    """What a field model sees, and which images it learns from; each field one line: meaning, unit, range."""

    view: FieldView = "relative/2 tiles"
    """How it sees a field."""
    kinds: tuple[str, ...] = ("adherent phase", "adherent brightfield", "suspension brightfield")
    """Assay and modality: rendered fields, and of `suspension brightfield` mosaics of the dataset."""
    healthy: str = ""
    """Kind of a second dataset (`usiigaci`), of a healthy culture in phase contrast: its fields, and copies
    with the rounded cells of table `blend` in them, join those of its modality. None if empty."""
    mosaics: int = 200
    """For training, > 0."""
    val_mosaics: int = 120
    """For validation, over all pools, > 0."""
    pools: int = 5
    """Pools that the tiles for validation are dealt to: no mosaic takes from two, > 1."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that makes a bundle, except the images themselves."""

    name: str
    kind: Literal["cell", "field"]
    scope: str
    assay: Assay
    modality: Modality
    classes: tuple[str, ...]
    source: str
    """`rendered`, or the kind of dataset (`ldc`) whose folder `tools/make-models` is given; rendered fields
    join its images where the recipe has a table `render`."""
    limits: tuple[str, ...] = ()
    attribution: tuple[str, ...] = ()
    fit: FitSettings = dataclasses.field(default_factory=FitSettings)
    label: LabelSettings = dataclasses.field(default_factory=LabelSettings)
    render: RenderSettings | None = None
    blend: BlendSettings | None = None
    field: FieldSettings | None = None
    id: RecipeId | None = None
    """Name and hash of its file; None for one made from a command line."""


def list_recipes() -> list[str]:
    """Return the names of the shipped recipes, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def read_recipe(name: str) -> Recipe:
    """Return a shipped recipe.

    Raises
    ------
    ConfigError
        If there is none of that name, or with every fault of its file.
    """
    path = _FOLDER / f"{name}.toml"
    if name not in list_recipes():
        raise ConfigError(f"unknown recipe {name!r}; expected one of {', '.join(list_recipes())}")
    content = path.read_bytes()
    try:
        document = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is no TOML ({error}); expected a recipe") from error
    faults: list[str] = []
    tables = {
        "fit": FitSettings,
        "label": LabelSettings,
        "render": RenderSettings,
        "blend": BlendSettings,
        "field": FieldSettings,
    }
    chosen: dict[str, Any] = {
        key: _settings(kind, document.pop(key), key, faults)
        for key, kind in tables.items()
        if key in document
    }
    known = {item.name for item in fields(Recipe)} - {"id", "name", *tables}
    faults += [f"unknown key {key}; remove it" for key in document if key not in known]
    required = ("kind", "scope", "assay", "modality", "classes", "source")
    faults += [f"{key} is missing" for key in required if key not in document]
    for key, allowed in (
        ("assay", get_args(Assay)),
        ("modality", get_args(Modality)),
        ("kind", ("cell", "field")),
    ):
        if key in document and document[key] not in allowed:
            faults.append(f"{key} is {document[key]!r}; expected {' or '.join(allowed)}")
    if document.get("source") == "rendered" and "render" not in chosen:
        faults.append("source is rendered but there is no table render; add it")
    if faults:
        raise ConfigError([f"{path.name}: {fault}" for fault in faults])
    lists: dict[str, Any] = {k: tuple(document.pop(k, ())) for k in ("classes", "limits", "attribution")}
    return Recipe(
        name=name, id=RecipeId(name, hashlib.sha256(content).hexdigest()), **document, **lists, **chosen
    )


def stale_recipe(recipe: RecipeId | None) -> str | None:
    """Return why a card's recipe is not the tree's, or None if it is."""
    if recipe is None:
        return "the card names no recipe; expected one of training/recipes; use tools/make-models"
    if recipe.name not in list_recipes():
        return f"the card names recipe {recipe.name}, which is not in training/recipes; make it again"
    now = file_sha256(_FOLDER / f"{recipe.name}.toml")
    if now == recipe.sha256:
        return None
    return (
        f"recipe {recipe.name} has SHA-256 {now[:12]}... but the card says {recipe.sha256[:12]}...; "
        f"run tools/make-models {recipe.name}"
    )


def _settings(kind: type[_Settings], values: Mapping[str, Any], table: str, faults: list[str]) -> _Settings:
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]  # each kind is a dataclass
    faults += [
        f"unknown key {table}.{key}; expected one of {', '.join(sorted(known))}"
        for key in set(values) - known
    ]
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items() if key in known}
    return kind(**given)
