"""What training commands meet in a lab: wrong data, a full disk, Ctrl-C; and what may never judge a model."""

import errno
import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest

from device.images import write_png
from device.records import Scale
from training import cli, provenance
from training.cli import main
from training.cotraining import paper as paper_module
from training.cotraining.paper import PaperSettings, run_paper
from training.dataset import Entry, read_dataset, write_dataset
from training.dataset.samples import Samples, join_samples
from training.evaluation.gate import GateResult
from training.fitting import FitSettings
from training.gan import GENERATED, GanSettings, fit_gan
from training.gan.robust import RobustSettings, open_robust_gan
from training.recipes import generated
from training.recipes import paper as paper_recipe
from training.recipes.generated import generate_anew, read_generated, run_gate
from training.recipes.make import Material, drop_copies, write_fit

pytestmark = pytest.mark.training
COMMANDS = {
    "fit": ["--epochs", "2"],
    "gan": ["--count", "4", "--steps", "2", "--epochs", "1"],
    "cotrain": ["--labels", "8", "--count", "4", "--steps", "2", "--epochs", "1", "--rounds", "1"],
    "paper": ["--smoke", "--labels", "8"],
}
CLASSES = ("live", "dead")


@pytest.fixture
def folder(draw_blobs, tmp_path):
    """Four training and two validation fields, each a group; tests change it."""
    return draw_blobs(tmp_path / "data", ["train"] * 4 + ["val"] * 2)


@pytest.fixture(autouse=True)
def tiny_paper(monkeypatch):
    """Makes `paper --smoke` a matter of seconds: a few steps of each thing."""
    smoke = paper_recipe.SMOKE
    gan = replace(smoke.paper.gan, steps=2, grid_at=(2,))
    fit = replace(smoke.paper.fit, learner="station", epochs=1)
    paper = replace(smoke.paper, n_generated=4, refit_steps=1, gan=gan, fit=fit)
    monkeypatch.setattr(paper_recipe, "SMOKE", replace(smoke, max_unlabeled=8, paper=paper))


@pytest.fixture
def untraced():
    """Makes no graph of a training step: it takes longer than the few steps, and is tested elsewhere."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def rewrite(folder, *, entries=None, cells=None):
    dataset = read_dataset(folder)
    write_dataset(folder, dataset.info, entries or dataset.entries, cells or dataset.cells)


def run(command, folder, out, *more):
    classes = [] if command == "paper" else ["--classes", "live,dead"]
    return main([command, str(folder), "--out", str(out), *COMMANDS[command], *classes, *more])


def one_error(capsys):
    """The one line that a mistake gives."""
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("nanotox-train: ")]
    assert len(errors) == 1
    assert not any("Traceback" in line for line in lines)
    return errors[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_class_is_named(command, folder, tmp_path, capsys):
    dataset = read_dataset(folder)
    rewrite(folder, cells={file: several[::2] for file, several in dataset.cells.items()})
    assert run(command, folder, tmp_path / "out") == 2
    assert re.search(r"has no dead; expected|expected both classes", one_error(capsys))


@pytest.mark.parametrize("command", ["fit", "cotrain", "paper"])
def test_one_group_alone_cannot_be_validated(command, folder, tmp_path, capsys):
    entries = [Entry(e.file, e.label, "well-0", "train") for e in read_dataset(folder).entries]
    rewrite(folder, entries=entries)
    assert run(command, folder, tmp_path / "out") == 2
    assert "split val of" in one_error(capsys)


def write_nan(path):
    cv2.imwrite(str(path.with_suffix(".tif")), np.full((120, 160), np.nan, np.float32))
    path.with_suffix(".tif").replace(path)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "damage",
    [
        write_nan,
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: path.unlink(),
    ],
    ids=["nan", "cut off", "missing"],
)
def test_an_image_that_cannot_be_read_is_named_and_exit_1(command, damage, folder, tmp_path, capsys):
    damage(folder / "images/2.png")
    assert run(command, folder, tmp_path / "out") == 1
    assert "2.png" in one_error(capsys)


@pytest.mark.parametrize("command", ["fit", "paper"])
def test_an_image_smaller_than_a_cell_does_no_harm(command, folder, tmp_path, monkeypatch):
    write_png(folder / "images/2.png", np.full((3, 5), 120, np.uint8))
    monkeypatch.setattr(f"training.recipes.{'make' if command == 'fit' else 'paper'}.write_fit", stop)
    with pytest.raises(StopIteration):
        run(command, folder, tmp_path / "out")


def stop(*_arguments, **_options):
    raise StopIteration


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_leaves_nothing_half_done(command, folder, tmp_path, capsys, monkeypatch):
    seen = []

    def interrupt(line):
        seen.append(line)
        if re.search(r"epoch 1/|step 0002|judge", line):
            raise KeyboardInterrupt

    monkeypatch.setattr(f"training.cli.{command}.show_progress", interrupt)
    out = tmp_path / "out"
    assert run(command, folder, out) == cli.INTERRUPTED
    assert len(seen) > 1  # in mid-run
    message = one_error(capsys)
    assert f"interrupted; {out} holds only what was finished" in message
    assert "run the same command again" in message
    assert not [path for path in out.rglob("*") if path.name in ("run.json", "generated.npz", "card.json")]
    assert main(["export", str(out), "--out", str(tmp_path / "bundle"), "--int8"]) == 2
    assert "if it was interrupted, run the same command again" in one_error(capsys)


@pytest.mark.usefixtures("untraced")
def test_a_full_disk_leaves_the_run_that_was_there(folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert run("fit", folder, out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()

    def full(path, **_arrays):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(provenance.np, "savez_compressed", full)
    assert run("fit", folder, out, "--seed", "1") == 1
    message = one_error(capsys)
    assert "samples.npz cannot be read or written (No space left on device)" in message
    assert "run the same command again" in message
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_one_line(folder, tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert run("gan", folder, tmp_path / "out") == 1
    assert "out cannot be read or written (File exists)" in one_error(capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_same_command_gives_the_same_numbers_and_says_what_made_them(command, folder, tmp_path):
    for name in "ab":
        assert run(command, folder, tmp_path / name, "--seed", "3") == 0
    a, b = tmp_path / "a", tmp_path / "b"
    tables = sorted(path.name for path in a.glob("*.json") if path.name != "provenance.json")
    assert tables
    for name in tables:
        assert (a / name).read_bytes() == (b / name).read_bytes()
    for name in (path.name for path in a.glob("*.npz")):
        with np.load(a / name) as one, np.load(b / name) as other:
            assert all(np.array_equal(one[key], other[key]) for key in one.files)
    if (a / "network.keras").is_file():
        import keras

        one, other = (keras.models.load_model(path / "network.keras").get_weights() for path in (a, b))
        assert all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))
    said = json.loads((a / "provenance.json").read_text())
    assert said["options"]["seed"] == 3
    assert said["options"]["folder"] == str(folder)
    assert len(said["code"]["sha256"]) == 64
    assert set(said["data"]) == {"manifest.csv", "cells.csv", "dataset.json", "images"}
    assert "tensorflow" in said["environment"]
    write_png(folder / "images/0.png", np.full((120, 160), 120, np.uint8))
    provenance.write_provenance(a, {}, folder, [entry.file for entry in read_dataset(folder).entries])
    changed = json.loads((a / "provenance.json").read_text())["data"]
    assert {key for key in changed if changed[key] != said["data"][key]} == {"images"}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("what", ["group", "generated"])
def test_nothing_that_trains_is_smuggled_into_validation(command, what, folder, tmp_path, capsys):
    dataset = read_dataset(folder)
    entries = list(dataset.entries)
    group = {"group": "well-0", "generated": GENERATED}[what]
    entries[5] = Entry(entries[5].file, "", group, "val")
    rewrite(folder, entries=entries)
    assert run(command, folder, tmp_path / "out") == 2
    message = one_error(capsys)
    assert {"group": "well-0", "generated": "generated images"}[what] in message
    assert not (tmp_path / "out/run.json").exists()


def test_copies_of_training_images_are_left_out_of_validation():
    train, val, lines = disks(6), disks(4, 1), []
    val.x[2] = np.rot90(train.x[4][:, ::-1], 3)
    kept = drop_copies(train, val, lines.append)
    assert np.array_equal(kept.x, val.x[[0, 1, 3]])
    assert lines == ["1 of 4 validation samples are copies of training ones: left out"]
    assert len(drop_copies(train, val.take(np.zeros(0, np.intp)), lines.append)) == 0


def disks(n, seed=0, source="drawn"):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = np.clip(np.where(y, 190, 60)[:, None, None] + rng.normal(0, 9, (n, 28, 28)), 0, 255)
    group = np.array([f"{source}-{seed}-{i // 2}" for i in range(n)])
    return Samples(x.astype(np.uint8), y.astype(np.intp), group, "train", source, CLASSES)


@pytest.mark.usefixtures("untraced")
def test_algorithm_1_validates_on_labeled_images_that_nothing_else_saw(monkeypatch):
    seen = []
    original = paper_module.fit_network

    def spy(train, val, settings, *arguments, **more):
        seen.append((train, val))
        return original(train, val, settings, *arguments, **more)

    monkeypatch.setattr(paper_module, "fit_network", spy)
    settings = PaperSettings(
        n_generated=4,
        max_rounds=2,
        refit_steps=1,
        gan=GanSettings(steps=2, batch=4),
        fit=FitSettings("station", epochs=1, batch=8, smoothing=0.0),
    )
    labeled, unlabeled = disks(20), disks(12, 1)
    unlabeled.group[:2] = labeled.group[:2]  # of a well that may come to validate
    found = run_paper(labeled, unlabeled, settings, lambda _line: None)
    held = {image.tobytes() for image in found.val.x}
    assert len(held) == 4
    assert held <= {image.tobytes() for image in labeled.x}
    assert not set(found.val.group) & set(found.unlabeled.group)
    for train, val in seen:
        assert not held & {image.tobytes() for image in train.x}
        assert GENERATED in train.group
        assert val is None or val is found.val
    assert GENERATED not in found.train.group
    assert found.fitted.temperature == 1  # four images calibrate nothing


def test_a_run_refuses_generated_images_for_its_int8_ranges(tmp_path):
    made = disks(4, source=GENERATED)
    made.group[:] = GENERATED
    for train, val in ((join_samples([disks(4), made]), disks(4, 1)), (disks(4), made)):
        material = Material(train, val, Scale(0.65, "measured"), (), None)
        with pytest.raises(ValueError, match="generated images among those that int8"):
            write_fit(None, material, None, tmp_path)


def passed(**changes):
    result = {"passed": True, "n_folds": 5, "lower_classical": 0.1, "lower_duplicates": 0.1, "note": ""}
    return result | changes


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(
    ("gate", "n_used"), [(passed(), 6), (passed(passed=False, note="no sure gain"), 0), ("not run", 0)]
)
def test_generated_images_train_a_model_only_past_the_gate(gate, n_used, folder, tmp_path, monkeypatch):
    gan = tmp_path / "gan"
    gan.mkdir()
    made = disks(6)
    np.savez(gan / "generated.npz", x=made.x, y=made.y, classes=np.array(CLASSES))
    (gan / "quality.json").write_text(json.dumps({"gate": gate}))
    provenance.write_provenance(gan, {}, folder, [])
    sizes = []
    original = generated.fit_network

    def spy(train, val, *arguments, **more):
        sizes.append((int(np.sum(train.group == GENERATED)), int(np.sum(val.group == GENERATED))))
        return original(train, val, *arguments, **more)

    monkeypatch.setattr("training.recipes.make.fit_network", spy)
    assert run("fit", folder, tmp_path / "out", "--generated", str(gan)) == 0
    assert sizes == [(n_used, 0)]
    card = json.loads((tmp_path / "out/run.json").read_text())["gan_gate"]
    assert (card["used"], card["n_generated"]) == (n_used > 0, n_used)


@pytest.mark.usefixtures("untraced")
def test_a_gan_of_another_dataset_or_an_unfinished_one_is_refused(folder, tmp_path, capsys, monkeypatch):
    gan = tmp_path / "gan"
    monkeypatch.setattr(generated, "run_gate", lambda *_arguments: GateResult(**passed()))
    assert run("gan", folder, gan, "--gate") == 0
    assert "gate passed (least sure gain in 5 folds: +0.100 over classical" in capsys.readouterr().out
    dataset = read_dataset(folder)
    assert len(read_generated(gan, CLASSES, dataset)[0]) == 4
    rewrite(folder, entries=dataset.entries[1:])
    assert run("fit", folder, tmp_path / "out", "--generated", str(gan)) == 2
    assert "of another dataset" in one_error(capsys)
    (gan / "provenance.json").unlink()
    assert run("fit", folder, tmp_path / "out", "--generated", str(gan)) == 2
    assert "holds no finished GAN" in one_error(capsys)


def test_the_gate_judges_each_fold_on_groups_that_neither_gan_nor_fit_saw(monkeypatch):
    real, fits, made_from = disks(40), [], []

    def make(rest):
        made_from.append(rest)
        made = disks(5, 7)
        made.group[:] = GENERATED
        return made

    def score(train, test, fit):
        fits.append((train, test, fit))
        return 0.9 if GENERATED in train.group else 0.8

    monkeypatch.setattr(generated, "_score", score)
    result = run_gate(real, FitSettings(batch=8), make, {}, lambda _line: None)
    assert isinstance(result, GateResult)
    assert result.n_folds == 5
    assert result.lower_classical == pytest.approx(0.1)
    assert result.note == "too few images to rule copies out; labels not checked"
    assert len(fits) == 15
    assert sorted(np.concatenate([test.group for _, test, _ in fits[::3]])) == sorted(real.group)
    for k, rest in enumerate(made_from):
        (with_gan, test, _), (alone, _, _), (copies, _, _) = fits[3 * k : 3 * k + 3]
        assert not set(test.group) & set(rest.group)
        assert np.array_equal(alone.x, rest.x)
        assert len(with_gan) == len(copies) == len(alone) + 5
        assert copies.count() == with_gan.count()
        assert {x.tobytes() for x in copies.x} == {x.tobytes() for x in rest.x}
        assert {fit.steps_per_epoch for _, _, fit in fits} == {4}  # 32 images in batches of 8


@pytest.mark.usefixtures("untraced")
def test_the_generator_of_the_lowest_kid_is_kept():
    gan = open_robust_gan(RobustSettings(steps=4, batch=4, choose_every=1), 2)
    seen = []

    def measure(one):
        seen.append(one.generator.get_weights())
        return [3.0, 1.0, 2.0, 1.5][len(seen) - 1]

    fit_gan(gan, disks(8), measure=measure)
    assert gan.kids == {1: 3.0, 2: 1.0, 3: 2.0, 4: 1.5}
    kept = gan.generator.get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(kept, seen[1], strict=True))
    assert not np.array_equal(kept[0], seen[3][0])


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(("n", "is_chosen"), [(220, True), (180, False)])
def test_the_robust_gan_chooses_on_training_groups_that_it_never_saw(n, is_chosen):
    settings = RobustSettings(steps=2, batch=4, choose_every=2)
    found = generate_anew(disks(n), settings, 4, FitSettings(epochs=1, batch=64), lambda _line: None)
    assert len(found.seen) == (0.8 * n if is_chosen else n)
    assert list(found.gans[0].kids) == ([2] if is_chosen else [])
    assert found.made.count() == {"live": 2, "dead": 2}
