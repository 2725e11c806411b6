"""Experiments: what is drawn, what may judge, what comes of it; tiny data, real tasks."""

import csv
import errno
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from device.errors import ConfigError
from device.images import write_png
from device.plates import DatasetInfo
from device.records import Scale
from training.cli import main
from training.cotraining.contrast import ContrastSettings
from training.cotraining.transfer import pretrain
from training.dataset import Entry, TrueCell, write_dataset
from training.dataset.folds import group_folds
from training.dataset.samples import Samples, join_samples
from training.evaluation.noise import estimate_noise, f1_ceiling
from training.evaluation.resampling import holm_adjusted, paired_difference
from training.experiment import ExperimentOptions, run_experiment
from training.experiment import draws as draws_module
from training.experiment.arms import ARMS
from training.experiment.draws import draw_labels, read_material
from training.experiment.fits import Draw, calibrate, find_shares, shift_to
from training.experiment.summary import summarize

CLASSES = ("live", "dead")
QUICK = ("majority", "features")


def make_samples(n, seed=0, *, per_group=3, dead_share=0.5, split="train"):
    """The mean gray of an image tells its class, with some overlap."""
    rng = np.random.default_rng(seed)
    y = (rng.permutation(n) < dead_share * n).astype(np.intp)
    x = rng.normal(110, 12, (n, 28, 28)) + 40 * y[:, None, None] + rng.normal(0, 15, (n, 1, 1))
    group = np.array([f"{split}-{i // per_group}" for i in range(n)])
    return Samples(x.clip(0, 255).astype(np.uint8), y, group, split, "drawn", CLASSES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six fields a split of living and dead squares on even medium; a well is a group."""
    place = tmp_path_factory.mktemp("squares")
    (place / "images").mkdir()
    rng = np.random.default_rng(0)
    entries, cells = [], {}
    for number in range(18):
        split = ("train", "val", "test")[number // 6]
        image, several = rng.normal(120, 3, (240, 240)), []
        for i, (row, col) in enumerate((r, c) for r in (50, 110, 170) for c in (50, 110, 170)):
            side, label = (14, "dead") if (i + number) % 3 == 0 else (24, "live")
            image[row : row + side, col : col + side] += -60 if label == "dead" else 45
            several.append(TrueCell(label, col, row, col + side - 1, row + side - 1))
        file = f"images/{number}.png"
        write_png(place / file, image.clip(0, 255).astype(np.uint8))
        entries.append(Entry(file, "", f"w{number}", split))
        cells[file] = tuple(several)
    info = DatasetInfo(Scale(0.65, "assumed"), "brightfield", "made up", "none", "suspension")
    write_dataset(place, info, entries, cells)
    return place


@pytest.fixture
def smuggle(monkeypatch):
    """A function that makes split val of every dataset what it is given; nothing stays cached."""

    def change(of_val):
        real = draws_module.bundle_samples

        def bundle(unit, classes, dataset, split):
            found = real(unit, classes, dataset, split)
            return of_val(found, real(unit, classes, dataset, "train")) if split == "val" else found

        monkeypatch.setattr(draws_module, "bundle_samples", bundle)
        read_material.cache_clear()

    yield change
    read_material.cache_clear()


def options(**changes):
    return replace(ExperimentOptions(QUICK, (8, None), n_seeds=2, control="majority"), **changes)


def run(folder, out, **changes):
    return run_experiment(folder, out, options(**changes), workers=1)


def without_time(results):
    return {key: {k: v for k, v in task.items() if k != "wall_s"} for key, task in results["tasks"].items()}


# what is drawn


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("ratio", "wanted"), [("equal", 10), ("natural", 4)])
def test_a_draw_has_the_classes_asked_for_and_forgets_all_other_labels(seed, ratio, wanted):
    samples = make_samples(100, dead_share=0.2)
    labeled, rest = draw_labels(samples, 20, seed, ratio)
    assert labeled.count() == {"live": 20 - wanted, "dead": wanted}
    assert len(rest) == 80
    assert set(rest.y.tolist()) == {-1}
    assert not {x.tobytes() for x in labeled.x} & {x.tobytes() for x in rest.x}


def test_a_draw_takes_whole_groups_of_each_class_where_they_fit():
    samples = make_samples(300)
    labeled, _ = draw_labels(samples, 61, 0, "equal")
    for k in (0, 1):
        there, taken = (Counter(some.group[some.y == k].tolist()) for some in (samples, labeled))
        assert sum(taken.values()) == (31, 30)[k]
        assert sum(0 < taken[group] < there[group] for group in there) <= 1


def test_draws_repeat_by_seed_and_differ_between_seeds():
    samples = make_samples(100)
    one, same, other = (draw_labels(samples, 20, seed, "equal")[0].x for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_rare_classes_keep_two_labels_in_natural_ratio():
    assert draw_labels(make_samples(200, dead_share=0.03), 20, 0, "natural")[0].count()["dead"] == 2


def test_all_takes_every_label():
    labeled, rest = draw_labels(make_samples(30), None, 0, "natural")
    assert (len(labeled), len(rest)) == (30, 0)


@pytest.mark.parametrize(
    ("n", "ratio", "most"), [(50, "equal", "at most 40"), (101, "natural", "at most 100")]
)
def test_a_budget_beyond_the_labels_says_what_there_is(n, ratio, most):
    with pytest.raises(ConfigError, match=most):
        draw_labels(make_samples(100, dead_share=0.2), n, 0, ratio)


def test_folds_divide_no_group_and_spread_the_classes():
    samples = make_samples(120, dead_share=0.3)
    fold = group_folds(samples, 4, 0)
    assert all(len(set(fold[samples.group == group].tolist())) == 1 for group in set(samples.group))
    dead = np.bincount(fold, samples.y == 1)
    assert dead.max() - dead.min() <= 4


# what may judge


def test_generated_images_never_judge(folder, tmp_path, smuggle):
    smuggle(lambda val, _: replace(val, group=np.where(np.arange(len(val)) == 3, "generated", val.group)))
    with pytest.raises(ConfigError, match="hold generated images"):
        run(folder, tmp_path)


def test_pseudo_labeled_images_never_judge(folder, tmp_path, smuggle):
    def add(val, train):
        unlabeled = draw_labels(train, 8, 0, "equal")[1].take(np.arange(4))
        return join_samples([val, replace(unlabeled, y=np.zeros(4, np.intp))])

    smuggle(add)
    with pytest.raises(ConfigError, match="groups that are trained on"):
        run(folder, tmp_path)


def test_turned_copies_under_another_name_never_judge(folder, tmp_path, smuggle):
    def add(val, train):
        copies = train.take(np.arange(2))
        copies = replace(copies, x=np.rot90(copies.x, 1, axes=(1, 2)), group=np.array(["a", "b"]))
        return join_samples([val, copies])

    smuggle(add)
    with pytest.raises(ConfigError, match="2 copies of images that are trained on"):
        run(folder, tmp_path)


def test_all_labels_are_those_of_val_too_only_where_test_judges(folder):
    by_val, by_test = (read_material(folder, "cell", split) for split in ("val", "test"))
    assert len(by_val.everything) == len(by_val.train) == len(by_test.train) == 54
    assert len(by_test.everything) == 108
    assert set(by_test.judged.group) == {f"w{i}" for i in range(12, 18)}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda val, _: val.take(val.y == 0), "has no dead"),
        (lambda val, _: replace(val, group=np.full(len(val), "w")), "has one group"),
    ],
)
def test_what_cannot_judge_is_refused_before_the_first_task(folder, tmp_path, smuggle, spoil, message):
    smuggle(spoil)
    with pytest.raises(ConfigError, match=message):
        run(folder, tmp_path)
    assert not (tmp_path / "tasks").exists()


# what comes of it


def test_an_experiment_leaves_results_tables_and_figures(folder, tmp_path, capsys):
    arguments = [
        "--arms",
        "majority,features,features+prior",
        "--labels",
        "8,all",
        "--seeds",
        "2",
        "--workers",
        "1",
    ]
    command = ["experiment", str(folder), "--out", str(tmp_path), *arguments, "--ratio", "equal,natural"]
    assert main([*command, "--control", "majority"]) == 0
    assert "| 8 | features | 1.000 (0.000) |" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["tasks"]) == 2 * 2 * 2 + 2 * 2  # `+prior` is another reading of the same fit
    assert set(results["data"]["sha256"]) == {"manifest.csv", "cells.csv"}
    task = results["tasks"]["features-equal-8-1"]
    assert task["n_labels"] == {"live": 4, "dead": 4}
    assert len(task["readings"]["features"]["p"]) == len(results["judged"]["y"]) == 54
    with (tmp_path / "summary.csv").open() as file:
        rows = {(row["ratio"], row["budget"], row["arm"]): row for row in csv.DictReader(file)}
    assert float(rows["equal", "8", "majority"]["balanced_accuracy"]) == 0.5
    best = rows["natural", "all", "features"]
    assert float(best["difference"]) == 1  # the majority finds no dead one
    assert best["differs"] == "True"
    for name in ("curves", "reliability", "confusion"):
        assert (tmp_path / f"{name}-natural.png").is_file()


def test_the_same_command_gives_the_same_numbers_and_goes_on_where_it_stood(folder, tmp_path):
    first = run(folder, tmp_path / "a", labels=(8,), arms=("forest",), n_seeds=1)
    again = run(folder, tmp_path / "b", labels=(8,), arms=("forest",), n_seeds=1)
    assert without_time(first) == without_time(again)
    wider = run(folder, tmp_path / "a", labels=(8,), arms=("forest", "majority"), n_seeds=1)
    assert wider["tasks"]["forest-equal-8-0"] == first["tasks"]["forest-equal-8-0"]  # its seconds too


def test_more_processes_or_a_cluster_give_the_same_numbers(folder, tmp_path):
    distributed = pytest.importorskip("distributed")
    asked = options(arms=("majority", "forest"), labels=(8,), n_seeds=1)
    alone, side_by_side = (run_experiment(folder, tmp_path / f"{n}", asked, workers=n) for n in (1, 2))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        there = run_experiment(folder, tmp_path / "there", asked, scheduler=cluster.scheduler_address)
    assert list(alone["tasks"]) == ["majority-equal-8-0", "forest-equal-8-0"]
    assert without_time(alone) == without_time(side_by_side) == without_time(there)
    tables = [
        csv.DictReader((tmp_path / name / "summary.csv").read_text().splitlines())
        for name in ("1", "2", "there")
    ]
    rows = [[{k: v for k, v in row.items() if k != "wall_s"} for row in table] for table in tables]
    assert rows[0] == rows[1] == rows[2]
    assert len(rows[0]) == 2


def test_tasks_of_other_code_are_done_again(folder, tmp_path, monkeypatch):
    asked = {"labels": (8,), "arms": ("majority",), "n_seeds": 1}
    run(folder, tmp_path, **asked)
    (kept,) = (tmp_path / "tasks").iterdir()
    monkeypatch.setitem(ARMS, "majority", stop)
    run(folder, tmp_path, **asked)  # kept: the arm is not asked
    before = kept.read_bytes()
    monkeypatch.setattr("training.experiment.code_sha256", lambda: "0" * 64)
    with pytest.raises(ConfigError, match="1 of 1 tasks failed"):
        run(folder, tmp_path, **asked)
    monkeypatch.setitem(ARMS, "majority", lambda draw: lambda x: np.tile([0, 1], (len(x), 1)))
    results = run(folder, tmp_path, **asked)
    assert results["tasks"]["majority-equal-8-0"]["readings"]["majority"]["p"][0] > 0.7
    assert results["made_with"]["code_sha256"] == "0" * 64
    assert kept.read_bytes() != before


def stop(_draw):
    raise ValueError("asked")


@pytest.mark.parametrize("name", ["majority-equal-8-0.json", "results.json", "summary.csv", "summary.md"])
def test_a_full_disk_names_the_file_and_keeps_finished_tasks(name, folder, tmp_path, monkeypatch, capsys):
    asked = ["--arms", "majority", "--labels", "8", "--seeds", "1", "--workers", "1"]
    command = ["experiment", str(folder), "--out", str(tmp_path), *asked]
    move = Path.replace

    def full(path, target):
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return move(path, target)

    monkeypatch.setattr(Path, "replace", full)
    assert main(command) == 2
    assert f"{name} cannot be written (No space left on device)" in capsys.readouterr().err
    assert not list(tmp_path.rglob(name))
    n_kept = len(list(tmp_path.glob("tasks/*.json")))
    assert n_kept == (0 if name.startswith("majority") else 1)
    monkeypatch.undo()
    assert main(command) == 0


def test_ctrl_c_keeps_finished_tasks(folder, tmp_path, monkeypatch):
    def interrupted(draw):
        raise KeyboardInterrupt

    monkeypatch.setitem(ARMS, "features", interrupted)
    with pytest.raises(KeyboardInterrupt, match="1 of 2 tasks are kept"):
        run(folder, tmp_path, labels=(8,), n_seeds=1)
    monkeypatch.undo()
    assert len(run(folder, tmp_path, labels=(8,), n_seeds=1)["tasks"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "cnn,witchcraft", "--labels", "8"], "unknown arm witchcraft; expected some of majority"),
        (["--arms", "majority", "--labels", "8,many"], "--labels has 'many'"),
        (["--arms", "majority", "--labels", "3"], "--labels has '3'"),
        (["--arms", "majority", "--labels", "500"], "expected at most"),
        (["--arms", "majority", "--labels", "8", "--seeds", "0"], "--seeds is 0"),
        (["--arms", "majority", "--labels", "8", "--ratio", "odd"], "--ratio is odd"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(folder, tmp_path, arguments, message, capsys):
    assert main(["experiment", str(folder), "--out", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_arms_differ_only_where_the_interval_says_so():
    y = np.tile([0, 1], 40)
    group = [f"g{i // 4}" for i in range(80)]
    near = np.where(y == 1, 0.9, 0.1)
    wrong = near.copy()
    wrong[:40:2] = 0.9  # half of the live ones called dead
    slightly = near.copy()
    slightly[0] = 0.9
    scores = dict.fromkeys(("balanced_accuracy", "f1_dead", "auc", "nll", "brier", "ece"), 0.5)
    tasks = {
        arm: {"arm": arm, "ratio": "equal", "budget": 8, "seed": 0, "n_labels": {"live": 4, "dead": 4}}
        | {"wall_s": 1.0, "readings": {arm: {"scores": scores, "p": p.tolist()}}}
        for arm, p in {"cnn": near, "bad": wrong, "near": slightly}.items()
    }
    judged = {"y": y.tolist(), "group": group}
    rows = summarize({"options": {"control": "cnn", "arms": list(tasks)}, "judged": judged, "tasks": tasks})
    found = {row.arm: (row.difference, row.differs) for row in rows}
    assert found["cnn"] == (None, None)
    assert found["bad"] == (pytest.approx(80 / 100 - 1), True)
    assert found["near"] == (pytest.approx(80 / 81 - 1), False)


def test_holm_raises_each_by_how_many_are_left():
    assert holm_adjusted([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm_adjusted([]) == []


def test_one_group_gives_no_interval_of_a_difference():
    assert paired_difference(["a", "a"], lambda index: 1.0) is None


# arms


def test_every_arm_says_what_it_is():
    assert all(arm.__doc__ and arm.__doc__.splitlines()[0].endswith(".") for arm in ARMS.values())


def draw(n_unlabeled=12, **changes):
    labeled, rest = draw_labels(make_samples(60), 12, 0, "equal")
    unlabeled = rest.take(np.arange(n_unlabeled))
    return replace(Draw(labeled, unlabeled, 4, 1, np.array([0.5, 0.5]), "station"), **changes)


@dataclass(frozen=True)
class Knows:
    """A fitted network that need not be fitted."""

    logits: Callable
    model: None = None
    temperature: float = 1.0


@pytest.fixture
def bright_is_dead(monkeypatch):
    """Every network is one that knows: what arms do around it takes no time."""

    def logits(x):
        dead = (x.mean(axis=(1, 2)) - 130) / 10
        return np.stack([-dead, dead], axis=1).astype(np.float32)

    network = Knows(logits)
    for module in ("training.experiment.fits", "training.cotraining.paper"):
        monkeypatch.setattr(f"{module}.fit_network", lambda *_, **__: network)
        monkeypatch.setattr(f"{module}.predict_logits", lambda _, x: logits(x))
    monkeypatch.setattr("training.experiment.arms.ContrastSettings", lambda: ContrastSettings(steps=1))


@pytest.mark.parametrize("arm", [name for name in ARMS if "gan" not in name])
def test_each_arm_gives_logits_of_any_number_of_images_from_hidden_labels(arm, bright_is_dead, monkeypatch):
    monkeypatch.setattr("training.experiment.arms.pretrain", lambda given: pretrain(replace(given, fields=1)))
    logits = ARMS[arm](draw())
    given = logits(make_samples(5, 9).x)
    assert given.shape == (5, 2)
    assert np.isfinite(given).all()
    assert logits(np.zeros((0, 28, 28), np.uint8)).shape == (0, 2)


def test_the_reference_is_a_real_network_and_repeats_by_seed():
    x = make_samples(5, 9).x
    one, same, other = (ARMS["cnn"](draw(steps=1, seed=seed))(x) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_generated_images_and_copies_are_as_many(monkeypatch):
    sizes = []
    monkeypatch.setattr("training.experiment.arms.GAN_STEPS", 2)

    def spy(samples, settings):
        sizes.append(len(samples))
        return lambda x: np.zeros((len(x), 2), np.float32)

    monkeypatch.setattr("training.experiment.fits.fit_turned", spy)
    for name in ("cnn+gan", "cnn+duplicates"):
        ARMS[name](draw())
    assert sizes.count(12 + 150) == 2


@pytest.mark.parametrize("arm", ["selftrain", "cotrain-paper", "cotrain-robust", "fixmatch"])
def test_arms_that_need_unlabeled_images_bear_none(arm, bright_is_dead):
    assert ARMS[arm](draw(0))(make_samples(5, 9).x).shape == (5, 2)


def test_calibration_softens_what_is_surely_wrong_and_bears_one_group():
    labeled = make_samples(60)
    noisy = replace(labeled, y=np.where(np.arange(60) % 3 == 0, 1 - labeled.y, labeled.y))

    def boast(samples):
        return lambda x: np.stack([-(x.mean(axis=(1, 2)) - 130), x.mean(axis=(1, 2)) - 130], axis=1) / 2

    known = draw(0, labeled=noisy)
    logits = boast(noisy)
    assert np.abs(calibrate(logits, known, boast)(labeled.x)).max() < np.abs(logits(labeled.x)).max() / 3
    lone = replace(known, labeled=replace(noisy, group=np.full(60, "one")))
    assert np.allclose(calibrate(logits, lone, boast)(labeled.x), logits(labeled.x))


def test_calls_are_shifted_to_the_shares_of_the_unlabeled_images():
    some = make_samples(400, dead_share=0.1)
    clear = replace(some, x=np.where(some.y[:, None, None] == 1, some.x | 128, some.x & 127))
    known = Draw(*draw_labels(clear, 20, 0, "equal"), 1, 0, np.array([0.3, 0.7]), "station")
    shares = find_shares(known)
    assert shares == pytest.approx([0.92, 0.08], abs=0.03)  # ten of forty dead ones are labeled

    def logits(x):
        dead = (x.mean(axis=(1, 2)) - 100) / 10  # calls nearly all dead
        return np.stack([-dead, dead], axis=1).astype(np.float32)

    given = logits(known.unlabeled.x)
    for wanted in (shares, known.shares):
        called = (given + shift_to(wanted, given)).argmax(axis=1)
        assert np.mean(called == 1) == pytest.approx(wanted[1], abs=0.02)


def test_shares_are_a_prior_where_nothing_is_unlabeled():
    rare = make_samples(40, dead_share=0.1)
    known = Draw(rare, rare.take(np.zeros(0, np.intp)), 1, 0, np.array([0.5, 0.5]), "station")
    assert find_shares(known).tolist() == [0.9, 0.1]
    shifted = shift_to(find_shares(known), np.zeros((0, 2), np.float32))
    assert shifted == pytest.approx(np.log([0.9, 0.1]), abs=1e-6)


# noise of labels


def test_wrong_labels_are_counted_and_come_first():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 2, 1000)
    p_dead = np.where(true == 1, 0.97, 0.03) + rng.uniform(-0.02, 0.02, 1000)
    y = true.copy()
    flipped = np.flatnonzero(true == 1)[:50]
    y[flipped] = 0
    found = estimate_noise(np.stack([1 - p_dead, p_dead], axis=1), y)
    assert set(found.suspects) <= set(flipped.tolist())
    assert len(found.suspects) > 15  # those as sure as a label of their class usually is
    assert 0.03 < found.wrong[0] < 0.1  # 50 of about 550
    assert found.wrong[1] == 0
    assert found.disagreement == 0.05


def test_clean_labels_leave_nothing_to_doubt():
    y = np.tile([0, 1], 20)
    p = np.stack([np.where(y == 0, 0.9, 0.1), np.where(y == 1, 0.9, 0.1)], axis=1)
    found = estimate_noise(p, y)
    assert found.suspects == ()
    assert f1_ceiling(found.joint, 100)[0] == 1


def test_noise_lowers_what_a_perfect_classifier_can_reach():
    mean, interval = f1_ceiling(((0.8, 0.02), (0.02, 0.16)), 500)
    assert mean == pytest.approx(2 * 0.16 / (2 * 0.16 + 0.04), abs=0.01)
    assert interval.low < mean < interval.high


def test_noise_needs_labels_of_each_class():
    with pytest.raises(ValueError, match="expected some of each of 2"):
        estimate_noise(np.full((3, 2), 0.5), np.zeros(3, np.intp))


def test_the_noise_report_shows_the_worst_labels(folder, tmp_path):
    run(folder, tmp_path, labels=(8,), arms=("majority",), n_seeds=1, noise=True)
    document = json.loads((tmp_path / "noise.json").read_text())
    assert document["n"] == 108
    assert document["n_judged"] == 54
    assert document["f1_ceiling"] > 0.9
    assert "Labels of 108: 0.0% called otherwise" in (tmp_path / "summary.md").read_text()
