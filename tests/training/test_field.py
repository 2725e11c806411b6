"""Field models: mosaics, what they learn from, and how they are judged beside the count."""

import json
from dataclasses import replace

import numpy as np
import pytest

from device import models
from device.errors import ConfigError
from device.images import write_png
from device.model_card import network_input
from device.plates import DatasetInfo
from device.records import ModelId, Scale
from training.cli import main
from training.dataset import Entry, TrueCell, read_dataset, write_dataset
from training.dataset.samples import Samples, join_samples
from training.export.parity import whole_fields
from training.fields import LOGIT_OF_CELL, field_samples, tile_samples, true_label, view_samples
from training.fitting import FitSettings, augment, fit_network
from training.labeling import LabeledField
from training.recipes import BlendSettings, FieldSettings, RenderSettings, read_recipe
from training.recipes import field as field_module
from training.recipes import opinions as opinions_module
from training.recipes.field import RealImages, field_material, field_sets
from training.recipes.mosaics import TILE, count_dead, draw_mosaics, even_tiles
from training.recipes.opinions import JudgedFields, calibrate, score_judged, truths, with_opinions


def tile(group, *labels, size=(222, 221), level=120):
    """A chamber tile with cells in a row from the left."""
    image = np.random.default_rng(len(labels)).normal(level, 2, size).clip(0, 255).astype(np.uint8)
    return LabeledField(
        image, tuple(TrueCell(c, 20 * i, 20, 20 * i + 9, 29) for i, c in enumerate(labels)), group
    )


TILES = [tile(f"g{i}", *["dead"] * (i % 3), *["live"] * 2, level=100 + i) for i in range(12)]


def quiet(_line):
    pass


def test_tiles_become_even_and_small_ones_are_left_out():
    even = even_tiles([*TILES, tile("small", "live", size=(200, 220))])
    assert len(even) == 12
    assert {t.image.shape for t in even} == {TILE}
    assert np.ptp([np.median(t.image) for t in even]) <= 1


def test_a_mosaic_keeps_each_cell_on_its_place():
    image = np.full((219, 220), 100, np.uint8)
    image[25, 5] = 250
    bright = LabeledField(image, (TrueCell("dead", 5, 25, 5, 25), TrueCell("live", 90, 90, 95, 95)), "g")
    drawn = next(draw_mosaics([bright], 1, seed=0))
    assert drawn.image.shape == (876, 880)
    dead = [cell for cell in drawn.cells if cell.label == "dead"]
    assert len(dead) == 16
    assert all(drawn.image[int(cell.row), int(cell.col)] == 250 for cell in dead)


def test_mosaics_of_two_pools_share_no_group_of_tiles():
    marked = [replace(t, image=np.full_like(t.image, 100)) for t in TILES]
    names = {}
    for field in draw_mosaics(marked, 20, pools=3, seed=0):
        names.setdefault(field.group, []).append(len(field.cells))
    assert sorted(names) == ["pool-0", "pool-1", "pool-2"]
    assert sum(map(len, names.values())) == 20


def test_mosaics_are_drawn_for_all_shares_of_dead_cells():
    dead, cells = count_dead(draw_mosaics(TILES, 60, seed=1))
    share = dead / cells
    assert share.min() < 0.15
    assert share.max() > 0.4


def test_a_tile_is_labeled_by_the_cells_in_it():
    image = np.random.default_rng(0).normal(120, 2, (320, 320)).clip(0, 255).astype(np.uint8)
    cells = [TrueCell("dead", 50, 50, 55, 55), TrueCell("live", 250, 50, 255, 55)]
    cells += [TrueCell("live", 50 + 15 * i, 250, 55 + 15 * i, 255) for i in range(3)]
    field = LabeledField(image, tuple(cells), "g")
    options = {"um_per_px": 0.65, "assay": "suspension", "split": "train", "source": "made up"}
    samples = tile_samples([field], "relative/2 tiles", **options)
    assert samples.x.shape == (3, 80, 80)  # the fourth holds no cell
    assert [samples.classes[y] for y in samples.y] == ["toxic", "non_toxic", "non_toxic"]
    balance = samples.density.mean(axis=(1, 2)) / LOGIT_OF_CELL
    assert balance == pytest.approx(np.array([[0, 0.7], [0.3, 0], [0.9, 0]]), abs=0.01)
    assert np.unravel_index(samples.density[0, :, :, 1].argmax(), (20, 20)) == (6, 6)
    assert samples.whole.tolist() == [[0, 0]] * 3  # one dead of five: the field is not toxic
    whole = tile_samples([field], "relative/2 squeezed", **options)
    assert (whole.x.shape, whole.y.tolist()) == ((1, 28, 28), [0])


def test_tiles_of_several_sets_stay_tiles_of_their_fields_and_are_judged_as_those():
    def tiles(whole):
        n = len(whole)
        x, group = np.zeros((n, 80, 80), np.uint8), np.full(n, "g")
        return Samples(
            x, np.zeros(n, int), group, "val", "made up", ("non_toxic", "toxic"), whole=np.array(whole)
        )

    joined = join_samples([tiles([[0, 1], [0, 1], [1, 0]]), tiles([[0, 0], [2, 1]])])
    assert joined.whole.tolist() == [[0, 1], [0, 1], [1, 0], [2, 0], [4, 1]]
    assert joined.take(joined.whole[:, 0] > 1).whole.tolist() == [[2, 0], [4, 1]]
    logits = np.array([[0, 4], [0, 2], [1, 0], [5, 3], [7, 7]], np.float32)
    means, y = whole_fields(logits, joined.y, joined.whole)
    assert means.tolist() == [[0, 3], [1, 0], [5, 3], [7, 7]]
    assert y.tolist() == [1, 0, 0, 1]
    alone = whole_fields(logits, joined.y, None)
    assert alone[0] is logits
    assert alone[1] is joined.y


def test_calibration_puts_the_middle_where_toxic_begins():
    rng = np.random.default_rng(3)
    share = rng.uniform(0, 1, 200)
    logits = 3 * share - 4 + rng.normal(0, 0.3, 200)  # all below 0, toxic from 0.5 on
    p = 1 / (1 + np.exp(-logits / 2.0))
    judged = JudgedFields(p, share, share > 0.5, tuple(map(str, range(200))), 0.5, 0, "made up")
    (calibrated,), temperature, offset = calibrate([judged], 2.0)
    assert offset == pytest.approx(-2.5, abs=0.15)
    assert 0 < temperature < 1
    assert np.mean((calibrated.p_toxic > 0.5) == judged.toxic) > 0.9
    assert score_judged(calibrated)["field_model"]["auc"] == score_judged(judged)["field_model"]["auc"]


def test_sets_that_are_calibrated_together_weigh_the_same():
    rng = np.random.default_rng(4)

    def some(n, middle):
        share = rng.uniform(0, 1, n)
        p = 1 / (1 + np.exp(-(4 * share - 2 + middle + rng.normal(0, 0.3, n))))
        return JudgedFields(p, share, share > 0.5, tuple(map(str, range(n))), 0.5, 0, "made up")

    few, many = some(40, 1.0), some(400, 0.0)
    _, _, offset = calibrate([few, many], 1.0)
    assert offset == pytest.approx(0.5, abs=0.2), "not that of the many"


def test_toxic_is_more_dead_cells_than_the_limit_of_the_assay():
    field = tile("g", *["dead"] * 2, *["live"] * 3)
    assert [label for _, label, _ in truths([field], "suspension")] == ["toxic"]
    assert [label for _, label, _ in truths([field], "adherent")] == ["non_toxic"]
    assert list(truths([tile("empty")], "adherent")) == []


def test_a_map_of_cells_turns_with_its_picture():
    rng = np.random.default_rng(0)
    density = rng.random((40, 4, 4, 1)).astype(np.float32)
    x = np.kron(density[..., 0], np.ones((20, 20))) * 100 + 100
    plain = FitSettings(zoom=0, contrast=0, brightness=0)
    inputs = augment(x.astype(np.uint8), plain, rng, turned := density.copy())
    assert np.any(turned != density)
    assert inputs[:, 10::20, 10::20] == pytest.approx(network_input(turned[..., 0] * 100 + 100), abs=0.01)


def test_a_learner_that_is_taught_where_tells_the_classes_apart():
    rng = np.random.default_rng(0)
    x, y = np.full((40, 80, 80), 128, np.uint8), np.arange(40) % 2
    density = np.zeros((40, 20, 20, 2), np.float32)
    for i, (row, col) in enumerate(rng.integers(2, 18, (40, 2)).tolist()):
        x[i, 4 * row - 4 : 4 * row + 8, 4 * col - 4 : 4 * col + 8] = 250 if y[i] else 20
        density[i, row - 1 : row + 2, col - 1 : col + 2, y[i]] = 4
    samples = Samples(x, y, np.arange(40).astype(str), "train", "made up", ("non_toxic", "toxic"), density)
    settings = FitSettings(learner="field", epochs=2, steps_per_epoch=20, batch=8, learning_rate=1e-2)
    logits = fit_network(samples, samples, settings).logits(x)
    against = logits[:, 1] - logits[:, 0]
    assert against[y == 1].min() > against[y == 0].max()


def test_a_learner_of_another_size_is_refused():
    fields = list(truths(draw_mosaics(TILES, 8, seed=0), "suspension"))
    samples = view_samples(fields, "relative/2 squeezed", um_per_px=0.65, split="train", source="made up")
    with pytest.raises(ConfigError, match=r"learner field sees \(80, 80\) px; expected \(28, 28\)"):
        fit_network(samples, None, FitSettings(learner="field", epochs=1))


@pytest.fixture(scope="module")
def chamber(tmp_path_factory):
    """A chamber set of a few tiles, in the splits train and val."""
    folder = tmp_path_factory.mktemp("chamber")
    (folder / "images").mkdir()
    entries, cells = [], {}
    for split in ("train", "val"):
        for i, one in enumerate(TILES):
            file = f"images/{split}-{i}.png"
            write_png(folder / file, one.image)
            entries.append(Entry(file, "", f"{split}-{one.group}", split))
            cells[file] = one.cells
    info = DatasetInfo(Scale(0.65, "assumed"), "brightfield", "made up", "none", "suspension")
    write_dataset(folder, info, entries, cells)
    return read_dataset(folder)


def test_a_opinions_module_learns_from_every_kind_that_it_names(chamber):
    small = FieldSettings(
        kinds=("adherent phase", "suspension brightfield"), mosaics=4, val_mosaics=4, pools=2
    )
    render = RenderSettings(train_fields=2, val_fields=1, n_cells=(12, 16))
    recipe = replace(read_recipe("field"), field=small, render=render)
    material = field_material(recipe, RealImages(chamber), quiet)
    assert [source.name for source in material.sources] == ["rendered-phase", chamber.folder.name]
    assert len(material.train) > 4 * 4  # tiles of phantoms, and of mosaics those with cells
    assert material.train.x.shape[1:] == (80, 80)
    assert set(material.val.group) >= {"pool-0", "pool-1"}
    assert not set(material.train.group) & set(material.val.group) - {"pool-0"}
    with pytest.raises(ConfigError, match="needs a ldc dataset; expected --source DIR"):
        field_material(recipe, RealImages(), quiet)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """Three fields of a healthy monolayer, in phase contrast, in the splits train and val."""
    folder = tmp_path_factory.mktemp("healthy")
    (folder / "images").mkdir()
    live = tuple(TrueCell("live", x, 150, x + 30, 180) for x in range(20, 200, 60))
    entries, cells = [], {}
    for split, number in (("train", 0), ("val", 1), ("val", 2)):
        file = f"images/{number}.png"
        write_png(folder / file, np.random.default_rng(number).integers(95, 106, (330, 340)).astype(np.uint8))
        entries.append(Entry(file, "", f"dish-{split}", split))
        cells[file] = live
    info = DatasetInfo(Scale(0.65, "assumed"), "phase", "made up", "none", "adherent")
    write_dataset(folder, info, entries, cells)
    return read_dataset(folder)


PHASE = FieldSettings(kinds=("adherent phase",), healthy="usiigaci")
FEW = RenderSettings(train_fields=1, val_fields=2, n_cells=(12, 16))


def test_a_healthy_culture_joins_with_cells_blended_in(healthy):
    recipe = replace(read_recipe("field"), field=PHASE, render=FEW, blend=BlendSettings(2, (6, 9)))
    found = list(field_sets(recipe, RealImages(None, healthy), "val", quiet))
    assert [each.data.split(":")[0] for each in found] == ["synthetic", "semi-synthetic"]
    blended = found[1].fields
    assert [true_label(field.cells, "adherent") for field in blended] == ["non_toxic"] * 2 + ["toxic"] * 4
    assert [field.group for field in blended] == [f"dish-val-{number}" for number in (0, 1, 0, 0, 1, 1)]
    with pytest.raises(ConfigError, match="needs a usiigaci dataset; expected --healthy DIR"):
        list(field_sets(recipe, RealImages(), "val", quiet))


def test_the_rendered_fields_of_a_modality_are_not_what_lets_a_model_speak(healthy, monkeypatch):
    recipe = replace(read_recipe("field"), field=PHASE, render=FEW, blend=BlendSettings(2, (6, 9)))
    rng = np.random.default_rng(0)

    def judged(fields, scale, bundle, assay, modality, data):
        truth = np.arange(40) % 2 == 1
        p = np.where(truth, 0.8, 0.3) if data.startswith("synthetic") else rng.uniform(0.6, 0.9, 40)
        return JudgedFields(p, p, truth, tuple(map(str, range(40))), 0.5, 0, data)

    monkeypatch.setattr(opinions_module, "judge_fields", judged)
    bundle = models.find_bundle("field")
    card = with_opinions(bundle, recipe, RealImages(None, healthy), quiet)
    (opinion,) = card.opinions
    assert opinion.auc.data.startswith("semi-synthetic: 2 healthy fields")
    assert opinion.abstains
    assert card.metrics["auc_field_model_adherent_phase_rendered"].value == 1
    assert card.metrics["auc_field_model_adherent_phase"] == opinion.auc
    alone = with_opinions(bundle, replace(recipe, field=replace(PHASE, healthy="")), RealImages(), quiet)
    assert alone.opinions[0].auc.value == 1
    assert alone.opinions[0].abstains, "of rendered fields alone it knows too little to speak"


def test_whole_fields_and_tiles_are_samples_of_one_dataset(chamber):
    assert field_samples(chamber, "val").x.shape == (12, 28, 28)
    assert field_samples(chamber, "val", view="relative/2 tiles").x.shape == (4 * 12, 80, 80)


def test_the_count_rule_is_scored_at_its_own_limit():
    toxic = np.array([False, False, True, True])
    judged = JudgedFields(
        np.array([0.4, 0.6, 0.4, 0.6]),
        np.array([0.1, 0.25, 0.35, 0.9]),
        toxic,
        tuple("abcd"),
        0.3,
        0,
        "made up",
    )
    scores = score_judged(judged)
    assert scores["count_rule"]["balanced_accuracy"].value == 1
    assert scores["field_model"]["balanced_accuracy"].value == 0.5
    assert scores["field_model"]["auc"].value == 0.5
    assert scores["field_model"]["auc"].low < 0.5 < scores["field_model"]["auc"].high
    assert score_judged(replace(judged, toxic=np.zeros(4, bool))) == {}


def test_evaluate_prints_the_count_rule_beside_a_field_model(chamber, capsys, monkeypatch):
    real = models.find_bundle
    cell = real("chamber-cell")
    card = replace(
        cell.card, kind="field", classes=("non_toxic", "toxic"), preprocessing="relative/2 squeezed"
    )
    made_up = replace(cell, card=card)
    monkeypatch.setattr(models, "find_bundle", lambda name, **_: made_up if name == "made-up" else real(name))
    monkeypatch.setattr(opinions_module, "open_field_classifier", lambda *_: Undecided())
    arguments = ["evaluate", "made-up", str(chamber.folder), "--split", "val", "--mosaics", "10"]
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["n"] + document["n_refused"] == 10
    assert document["auc"] == document["field_model"]["auc"]["value"] == 0.5
    assert 0 <= document["count_rule"]["balanced_accuracy"]["value"] <= 1


def test_evaluate_judges_a_healthy_culture_with_cells_blended_in(healthy, capsys, monkeypatch):
    monkeypatch.setattr(opinions_module, "open_field_classifier", lambda *_: Undecided())
    arguments = ["evaluate", "field", str(healthy.folder), "--split", "val", "--json"]
    monkeypatch.setattr(field_module, "FIELD_ROUNDED", (6, 9))
    assert main([*arguments, "--blended", "2"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["n"] + document["n_refused"] == 6
    assert document["data"].startswith("semi-synthetic: 2 healthy fields")
    assert document["options"] == "--split val --blended 2"
    monkeypatch.setattr(field_module, "FIELD_ROUNDED", (900, 900))
    assert main([*arguments, "--blended", "1"]) == 2
    assert "up to 900 rounded cells are blended into a field, but" in capsys.readouterr().err


class Undecided:
    id = ModelId("undecided", "4" * 64, trusted=True)

    def __call__(self, relative):
        return 0.5
