"""Table 2's network, the trainer, the GAN and the export: tiny data, real code."""

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from device.analysis.crops import OUTSIDE
from device.classifier import open_cell_classifier, open_network
from device.errors import ConfigError, ModelError
from device.images import write_png
from device.model_card import network_input
from device.models import find_bundle
from device.plates import DatasetInfo
from device.records import Scale
from training.cli import main
from training.cotraining.contrast import ContrastSettings
from training.dataset import Entry, TrueCell, write_dataset
from training.dataset.samples import Samples
from training.export import convert, familiar
from training.export.parity import LIMITS, Parity, measure_parity, parity_table
from training.fitting import FitSettings, augment, fit_network, fit_temperature, mean_nll, predict
from training.gan import GanSettings, fit_gan, generate_samples, tile_images
from training.gan.paper import open_gan
from training.gan.upsampling import UpConv2D
from training.learners import list_learners, open_learner
from training.provenance import read_run
from training.recipes import list_recipes, read_recipe, stale_recipe

pytestmark = pytest.mark.training
CLASSES = ("live", "dead")


def disks(n, seed=0):
    """Bright disks are dead, dark ones live."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:28, :28]
    y = np.arange(n) % 2
    disk = np.exp(-((rows - 13.5) ** 2 + (cols - 13.5) ** 2) / 40)
    x = 128 + np.where(y == 1, 80, -80)[:, None, None] * disk + rng.normal(0, 6, (n, 28, 28))
    group = np.array([f"g{i // 2}" for i in range(n)])
    return Samples(np.clip(x, 0, 255).astype(np.uint8), y.astype(np.intp), group, "train", "drawn", CLASSES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset of dark live and bright dead blobs."""
    path = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(8)
    rows, cols = np.mgrid[:120, :160]
    entries, cells = [], {}
    (path / "images").mkdir()
    for split, n in (("train", 5), ("val", 3)):
        for i in range(n):
            image, file = rng.normal(120, 3, (120, 160)), f"images/{split}{i}.png"
            boxes = []
            for k, (row, col) in enumerate([(30, 30), (30, 110), (85, 40), (90, 120)]):
                image += (70 if k % 2 else -70) * np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / 50)
                boxes.append(TrueCell("dead" if k % 2 else "live", col - 9, row - 9, col + 9, row + 9))
            write_png(path / file, np.clip(image, 0, 255).astype(np.uint8))
            entries.append(Entry(file, "", f"{split}-{i}", split))
            cells[file] = tuple(boxes)
    info = DatasetInfo(Scale(0.65, "measured"), "brightfield", "drawn", "Apache-2.0", assay="suspension")
    write_dataset(path, info, entries, cells)
    return path


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    arguments = ["fit", str(folder), "--out", str(out), "--classes", "live,dead", "--epochs", "40"]
    assert main(arguments) == 0
    return out


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "blobs"
    main(["export", str(run), "--out", str(out), "--int8"])
    return out


def test_table_2_has_355202_parameters_with_two_classes():
    model = open_learner("table2")(2, 0.0)
    assert model.count_params() == 355_202
    assert predict(model, np.zeros((3, 28, 28), np.uint8))["features"].shape == (3, 128)
    pools = [layer.output.shape[1:] for layer in model.layers if "pool" in layer.name]
    assert pools == [(14, 14, 32), (7, 7, 64), (4, 4, 128)]


def count_multiplications(model):
    """Return the multiplications of one crop: outputs times the inputs that each of them sums."""
    total = 0
    for layer in model.layers:
        if not layer.weights:
            continue
        kernel = layer.weights[0].shape
        positions = int(np.prod(layer.output.shape[1:-1]))  # 1 for a dense layer
        total += positions * int(np.prod(kernel))
    return total


def test_the_stations_network_takes_at_most_a_tenth_of_table_2s_work():
    station, table2 = (count_multiplications(open_learner(kind)(4, 0.0)) for kind in ("station", "table2"))
    assert table2 == pytest.approx(7.71e6, rel=0.01)
    assert station <= table2 / 10


def test_learners_are_found_by_file_and_an_unknown_one_lists_them():
    assert list_learners() == ["features", "field", "station", "table2"]
    with pytest.raises(ConfigError, match="expected one of features, field, station, table2"):
        open_learner("table3")


def test_a_fit_tells_apart_what_can_be_told_and_repeats_itself():
    settings = FitSettings(epochs=4, steps_per_epoch=6, batch=16, seed=3)
    fits = [fit_network(disks(64), disks(32, 1), settings) for _ in range(2)]
    assert np.mean(fits[0].logits(disks(32, 2).x).argmax(axis=1) == disks(32, 2).y) == 1
    assert np.array_equal(fits[0].logits(disks(8).x), fits[1].logits(disks(8).x))


def test_one_class_alone_cannot_be_fitted():
    samples = disks(8)
    samples.y[:] = 0
    with pytest.raises(ValueError, match="at least two classes"):
        fit_network(samples, None, FitSettings())


def test_augmentation_keeps_range_shape_and_input():
    x = disks(10).x
    before = x.copy()
    changed = augment(x, FitSettings(), np.random.default_rng(0))
    assert changed.shape == x.shape
    assert changed.dtype == np.float32
    assert np.abs(changed).max() <= 1
    assert np.array_equal(x, before)


def test_shifts_move_a_dot_both_ways_up_to_their_limit():
    x = np.full((200, 28, 28), 128, np.uint8)
    x[:, 13:15, 13:15] = 255
    still = FitSettings(zoom=0, contrast=0, brightness=0)
    moved = [augment(x, replace(still, shift_px=s), np.random.default_rng(0)) for s in (0.0, 2.0)]
    row = [(out.clip(0).sum(axis=2) @ np.arange(28)) / out.clip(0).sum(axis=(1, 2)) - 13.5 for out in moved]
    assert np.abs(row[0]).max() == pytest.approx(0, abs=1e-5)
    assert 1.5 < row[1].max() <= 2.1
    assert -2.1 <= row[1].min() < -1.5


def test_without_shifts_augmentation_draws_what_it_drew_for_the_shipped_models():
    used, wanted = np.random.default_rng(3), np.random.default_rng(3)
    augment(disks(10).x, FitSettings(), used)
    wanted.integers(0, 8, 10)
    for shape in (10, (10, 1, 1), (10, 1, 1)):  # zoom, contrast, brightness
        wanted.normal(0, 1, shape)
    assert used.bit_generator.state == wanted.bit_generator.state


def test_augmentation_keeps_the_border_of_the_image_a_border():
    x = np.full((64, 28, 28), 140, np.uint8)
    x[:, :, 20:] = OUTSIDE
    changed = augment(x, FitSettings(contrast=0.5, brightness=0.2, noise=0.1), np.random.default_rng(0))
    beyond = changed == network_input(np.array(OUTSIDE, np.uint8))
    share = beyond.mean(axis=(1, 2))
    assert (share > 0.15).all()
    assert (share < 0.45).all()
    # all in one strip: whole rows or whole columns
    assert all((b.all(axis=0) | b.all(axis=1)).any() for b in beyond)
    assert np.unique(np.round(share, 3)).size > 1  # magnified more or less


def test_temperature_undoes_overconfidence():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 4000)
    fair = np.stack([-np.where(y == 1, 1, -1) + rng.normal(0, 1.4, 4000), np.zeros(4000)], axis=1)
    logits = (fair * 3).astype(np.float32)
    temperature = fit_temperature(logits, y)
    assert mean_nll(logits, y, temperature) < mean_nll(logits, y)
    assert temperature > 2


def test_gan_generates_labeled_images_that_are_never_validation():
    settings = GanSettings(steps=3, log_every=2, grid_at=(2,), batch=8)
    gans = {1: open_gan(settings)}
    dead = disks(10).take(disks(10).y == 1)
    lines = []
    made = generate_samples(dead, gans, 3, steps=1, seed=4, progress=lines.append)
    assert made.x.shape == (3, 28, 28)
    assert made.y.tolist() == [1, 1, 1]
    assert (made.source, made.split) == ("generated", "train")
    assert sorted(gans[1].grids) == [2, 3]
    assert any("[D loss:" in line for line in lines)
    assert np.array_equal(gans[1].generate(2, 9), gans[1].generate(2, 9))
    generate_samples(dead, gans, 3, steps=1, seed=4)
    assert gans[1].step == 4  # a fitted GAN goes on for so many steps only


def test_doubling_and_convolving_at_once_is_doubling_then_convolving():
    import keras
    import tensorflow as tf

    at_once, after = UpConv2D(3), keras.layers.Conv2D(3, 3, padding="same")
    x = tf.random.stateless_normal((2, 5, 4, 6), seed=(1, 2))

    def one_after_the_other(x):
        return after(keras.layers.UpSampling2D()(x))

    results = []
    for layer, of in ((at_once, at_once), (after, one_after_the_other)):
        of(x)  # builds it
        layer.set_weights([np.linspace(-1, 1, 162, dtype="f4").reshape(3, 3, 6, 3), np.float32([1, 2, 3])])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = of(x)
            loss = tf.reduce_sum(tf.sin(y))
        results.append([y, *tape.gradient(loss, [x, *layer.trainable_variables])])
    assert results[0][0].shape == (2, 10, 8, 3)
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("n", "size"), [(6, 16), (20, 20), (40, 32)])
def test_a_batch_of_a_gan_holds_no_more_copies_than_it_must(n, size, monkeypatch):
    gan = open_gan(GanSettings())
    seen = []
    monkeypatch.setattr(gan, "train_step", lambda x, y: seen.append(len(x)) or (0.0, 0.0, 0.0))
    fit_gan(gan, disks(n), steps=2)
    assert seen == [size, size]


def test_a_grid_shows_images_row_by_row():
    images = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    assert tile_images(images, 3)[::2, ::2].tolist() == [[0, 1, 2], [3, 4, 0]]


def test_the_station_loads_what_was_exported(bundle):
    loaded = find_bundle(bundle)
    assert loaded.card.input.scale == 1 / 128
    assert loaded.card.input.zero_point == 0
    assert loaded.card.attribution == ("drawn; Apache-2.0",)
    assert not loaded.id.trusted
    p = open_cell_classifier(loaded)(disks(6).x).probabilities
    assert p.argmax(axis=1).tolist() == [0, 1, 0, 1, 0, 1]
    assert len(loaded.golden.inputs) <= 64


def test_an_exported_model_knows_its_validation_crops_and_no_checkerboard(run, bundle, tmp_path, monkeypatch):
    assert find_bundle(bundle).familiar is None  # learned from enough crops only
    monkeypatch.setattr(familiar, "CELLS_MIN", 10)
    main(["export", str(run), "--out", str(tmp_path / "blobs"), "--int8"])
    loaded = find_bundle(tmp_path / "blobs")
    assert loaded.familiar.means.shape == (2, loaded.card.n_features)
    classify = open_cell_classifier(loaded)
    odd = classify(loaded.golden.inputs).odd
    assert odd.mean() < 0.5  # training crops among them, seen through the covariance of 24 others
    board = (np.indices((28, 28)).sum(axis=0) // 4 % 2 * 250).astype(np.uint8)
    assert classify(board[None]).odd.all()


def test_int8_dense_layers_are_per_tensor_and_operators_old_enough(bundle, monkeypatch):
    model = (bundle / "model.tflite").read_bytes()
    assert convert.operator_faults(model) == []
    versions = {name: version for name, version, _ in convert._operators(model)}
    assert versions["FULLY_CONNECTED"] <= 4
    assert versions["CONV_2D"] <= 3
    monkeypatch.setattr(convert, "MAX_VERSIONS", {"CONV_2D": 1})
    faults = convert.operator_faults(model)
    assert any("operator CONV_2D has version" in fault for fault in faults)
    assert any("operator MAX_POOL_2D was never run on the oldest station" in fault for fault in faults)


def test_per_channel_dense_layers_are_refused(monkeypatch):
    monkeypatch.setattr(convert, "PER_TENSOR_DENSE", "no_such_switch")
    with pytest.raises(ModelError, match="weight scales, expected 1"):
        convert.convert_int8(open_learner("table2")(2, 0.0), disks(8).x)


def test_parity_holds_against_the_run_and_against_the_float_twin(bundle, run, folder, tmp_path, capsys):
    code = main(["parity", str(bundle), str(run), "--out", str(tmp_path / "new")])
    *table, with_run = capsys.readouterr().out.splitlines()
    assert code == (0 if json.loads(with_run)["passed"] else 1)
    assert [line.split()[0] for line in table[1 : 1 + len(LIMITS)]] == list(LIMITS)
    assert (tmp_path / "new/parity.png").is_file()
    assert 0 < json.loads(with_run)["float_gap"] < 1e-4
    main(["parity", str(bundle), str(folder)])
    twin = json.loads(capsys.readouterr().out.splitlines()[-1])
    for parity in (json.loads(with_run), twin):
        assert parity["agreement"] == 1
        assert parity["max_dp"] < 0.1


def test_a_bundle_of_other_weights_fails_parity_with_exit_1(bundle, run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    open_learner("station")(2, 0.0).save(tmp_path / "run/network.keras")
    assert main(["parity", str(bundle), str(tmp_path / "run")]) == 1
    said = capsys.readouterr().out
    assert "FAILED" in said
    assert json.loads(said.splitlines()[-1])["passed"] is False


SOUND = Parity(
    n=1000,
    agreement=0.995,
    n_far_disagreements=0,
    mean_dp=0.01,
    p99_dp=0.05,
    max_dp=0.10,
    balanced_accuracy_float=0.005,
    balanced_accuracy_int8=0.0,
    drop_upper=0.01,
    ece_float=0.0,
    ece_int8=0.01,
    share_shift=0.01,
    float_gap=1e-4,
)


@pytest.mark.parametrize(
    "worse",
    [
        {"agreement": 0.9949},
        {"n_far_disagreements": 1},
        {"mean_dp": 0.0101},
        {"p99_dp": 0.0501},
        {"max_dp": 0.1001},
        {"balanced_accuracy_float": 0.0052},
        {"drop_upper": 0.0101},
        {"ece_int8": 0.0101},
        {"share_shift": 0.0101},
        {"float_gap": 1.1e-4},
    ],
)
def test_each_limit_of_parity_holds_to_its_edge_and_no_further(worse):
    assert SOUND.failures == []
    assert len(replace(SOUND, **worse).failures) == 1
    assert parity_table(replace(SOUND, **worse)).count("FAILED") == 1


def test_the_drop_of_balanced_accuracy_has_an_interval_over_pairs():
    y = np.arange(400) % 2
    right = np.where(y[:, None] == [0, 1], 3, 0).astype(np.float32)
    int8 = right.copy()
    int8[:4] = int8[:4, ::-1]  # four of 400 change, two of each class: a drop of 0.01, its error near 0.005
    parity = measure_parity(right, int8, y, 1.0)
    assert parity.balanced_accuracy_float - parity.balanced_accuracy_int8 == pytest.approx(0.01)
    assert parity.drop_upper == pytest.approx(0.01 + 1.645 * 0.005, abs=0.003)


def test_the_tie_where_a_label_may_change_is_five_hundredths_either_way():
    near = np.log(np.array([[0.549, 0.451], [0.551, 0.449]], np.float32))
    said = [
        measure_parity(one[None], one[None, ::-1], np.array([0]), 1.0).n_far_disagreements for one in near
    ]
    assert said == [0, 1]


def test_parity_fails_where_labels_change():
    logits = np.array([[3, 0], [0, 3], [3, 0]], np.float32)
    assert measure_parity(logits, logits, np.array([0, 1, 0]), 1.0).failures == []
    broken = measure_parity(logits, logits[:, ::-1], np.array([0, 1, 0]), 1.0)
    assert broken.agreement == 0
    assert broken.n_far_disagreements == 3
    assert len(broken.failures) >= 4


def test_a_damaged_golden_output_is_refused_by_the_station(bundle):
    loaded = find_bundle(bundle)
    golden = replace(loaded.golden, logits=loaded.golden.logits[:, ::-1].copy())
    with pytest.raises(ModelError, match="golden"):
        open_network(replace(loaded, golden=golden))


def test_evaluate_ends_with_one_line_of_json(bundle, run, folder, capsys):
    for model in (run, bundle):
        assert main(["evaluate", str(model), str(folder), "--split", "val", "--json"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1
        scores = json.loads(lines[0])
        assert scores["balanced_accuracy"] == 1
        assert scores["n"] == 12
        assert scores["n_dead"] == 6
    assert scores["station"]["n_fields"] == 3  # a bundle is also judged over the station's whole path


def test_cotrain_robust_writes_a_run_with_options_log_and_metrics(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("training.recipes.cotrain.ContrastSettings", partial(ContrastSettings, steps=20))
    labels = ["--profile", "robust", "--labels", "14", "--classes", "live,dead"]
    options = [*labels, "--epochs", "4"]
    assert main(["cotrain", str(folder), "--out", str(tmp_path / "run"), *options]) == 0
    assert "val, features alone: balanced accuracy 1.000, F1 dead 1.000" in capsys.readouterr().out
    assert read_run(tmp_path / "run")[0].learner == "station"
    assert json.loads((tmp_path / "run/options.json").read_text())["n_labeled"] == 14
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["split"] == "val"
    assert metrics["n_pseudo_labeled"] > 0
    assert list(metrics["scores"]) == [
        "contrast alone",
        "features alone",
        "contrast co-trained",
        "features co-trained",
        "both co-trained",
        "station with labels alone",
        "station with I_F too",
    ]
    assert sum(metrics["shares"]) == pytest.approx(1, abs=1e-3)
    header, *rounds = (tmp_path / "run/log.csv").read_text().splitlines()
    assert {"per_class_dead", "label_nll", "rolled_back"} <= set(header.split(","))
    assert 2 <= len(rounds) <= 4
    assert json.loads((tmp_path / "run/options.json").read_text())["loop"]["max_rounds"] == 4


def test_cotrain_leaves_an_exportable_run(folder, tmp_path, capsys):
    arguments = [
        "cotrain",
        str(folder),
        "--out",
        str(tmp_path / "co"),
        "--classes",
        "live,dead",
        "--labels",
        "8",
    ]
    tiny = ["--unlabeled", "10", "--count", "0", "--epochs", "1", "--rounds", "1"]
    assert main([*arguments, *tiny]) == 0
    assert "pseudo-labeled in 1 rounds" in capsys.readouterr().out
    # of the ten drawn, four are of the well that validates
    assert json.loads((tmp_path / "co/rounds.json").read_text())[0]["n_unlabeled"] == 6
    assert (tmp_path / "co/run.json").is_file()


def test_gan_command_writes_images_grids_and_curves(folder, tmp_path):
    arguments = [
        "gan",
        str(folder),
        "--out",
        str(tmp_path),
        "--classes",
        "live,dead",
        "--count",
        "4",
        "--steps",
        "2",
    ]
    assert main(arguments) == 0
    with np.load(tmp_path / "generated.npz") as made:
        assert made["x"].shape == (4, 28, 28)
        assert made["classes"].tolist() == ["live", "dead"]
    assert {path.name for path in tmp_path.glob("*.png")} >= {"gan-live-loss.png", "gan-dead-0002.png"}


@pytest.mark.parametrize("name", ["chamber-cell", "paper-cell", "phase-cell"])
def test_recipes_are_sound_and_their_bundles_are_theirs(name):
    recipe = read_recipe(name)
    assert name in list_recipes()
    assert stale_recipe(recipe.id) is None
    loaded = find_bundle(name)
    assert stale_recipe(loaded.card.recipe) is None
    assert loaded.card.classes == recipe.classes
    assert loaded.id.trusted
    assert loaded.card.parity["passed"]


def test_a_changed_recipe_makes_its_bundle_stale():
    recipe = read_recipe("paper-cell").id
    changed = type(recipe)(recipe.name, "0" * 64)
    assert "run tools/make-models paper-cell" in stale_recipe(changed)
    assert "names no recipe" in stale_recipe(None)


def test_paper_recipe_runs_from_counting_to_a_bundle(folder, tmp_path):
    assert main(["paper", str(folder), "--out", str(tmp_path), "--smoke", "--labels", "6"]) == 0
    report = (tmp_path / "report.md").read_text()
    assert "34/37 is not evidence" in report
    assert "355,202 parameters" in report
    assert find_bundle(tmp_path / "bundle").card.kind == "cell"
