"""FixMatch, transfer from rendered cells, and co-training on whole fields: tiny data, real code."""

import json
from dataclasses import replace

import numpy as np
import pytest

from device.analysis.phantom import render_field
from device.errors import ConfigError
from device.images import write_png
from device.plates import DatasetInfo
from device.records import Scale
from training.cli import main
from training.dataset import Entry, write_dataset
from training.dataset.samples import Samples
from training.fitting import FitSettings, fit_network, seed_network
from training.provenance import read_run

pytestmark = pytest.mark.training
CLASSES = ("live", "dead")
UNLABELED_FIELDS = (12, 13)


def disks(n, seed=0, contrast=80):
    """Bright disks are dead, dark ones live."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:28, :28]
    y = np.arange(n) % 2
    disk = np.exp(-((rows - 13.5) ** 2 + (cols - 13.5) ** 2) / 40)
    x = 128 + np.where(y == 1, contrast, -contrast)[:, None, None] * disk + rng.normal(0, 6, (n, 28, 28))
    group = np.array([f"{seed}-{i // 2}" for i in range(n)])
    return Samples(np.clip(x, 0, 255).astype(np.uint8), y.astype(np.intp), group, "train", "drawn", CLASSES)


def settings(**changes):
    from training.cotraining.fixmatch import FixMatchSettings

    fit = FitSettings(epochs=2, steps_per_epoch=12, batch=4, learning_rate=5e-3, shift_px=2, seed=3)
    return FixMatchSettings(fit, **changes)


def hidden(n, seed=1):
    samples = disks(n, seed)
    samples.y[:] = -1
    return samples


def test_fixmatch_learns_from_the_unlabeled_and_repeats_itself():
    from training.cotraining.fixmatch import fit_fixmatch

    lines = []
    labeled, unlabeled, other = disks(4), hidden(40), disks(20, 2)
    one, again = (fit_fixmatch(labeled, unlabeled, settings(), lines.append) for _ in range(2))
    assert (one.logits(other.x).argmax(axis=1) == other.y).all()
    assert np.array_equal(one.logits(other.x), again.logits(other.x))
    assert one.history[-1]["sure"] > 0.5
    assert "sure of" in lines[-1]
    deaf = fit_fixmatch(labeled, unlabeled, settings(weight=0.0))
    assert not np.array_equal(one.logits(other.x), deaf.logits(other.x))


def test_fixmatch_learns_only_what_it_is_sure_of():
    from training.cotraining.fixmatch import fit_fixmatch

    never = fit_fixmatch(disks(4), hidden(40), settings(confidence_min=1.1))
    deaf = fit_fixmatch(disks(4), hidden(40), settings(weight=0.0))
    assert never.history[-1]["sure"] == 0
    assert np.array_equal(never.logits(disks(6).x), deaf.logits(disks(6).x))


def test_fixmatch_without_unlabeled_is_a_fit_to_the_labels():
    from training.cotraining.fixmatch import fit_fixmatch

    fitted = fit_fixmatch(disks(4), hidden(0), settings())
    assert np.isfinite([epoch["loss"] for epoch in fitted.history]).all()
    assert fitted.history[-1]["sure"] == 0


def test_fixmatch_names_a_class_without_labels():
    from training.cotraining.fixmatch import fit_fixmatch

    live = disks(8).take(np.arange(0, 8, 2))
    with pytest.raises(ConfigError, match=r"have no dead \(found .*expected some of each class"):
        fit_fixmatch(live, hidden(4), settings())


def test_strong_changes_cover_a_part_and_weak_ones_keep_the_gray():
    from training.cotraining.fixmatch import _weak_and_strong

    x = np.full((32, 28, 28), 200, np.uint8)
    weak, strong = _weak_and_strong(x, settings(noise=0.0), np.random.default_rng(0))
    assert (weak == np.float32(72 / 128)).all()
    covered = (strong == 0).mean(axis=(1, 2))
    assert covered.max() == pytest.approx(100 / 784)
    assert covered.min() > 0  # at the border a part of the square lies beyond


def test_a_network_goes_on_from_what_rendered_cells_taught_it(tmp_path):
    from training.cotraining.transfer import PretrainSettings, keep_pretrained, pretrain

    small = PretrainSettings(fields=1, steps=2, seed=5)
    weights = keep_pretrained(small, tmp_path / "run" / "pretrained.npz")
    pretrain.cache_clear()
    again = pretrain(small)
    assert all(np.array_equal(one, other) for one, other in zip(weights, again, strict=True))
    pretrain.cache_clear()
    kept = keep_pretrained(small, tmp_path / "run" / "pretrained.npz")
    assert pretrain.cache_info().misses == 0  # read, not fitted again
    assert all(np.array_equal(one, other) for one, other in zip(kept, weights, strict=True))
    begun = seed_network(FitSettings(), 2, weights).get_weights()
    fresh = seed_network(FitSettings(), 2).get_weights()
    assert all(np.array_equal(one, other) for one, other in zip(begun[:-2], weights[:-2], strict=True))
    assert all(np.array_equal(one, other) for one, other in zip(begun[-2:], fresh[-2:], strict=True))
    still = FitSettings(epochs=1, steps_per_epoch=1, batch=4, learning_rate=0.0)
    fitted = fit_network(disks(4), None, still, start=weights).model.get_weights()
    assert np.array_equal(fitted[0], weights[0])


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """Rendered fields, every other one toxic."""
    folder = tmp_path_factory.mktemp("fields")
    (folder / "images").mkdir()
    entries = []
    for i in range(22):
        toxic = i % 2 == 1
        image = render_field(
            modality="phase", seed=i, size=(200, 240), n_cells=14, dead_fraction=0.9 if toxic else 0.05
        ).image
        write_png(folder / f"images/{i}.png", image)
        label = "toxic" if toxic else "non_toxic"
        split = "unlabeled" if i in UNLABELED_FIELDS else "train" if i < 16 else "val"
        label = "" if split == "unlabeled" else label
        entries.append(Entry(f"images/{i}.png", label, f"well-{i}", split))
    info = DatasetInfo(Scale(0.65, "measured"), "phase", "drawn", "Apache-2.0", assay="adherent")
    write_dataset(folder, info, entries)
    return folder


def test_robust_cotraining_on_fields_counts_cells_as_its_second_view(fields, tmp_path, capsys):
    options = ["--unit", "field", "--profile", "robust", "--labels", "10", "--epochs", "1", "--rounds", "1"]
    assert main(["cotrain", str(fields), "--out", str(tmp_path), *options]) == 0
    assert "counting the cells of each field with phase-cell" in capsys.readouterr().err
    scores = json.loads((tmp_path / "metrics.json").read_text())["scores"]
    assert list(scores) == [
        "station alone",
        "counts alone",
        "station co-trained",
        "counts co-trained",
        "both co-trained",
        "station with labels alone",
        "station with I_F too",
        "count rule",
    ]
    assert scores["counts alone"]["balanced_accuracy"] == 1
    assert scores["count rule"]["balanced_accuracy"] == 1
    assert read_run(tmp_path)[0].kind == "field"
    assert (tmp_path / "log.csv").read_text().startswith("round_index,")


def test_fields_are_counted_by_a_model_of_their_kind_only(fields, tmp_path, capsys):
    options = ["--unit", "field", "--profile", "robust", "--model", "chamber-cell"]
    assert main(["cotrain", str(fields), "--out", str(tmp_path), *options]) == 2
    assert "model chamber-cell is for assay suspension; expected adherent" in capsys.readouterr().err


def test_the_papers_cotraining_runs_on_fields(fields, tmp_path):
    options = ["--unit", "field", "--labels", "8", "--count", "0", "--epochs", "1", "--rounds", "1"]
    assert main(["cotrain", str(fields), "--out", str(tmp_path), *options]) == 0
    found = read_run(tmp_path)[0]
    assert (found.kind, found.classes) == ("field", ("non_toxic", "toxic"))


def test_fixmatch_of_the_command_line_leaves_a_run(fields, tmp_path, capsys):
    options = ["--unit", "field", "--profile", "fixmatch", "--labels", "8", "--epochs", "1"]
    assert main(["cotrain", str(fields), "--out", str(tmp_path), *options]) == 0
    assert "val, station by FixMatch: balanced accuracy" in capsys.readouterr().out
    assert read_run(tmp_path)[0].learner == "station"
    assert json.loads((tmp_path / "options.json").read_text())["n_unlabeled"] == 6 + len(UNLABELED_FIELDS)


def test_a_fit_goes_on_from_a_run_of_the_same_network_only(fields, tmp_path, capsys):
    few = ["--unit", "field", "--epochs", "1"]
    assert main(["fit", str(fields), "--out", str(tmp_path / "first"), *few]) == 0
    more = [*few, "--labels", "8", "--pretrain", str(tmp_path / "first")]
    assert main(["fit", str(fields), "--out", str(tmp_path / "second"), *more]) == 0
    assert "began with the run" in read_run(tmp_path / "second")[0].limits[-1]
    assert main(["fit", str(fields), "--out", str(tmp_path / "third"), *more, "--learner", "table2"]) == 2
    assert "holds a station; expected a table2 (--learner)" in capsys.readouterr().err


def test_counts_of_a_field_without_cells_are_numbers():
    from device.analysis.assess import AnalysisSettings, assess
    from device.records import Frame
    from training.export.acceptance import NO_TIME
    from training.recipes.counts import count_features

    frame = Frame(np.full((200, 240), 120, np.uint8), NO_TIME, "drawn", 0, Scale(0.65, "measured"))
    empty = assess(frame, None, AnalysisSettings("adherent", "phase", "paper"))
    features = count_features(empty)
    assert features.shape == (11,)
    assert np.isfinite(features).all()
    many = count_features(replace(empty, n_dead=20, n_live=1))
    assert many[0] > 2 > features[0]
