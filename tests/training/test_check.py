"""`data check`: each code on made-up sets, both sides of its limit, and what it says of the shared sets."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from device.images import write_png
from device.plates import DatasetInfo
from device.records import Interval, Scale
from training.cli import main
from training.dataset import Entry, TrueCell, read_dataset, write_dataset
from training.dataset.twins import find_twins, make_thumbnail
from training.evaluation.check import _judged
from training.evaluation.confounds import (
    GIVEN_AWAY_FROM,
    describe_background,
    hide_cells,
    judge_batches,
    judge_features,
)

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
INFO = DatasetInfo(Scale(0.65, "measured"), "phase", "drawn for a test", "Apache-2.0", assay="adherent")
SPLITS = ("train", "train", "val", "test")
LABELS = ("non_toxic", "toxic")
BOX = TrueCell("live", 20, 20, 40, 40)


def draw_field(seed, size=(96, 96)):
    """A field of random blobs as unlike others as real ones are."""
    rng = np.random.default_rng(seed)
    blobs = cv2.GaussianBlur(rng.normal(0, 1, size), (0, 0), 3)
    return 120 + 20 * blobs / blobs.std() + rng.normal(0, 2, size)


def write_set(folder, images, *, boxes=True, **columns):
    """Write images as a dataset of alternating labels, a group each; `columns` give other values."""
    entries, cells = [], {}
    for i, image in enumerate(images):
        file = f"images/{i:02d}.png"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        write_png(folder / file, np.clip(image, 0, 255).astype(np.uint8))
        row = {"label": LABELS[i % 2], "group": f"g{i}", "split": SPLITS[i // 2 % 4]}
        entries.append(Entry(file, **(row | {name: values[i] for name, values in columns.items()})))
        cells[file] = (BOX, TrueCell("dead", 50, 50, 70, 70))
    write_dataset(folder, INFO, entries, cells if boxes else None)
    return folder


def check(folder, capsys):
    """Return exit code, refused codes, and findings by code (the last of several)."""
    code = main(["data", "check", str(folder), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] == (code == 0)
    return code, document["codes"], document["checks"]


def finding(checks, code, measure=""):
    return next(c for c in checks if c["code"] == code and measure in c["measure"])


def test_a_sound_set_passes_and_each_check_says_its_number(tmp_path, capsys):
    code, codes, checks = check(write_set(tmp_path, [draw_field(i) for i in range(24)]), capsys)
    assert (code, codes) == (0, [])
    assert [c["code"] for c in checks] == [
        "FILES",
        "LEAKAGE",
        "DUPLICATE",
        "NEAR_DUPLICATE",
        "SINGLE_CLASS",
        "LABEL_FROM_BACKGROUND",
        "LABEL_FROM_BATCH",
        "LABEL_FROM_BATCH",
    ]
    assert [c["passed"] for c in checks] == [True] * 7 + [None]
    assert all(c["value"] is not None for c in checks[:7])
    assert finding(checks, "LABEL_FROM_BACKGROUND")["interval"]["low"] < GIVEN_AWAY_FROM


def test_the_same_set_gives_the_same_numbers(tmp_path, capsys):
    folder = write_set(tmp_path, [draw_field(i) for i in range(12)])
    assert check(folder, capsys) == check(folder, capsys)


def test_words_name_each_code_with_what_was_found_and_expected(tmp_path, capsys):
    images = [draw_field(i) for i in range(24)]
    images[4:7:2] = [images[0]] * 2
    assert main(["data", "check", str(write_set(tmp_path, images, group=["g"] * 24))]) == 1
    said = capsys.readouterr()
    assert not said.out
    assert "LEAKAGE REFUSED: groups in two splits 1, limit 0" in said.err
    assert "  images/04.png (val) is an exact copy of images/00.png (train)" in said.err
    assert "  expected copies in one group of one split" in said.err
    assert "is refused: DUPLICATE, LEAKAGE, NEAR_DUPLICATE" not in said.err
    assert "is refused: DUPLICATE, LEAKAGE" in said.err


def test_copies_inside_a_split_are_no_fault(tmp_path, capsys):
    images = [draw_field(i) for i in range(24)]
    images[2] = images[0]
    assert check(write_set(tmp_path, images), capsys)[1] == []


def alter(image):
    """Mirror, shift by 3 px, darken and add noise."""
    moved = np.roll(image[:, ::-1], (3, -3), (0, 1))
    return moved * 0.8 + np.random.default_rng(9).normal(0, 2, image.shape)


def test_a_mirrored_shifted_darker_copy_in_another_split_is_refused(tmp_path, capsys):
    images = [draw_field(i) for i in range(24)]
    images[4] = alter(images[0])
    _, codes, checks = check(write_set(tmp_path, images), capsys)
    assert codes == ["NEAR_DUPLICATE"]
    assert finding(checks, "NEAR_DUPLICATE")["value"] >= 0.9
    assert "images/00.png (train) shows images/04.png (val)" in finding(checks, "NEAR_DUPLICATE")["found"][0]


@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_each_position_of_a_square_is_the_same_field(turn, mirrored):
    image = draw_field(1).astype(np.uint8)
    other = np.rot90(image[:, ::-1] if mirrored else image, turn)
    twins = find_twins(np.array([make_thumbnail(i) for i in (image, other)]), ["train", "test"])
    assert [pair[:2] for pair in twins.pairs] == [(0, 1)]
    assert twins.pairs[0][2] > 0.99


def test_half_a_field_in_common_is_no_twin():
    image = draw_field(1, (96, 192)).astype(np.uint8)
    parts = [np.ascontiguousarray(image[:, col : col + 96]) for col in (0, 48)]
    assert not find_twins(np.array([make_thumbnail(part) for part in parts]), ["train", "test"]).pairs


def test_twins_need_two_splits():
    same = np.array([make_thumbnail(draw_field(1).astype(np.uint8))] * 2)
    twins = find_twins(same, ["train", "train"])
    assert (twins.pairs, twins.highest) == ((), 0)


def test_wells_of_one_outline_are_no_twins_and_a_copy_among_them_is():
    outline = np.zeros((96, 96))
    cv2.circle(outline, (48, 48), 36, 160, cv2.FILLED)
    images = [outline + draw_field(i) / 4 for i in range(16)]
    images.append(images[0][:, ::-1] * 0.8)
    thumbnails = np.array([make_thumbnail(np.clip(i, 0, 255).astype(np.uint8)) for i in images])
    twins = find_twins(thumbnails, ["train"] * 8 + ["test"] * 9)
    assert twins.limit > 0.9
    assert [pair[:2] for pair in twins.pairs] == [(0, 16)]


def test_flat_images_have_no_twins():
    flat = np.full((2, 64, 64), 7, np.float32)
    assert not find_twins(flat, ["train", "test"]).pairs


def test_a_set_of_one_class_is_refused_and_one_without_labels_not_judged(tmp_path, capsys):
    images = [draw_field(i) for i in range(12)]
    toxic = write_set(tmp_path / "a", images, boxes=False, label=["toxic"] * 12)
    assert check(toxic, capsys)[1] == ["SINGLE_CLASS"]
    unknown = write_set(tmp_path / "b", images, boxes=False, label=[""] * 12)
    code, _, checks = check(unknown, capsys)
    assert code == 0
    assert {c["code"] for c in checks if c["passed"] is None} == {
        "SINGLE_CLASS",
        "LABEL_FROM_BACKGROUND",
        "LABEL_FROM_BATCH",
    }


def test_fields_of_one_class_pass_where_their_cells_have_two(tmp_path, capsys):
    images = [draw_field(i) for i in range(12)]
    assert check(write_set(tmp_path, images, label=["toxic"] * 12), capsys)[1] == []


def test_a_split_of_one_class_is_refused_where_the_set_has_two(tmp_path, capsys):
    labels = ["toxic" if i // 2 % 4 == 3 else LABELS[i % 2] for i in range(12)]
    _, codes, checks = check(write_set(tmp_path, [draw_field(i) for i in range(12)], label=labels), capsys)
    assert codes == ["SINGLE_CLASS"]
    assert finding(checks, "SINGLE_CLASS")["found"] == ["split test holds only images that are toxic"]


def shade(i, amount):
    """A field that is brighter on one side."""
    return draw_field(i) + amount * np.linspace(-1, 1, 96)


def test_light_that_falls_from_the_side_of_the_label_is_refused(tmp_path, capsys):
    told = write_set(tmp_path / "a", [shade(i, 30 if i % 2 else -30) for i in range(24)])
    assert check(told, capsys)[1] == ["LABEL_FROM_BACKGROUND"]
    mixed = write_set(tmp_path / "b", [shade(i, 30 if i // 2 % 2 else -30) for i in range(24)])
    assert check(mixed, capsys)[1] == []


def test_the_cells_themselves_may_tell_the_label(tmp_path, capsys):
    images = [draw_field(i) for i in range(24)]
    for image in images[1::2]:
        image[20:41, 20:41] = 250
    assert check(write_set(tmp_path, images), capsys)[1] == []


@pytest.mark.parametrize(("factor", "codes"), [(1.3, ["LABEL_FROM_BATCH"]), (1.005, [])])
def test_a_brighter_lamp_for_one_label_is_refused(factor, codes, tmp_path, capsys):
    images = [draw_field(i) * (factor if i % 2 else 1) for i in range(24)]
    assert check(write_set(tmp_path, images), capsys)[1] == codes


@pytest.mark.parametrize(("boxes", "codes"), [(True, ["LABEL_FROM_BATCH"]), (False, [])])
def test_noise_counts_where_outlines_say_what_is_background(boxes, codes, tmp_path, capsys):
    rng = np.random.default_rng(5)
    images = [draw_field(i) + rng.normal(0, 8 * (i % 2) + 0.1, (96, 96)) for i in range(24)]
    assert check(write_set(tmp_path, images, boxes=boxes), capsys)[1] == codes


def test_a_label_for_each_day_is_refused_and_both_on_each_day_pass(tmp_path, capsys):
    images = [draw_field(i) for i in range(24)]
    told = write_set(tmp_path / "a", images, batch=[f"day{i % 2}" for i in range(24)])
    _, codes, checks = check(told, capsys)
    assert codes == ["LABEL_FROM_BATCH"]
    assert finding(checks, "LABEL_FROM_BATCH", "of a batch")["value"] == 1
    mixed = write_set(tmp_path / "b", images, batch=[f"day{i // 2 % 2}" for i in range(24)])
    _, codes, checks = check(mixed, capsys)
    assert codes == []
    assert finding(checks, "LABEL_FROM_BATCH", "of a batch")["passed"] is True


def test_one_well_for_a_label_tells_the_well_and_two_are_not_judged(tmp_path, capsys):
    images = [draw_field(i) for i in range(12)]
    one = write_set(tmp_path / "a", images, group=[f"w{i % 2 * (1 + i // 2)}" for i in range(12)])
    assert check(one, capsys)[1] == ["LABEL_FROM_BATCH", "LEAKAGE"]
    two = write_set(tmp_path / "b", images, group=[f"w{i % 4}" for i in range(12)])
    _, codes, checks = check(two, capsys)
    assert codes == ["LEAKAGE"]
    assert finding(checks, "LABEL_FROM_BATCH", "of a batch")["passed"] is None


def test_batches_are_judged_by_the_others_of_each():
    toxic = np.array([True, True, True, False, False, False, True, False])
    assert judge_batches(toxic, list("aaabbbab"))[0] == 1
    assert judge_batches(toxic, list("abcdefgh"))[0] == 0.5
    assert judge_batches(toxic, ["a"] * 8)[0] == 0
    assert judge_batches(np.ones(4, bool), list("aabb")) is None


@pytest.mark.parametrize(("n_groups", "is_judged"), [(7, False), (8, True)])
def test_eight_groups_of_each_label_are_needed_to_judge_light(n_groups, is_judged):
    toxic = np.repeat([False, True], 10)
    groups = [f"{t}{i % (n_groups if t else 10)}" for i, t in enumerate(toxic)]
    judged = judge_features(toxic[:, None].astype(float), toxic, groups)
    assert (judged is not None) == is_judged
    if judged:
        assert judged[0] == 1


@pytest.mark.parametrize(("low", "passed"), [(0.6, False), (0.5999, True)])
def test_the_lower_end_of_the_interval_decides(low, passed):
    found = _judged("LABEL_FROM_BATCH", "AUC", (0.8, Interval(low, 0.9)), "")
    assert found.passed is passed
    assert bool(found.found) is not passed


def test_hidden_cells_leave_no_trace_in_what_describes_the_background():
    image = np.full((96, 96), 100, np.uint8)
    image[18:43, 18:43] = 200
    background = hide_cells(image.shape, None, [BOX])
    light, taken = describe_background(image, background)
    np.testing.assert_array_equal(light, 0)
    np.testing.assert_allclose(taken, [np.log1p(100), 0, 96, 96])
    everything = hide_cells(image.shape, np.ones((96, 96), np.uint16), [])
    assert not everything.any()
    light, taken = describe_background(image, everything)
    assert (light == 0).all()
    assert taken[0] == 0


def test_a_mask_of_another_size_is_a_fault(tmp_path, capsys):
    folder = write_set(tmp_path, [draw_field(i) for i in range(12)])
    (folder / "masks").mkdir()
    write_png(folder / "masks/00.png", np.zeros((9, 9), np.uint8))
    _, codes, checks = check(folder, capsys)
    assert codes == ["FILES"]
    assert "00.png is (9, 9); expected (96, 96), as its image" in finding(checks, "FILES")["found"][0]


def test_an_import_is_done_once_written_whatever_the_check_says(tmp_path, capsys):
    source = write_set(
        tmp_path / "a", [draw_field(i) for i in range(12)], batch=[f"d{i % 2}" for i in range(12)]
    )
    words = ["--um-per-px", "0.65", "--modality", "phase", "--out", str(tmp_path / "b")]
    assert main(["data", "import", "csv", str(source / "manifest.csv"), *words]) == 0
    assert "do not fit on it before the check passes" in capsys.readouterr().err
    assert [entry.batch for entry in read_dataset(tmp_path / "b").entries[:3]] == ["d0", "d1", "d0"]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("bbbc010", ["LABEL_FROM_BACKGROUND"]),
        ("cbc_blood", []),
        ("celldeath_u2os", ["LABEL_FROM_BATCH"]),
        ("dsb2018", []),
        ("hepg2_huh7", []),
        ("ldc", []),
        ("usiigaci", ["SINGLE_CLASS"]),
    ],
)
def test_shared_sets_are_refused_for_what_is_known_of_them(kind, refused, tmp_path, capsys):
    if not (SHARED / kind).is_dir():
        pytest.skip(f"no shared/data/{kind} beside the checkout")
    assert main(["data", "import", kind, str(SHARED / kind), "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    code, codes, _ = check(tmp_path, capsys)
    assert (code, codes) == (int(bool(refused)), refused)
    if kind == "ldc":
        assert sum(entry.split == "test" for entry in read_dataset(tmp_path).entries) == 154
        scatter(tmp_path)
        code, codes, _ = check(tmp_path, capsys)
        assert (code, "NEAR_DUPLICATE" in codes) == (1, True)


def scatter(folder):
    """Make each file a group of its own and draw splits by file."""
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    splits = np.random.default_rng(0).choice(["train", "val", "test"], len(rows), p=[0.7, 0.15, 0.15])
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(
            row | {"group": row["file"], "split": split} for row, split in zip(rows, splits, strict=True)
        )
