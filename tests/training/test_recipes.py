"""Recipes: which fields they are made of, and what a file of one may say."""

from dataclasses import replace

import numpy as np
import pytest

from device.errors import ConfigError
from device.images import write_png
from device.plates import DatasetInfo
from device.records import Scale
from training.dataset import Entry, TrueCell, read_dataset, write_dataset
from training.labeling import LabeledField
from training.recipes import BlendSettings, list_recipes, read_recipe
from training.recipes.make import measure_reference, prepare, recipe_fields
from training.rendered import RenderSettings


def quiet(_line):
    pass


@pytest.fixture
def healthy(tmp_path):
    """Two phase-contrast fields of one living cell each, train and val."""
    entries, cells = [], {}
    for name in ("train", "val"):
        file = f"images/{name}.png"
        (tmp_path / "images").mkdir(exist_ok=True)
        image = np.random.default_rng(len(name)).normal(110, 2, (240, 240))
        image[100:130, 100:130] -= 25
        write_png(tmp_path / file, image.clip(0, 255).astype(np.uint8))
        entries.append(Entry(file, "", name, name))
        cells[file] = (TrueCell("live", 100, 100, 129, 129),)
    info = DatasetInfo(Scale(0.65, "assumed"), "phase", "made up", "none", "adherent")
    write_dataset(tmp_path, info, entries, cells)
    return read_dataset(tmp_path)


def recipe(**changes):
    small = RenderSettings(train_fields=1, val_fields=1, n_cells=(12, 16))
    return replace(read_recipe("phase-cell"), render=small, blend=BlendSettings(2, (3, 3)), **changes)


def test_a_recipe_joins_real_blended_and_rendered_fields(healthy):
    sources = list(recipe_fields(recipe(), healthy, "train", quiet))
    assert [name for name, _, _ in sources] == [healthy.folder.name, "rendered"]
    real, *blended = sources[0][1]
    assert [cell.label for cell in real.cells] == ["live"]
    assert [[cell.label for cell in field.cells].count("rounded") for field in blended] == [3, 3]
    assert not np.array_equal(blended[0].image, blended[1].image)
    assert {field.group for field in sources[0][1]} == {"train"}
    assert len(sources[1][1]) == 1


def test_each_source_stands_in_the_material_with_its_crops(healthy):
    material = prepare(recipe(), healthy, quiet)
    assert [source.name for source in material.sources] == [healthy.folder.name, "rendered"]
    assert sum(source.n for source in material.sources) == len(material.train)
    assert material.scale.source == "assumed"
    count = material.train.count()
    assert count["live"] >= 1
    assert count["rounded"] >= 3


def test_a_recipe_that_needs_a_dataset_says_which():
    with pytest.raises(ConfigError, match="recipe phase-cell needs a usiigaci dataset"):
        prepare(recipe(), None, quiet)


def test_the_shipped_recipes_use_the_stations_network_but_for_the_papers():
    assert {name: read_recipe(name).fit.learner for name in list_recipes()} == {
        "brightfield-cell": "station",
        "chamber-cell": "station",
        "field": "field",
        "paper-cell": "table2",
        "paper-field": "table2",
        "phase-cell": "station",
    }


@pytest.mark.parametrize(("modality", "is_used"), [("phase", True), ("brightfield", False)])
def test_the_focus_of_a_card_is_measured_on_fields_that_its_own_gate_accepts(modality, is_used):
    noisy = np.random.default_rng(1).normal(120, 0.07 * 120, (280, 280)).clip(0, 255).astype(np.uint8)
    field = LabeledField(noisy, (), "noisy")
    found = measure_reference(recipe(modality=modality), [field], Scale(0.65, "measured"))
    assert (found is not None) == is_used
