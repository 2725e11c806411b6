from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device.analysis.assess import AnalysisSettings, assess
from device.analysis.counting import labels_in_frame
from device.analysis.judgment import Judgment
from device.analysis.phantom import render_field
from device.analysis.quality import FocusReference, QualityLimits
from device.records import CellClass, Frame, ModelId, Outcome, Reason, Scale

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
MEASURED = Scale(0.65, "measured")
ADHERENT = AnalysisSettings("adherent", "phase")


class BrightnessClassifier:
    """Calls by the brightness of the middle: bright is rounded, dark is live, gray is other."""

    id = ModelId("brightness", "0" * 64, trusted=False)
    classes = (CellClass.LIVE, CellClass.ROUNDED, CellClass.OTHER)

    def __call__(self, crops):
        middle = crops[:, 10:18, 10:18].mean(axis=(1, 2))
        dead = (middle > 160).astype(np.float32)
        live = (middle < 112).astype(np.float32)
        return Judgment(np.stack([live, dead, 1 - live - dead], axis=1))


class TwoClassClassifier(BrightnessClassifier):
    id = ModelId("two", "0" * 64, trusted=False)
    classes = (CellClass.LIVE, CellClass.DEAD)

    def __call__(self, crops):
        dead = crops[:, 10:18, 10:18].mean(axis=(1, 2)) > 128
        return Judgment(np.stack([~dead, dead], axis=1).astype(np.float32))


class HalfToxic:
    id = ModelId("half", "1" * 64, trusted=True)

    def __call__(self, relative):
        assert relative.shape == (300, 400)
        assert relative.dtype == np.uint8
        return 0.5


CLASSIFY = BrightnessClassifier()


def frame_of(image, scale=MEASURED, **options):
    taken_at = datetime(2026, 7, 1, 12, tzinfo=UTC)
    return Frame(image, taken_at, "test", 7, scale, **({"well": "A1", "field": 3} | options))


@pytest.fixture(scope="module")
def phantom():
    return render_field(modality="phase", seed=8, size=(300, 400), n_cells=45, dead_fraction=0.4)


@pytest.fixture(scope="module")
def reading(phantom):
    return assess(frame_of(phantom.image, simulated=True), CLASSIFY, ADHERENT)


def n_labels(labels):
    return len(np.unique(labels[labels > 0]))


def assert_consistent(reading):
    regions = reading.n_live + reading.n_dead + reading.n_other
    assert regions == n_labels(reading.labels) == int(reading.labels.max(initial=0))
    assert len(reading.cells) == reading.n_live + reading.n_dead
    assert [cell.region for cell in reading.cells] == list(range(1, len(reading.cells) + 1))
    masks = labels_in_frame(reading)
    assert masks.shape == (reading.height_px, reading.width_px)
    assert n_labels(masks) == regions
    for cell in reading.cells:
        assert masks[round(cell.row), round(cell.col)] == cell.region
    counted = [cell for cell in reading.cells if cell.counted]
    assert reading.tally.n_cells == len(counted)
    assert reading.tally.n_dead == sum(cell.label == "dead" for cell in counted)


def test_a_reading_carries_its_frame_and_counts(phantom, reading):
    assert (reading.source, reading.sequence, reading.well, reading.field) == ("test", 7, "A1", 3)
    assert reading.simulated
    assert (reading.height_px, reading.width_px) == phantom.image.shape
    assert reading.cell_model == CLASSIFY.id
    assert reading.field_model is None
    assert reading.n_dead > 5
    assert reading.n_live > 5
    assert reading.affected == reading.tally.n_dead / reading.tally.n_cells
    assert_consistent(reading)


def test_one_field_decides_nothing(reading):
    assert reading.outcome is Outcome.INCONCLUSIVE
    assert reading.reasons == ()


def test_rounded_cells_are_counted_where_they_are(phantom, reading):
    truth = [
        (thing.row, thing.col)
        for thing in phantom.objects
        if thing.cell_class is CellClass.ROUNDED and thing.visible_fraction > 0.8 and thing.radius_um > 5
    ]
    dead = np.array([(cell.row, cell.col) for cell in reading.cells if cell.label == "dead"])
    nearest = np.linalg.norm(np.array(truth)[:, None] - dead[None], axis=2).min(axis=1)
    assert (nearest < 6 / 0.65).mean() > 0.9


def test_the_same_frame_gives_the_same_reading(phantom, reading):
    again = assess(frame_of(phantom.image, simulated=True), CLASSIFY, ADHERENT)
    assert np.array_equal(again.labels, reading.labels)
    assert (again.cells, again.tally, again.quality) == (reading.cells, reading.tally, reading.quality)


def test_the_frame_is_not_modified(phantom):
    image = phantom.image.copy()
    assess(frame_of(image), CLASSIFY, ADHERENT)
    assert np.array_equal(image, phantom.image)


def test_an_assumed_scale_makes_areas_null_and_is_flagged(phantom):
    reading = assess(frame_of(phantom.image, Scale(0.65, "assumed")), CLASSIFY, ADHERENT)
    assert all(cell.area_um2 is None for cell in reading.cells)
    assert reading.tally.area_mm2 is None
    assert reading.reasons == (Reason.SCALE_ASSUMED,)
    assert reading.outcome is Outcome.INCONCLUSIVE


def test_few_cells_are_a_flag_and_no_refusal():
    image = render_field(modality="phase", seed=1, size=(200, 200), n_cells=3).image
    reading = assess(frame_of(image), CLASSIFY, ADHERENT)
    assert reading.quality.passed
    assert Reason.TOO_FEW_CELLS in reading.quality.flags
    assert Reason.TOO_FEW_CELLS in reading.reasons


def test_a_refused_field_is_invalid_keeps_its_cells_and_gets_no_second_opinion(phantom):
    limits = QualityLimits(focus=FocusReference(10, 10, 0, 0.1))
    settings = replace(ADHERENT, limits=limits)
    reading = assess(frame_of(phantom.image), CLASSIFY, settings, classify_field=HalfToxic())
    assert reading.outcome is Outcome.INVALID
    assert reading.reasons[0] is Reason.BLUR
    assert len(reading.cells) > 10
    assert reading.p_toxic is None


def test_a_field_that_passes_gets_the_second_opinion(phantom):
    reading = assess(frame_of(phantom.image), CLASSIFY, ADHERENT, classify_field=HalfToxic())
    assert reading.p_toxic == 0.5
    assert reading.field_model == HalfToxic.id


@pytest.mark.parametrize(
    ("scale", "reason"),
    [
        (None, Reason.NO_CALIBRATION),
        (Scale(2.0, "measured"), Reason.SCALE_OUT_OF_RANGE),
        (Scale(float("nan"), "measured"), Reason.SCALE_OUT_OF_RANGE),
    ],
)
def test_without_a_usable_scale_nothing_is_counted(phantom, scale, reason):
    reading = assess(frame_of(phantom.image, scale), CLASSIFY, ADHERENT)
    assert reading.outcome is Outcome.INVALID
    assert reading.reasons == (reason,)
    assert (reading.cells, reading.n_other, reading.affected) == ((), 0, None)


ODD_IMAGES = {
    "one pixel": np.full((1, 1), 100, np.uint8),
    "one row": np.full((1, 300), 100, np.uint8),
    "black": np.zeros((100, 120), np.uint8),
    "white": np.full((100, 120), 255, np.uint8),
    "flat": np.full((100, 120), 77, np.uint8),
    "tiny": np.random.default_rng(1).integers(0, 255, (5, 4)).astype(np.uint8),
    "checkerboard": (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8),
    "stripes": (np.indices((64, 64))[0] // 2 % 2 * 200 + 20).astype(np.uint8),
    "empty": np.zeros((0, 0), np.uint8),
    "color": np.zeros((9, 9, 3), np.uint8),
    "float": np.zeros((9, 9)),
}


@pytest.mark.parametrize("method", ["hybrid", "paper"])
@pytest.mark.parametrize("modality", ["phase", "brightfield"])
@pytest.mark.parametrize("name", ODD_IMAGES)
def test_odd_images_give_a_reading_and_never_an_exception(name, modality, method):
    settings = AnalysisSettings("adherent", modality, method)
    for scale in (MEASURED, Scale(0.1, "measured"), None):
        reading = assess(frame_of(ODD_IMAGES[name], scale), CLASSIFY, settings)
        assert reading.outcome in {Outcome.INVALID, Outcome.INCONCLUSIVE}
        assert reading.n_live + reading.n_dead + reading.n_other == n_labels(reading.labels)
        if name not in {"tiny", "checkerboard", "stripes"}:
            assert reading.outcome is Outcome.INVALID
            assert reading.reasons


@pytest.mark.parametrize("name", ["empty", "color", "float"])
def test_what_is_no_gray_image_is_unreadable(name):
    reading = assess(frame_of(ODD_IMAGES[name]), CLASSIFY, ADHERENT)
    assert reading.reasons == (Reason.UNREADABLE_IMAGE,)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(8, 150), st.integers(8, 150)),
    um_per_px=st.sampled_from([0.3, 0.65, 0.9, 1.3]),
    assay=st.sampled_from(["adherent", "suspension"]),
    modality=st.sampled_from(["phase", "brightfield"]),
)
def test_labels_and_counts_agree_on_any_texture(seed, shape, um_per_px, assay, modality):
    noise = np.random.default_rng(seed).normal(0, 1, shape)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1 + 2 / um_per_px)
    image = np.clip(128 + 60 * smooth / max(smooth.std(), 1e-6), 0, 255).astype(np.uint8)
    frame = frame_of(image, Scale(um_per_px, "measured"))
    assert_consistent(assess(frame, CLASSIFY, AnalysisSettings(assay, modality)))


@pytest.mark.shared
@pytest.mark.skipif(
    not (SHARED / "ldc").exists(), reason="the shared image folder is not beside the checkout"
)
def test_labels_and_counts_agree_on_real_tiles():
    for path in sorted((SHARED / "ldc" / "images").glob("*.png"))[::90]:
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert_consistent(assess(frame_of(image), CLASSIFY, AnalysisSettings("suspension", "brightfield")))


def test_quarter_turns_and_flips_change_the_count_by_little():
    image = render_field(modality="phase", seed=12, size=(320, 320), n_cells=45, dead_fraction=0.5).image
    counts = [
        assess(frame_of(np.ascontiguousarray(view)), CLASSIFY, ADHERENT).n_dead
        for view in (image, np.rot90(image), np.flipud(image), np.fliplr(image))
    ]
    assert max(counts) - min(counts) <= 1


def test_the_stages_are_observed_in_their_order(phantom):
    seen = {}
    assess(
        frame_of(phantom.image),
        CLASSIFY,
        ADHERENT,
        observe=lambda name, picture: seen.update({name: picture}),
    )
    stages = ["pyramid", "flatten", "quality", "foreground", "proposals", "crops", "classify", "regions"]
    assert list(seen) == stages
    assert seen["regions"].shape == seen["foreground"].shape == tuple(n // 2 for n in phantom.image.shape)


def test_the_paper_as_printed_calls_every_region_dead(phantom):
    reading = assess(frame_of(phantom.image), None, AnalysisSettings("adherent", "phase", "paper"))
    assert reading.n_dead > 5
    assert (reading.n_live, reading.n_other, reading.cell_model) == (0, 0, None)
    assert reading.n_dead == n_labels(reading.labels)


@pytest.mark.parametrize("classify", [TwoClassClassifier(), BrightnessClassifier()])
def test_regions_of_the_paper_are_live_or_dead_by_any_model(classify):
    seen = []
    image = render_field(modality="phase", seed=8, size=(300, 400), n_cells=30, dead_fraction=0).image
    settings = AnalysisSettings("adherent", "phase", "paper")
    reading = assess(frame_of(image), classify, settings, observe=lambda name, _: seen.append(name))
    assert reading.n_live > 5
    assert reading.n_other == 0
    assert reading.n_live + reading.n_dead == n_labels(reading.labels)
    assert seen[3:9] == ["gradient", "filled", "opened", "clusters", "segmented", "cells"]


@pytest.mark.parametrize("method", ["hybrid", "paper"])
@pytest.mark.parametrize("um_per_px", [0.65, 0.4, 0.1625])
def test_the_quick_way_counts_what_the_exact_one_counts(method, um_per_px):
    zoom = 0.65 / um_per_px
    image = np.full((round(300 * zoom), round(400 * zoom)), 128, np.uint8)
    for row, col in [(50, 50), (50, 69), (120, 200), (250, 300), (262, 314), (200, 100)]:
        cv2.circle(image, (round(col * zoom), round(row * zoom)), round(9.5 * zoom), 200, cv2.FILLED)
    image = cv2.GaussianBlur(image, (0, 0), 0.8 * zoom)
    classify = None if method == "paper" else CLASSIFY
    quick, exact = (
        assess(
            frame_of(image, Scale(um_per_px, "measured")),
            classify,
            AnalysisSettings("adherent", "phase", method, exact=exact),
        )
        for exact in (False, True)
    )
    assert len(quick.cells) == len(exact.cells) == 6
    assert_consistent(exact)
    if method == "paper":
        assert exact.labels.shape == image.shape
        assert exact.zoom == 1
    places = [np.array([(cell.row, cell.col) for cell in reading.cells]) for reading in (quick, exact)]
    nearest = np.linalg.norm(places[0][:, None] - places[1][None], axis=2).min(axis=1)
    assert nearest.max() < 3 * zoom


def test_a_frame_decoded_at_a_quarter_is_read_in_pixels_of_its_file(phantom):
    image = cv2.resize(phantom.image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    scale = Scale(0.1625, "measured")
    quarter = cv2.resize(image, (400, 300), interpolation=cv2.INTER_AREA)
    whole = assess(frame_of(image, scale), CLASSIFY, ADHERENT)
    reduced = assess(frame_of(quarter, scale, full_size=image.shape), CLASSIFY, ADHERENT)
    assert (reduced.height_px, reduced.width_px) == image.shape
    assert reduced.zoom == whole.zoom == 8
    assert reduced.quality.um_per_px == 0.1625
    assert abs(len(reduced.cells) - len(whole.cells)) <= 1
    places = [np.array([(cell.row, cell.col) for cell in reading.cells]) for reading in (reduced, whole)]
    nearest = np.linalg.norm(places[0][:, None] - places[1][None], axis=2).min(axis=1)
    assert np.median(nearest) <= 4
    assert_consistent(reduced)


def test_a_model_without_the_class_other_is_refused_for_the_hybrid(phantom):
    with pytest.raises(
        ValueError, match="two knows live, dead; method hybrid expected a model with the class other"
    ):
        assess(frame_of(phantom.image), TwoClassClassifier(), ADHERENT)
    with pytest.raises(ValueError, match="method hybrid has no cell model"):
        assess(frame_of(phantom.image), None, ADHERENT)


def test_a_model_that_breaks_its_word_on_shapes_is_refused(phantom):
    class Broken(BrightnessClassifier):
        def __call__(self, crops):
            return Judgment(np.full((len(crops), 2), 0.5, np.float32))

    with pytest.raises(ValueError, match="brightness gave shape"):
        assess(frame_of(phantom.image), Broken(), ADHERENT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"assay": "liver"}, "assay is 'liver'; expected one of adherent, suspension"),
        ({"method": "magic"}, "method is 'magic'; expected one of hybrid, paper"),
        ({"accept_min": 1.2}, "accept_min is 1.2; expected 0 to 1"),
        ({"merge_um": float("nan")}, "merge_um is nan; expected 0 to 50"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AnalysisSettings(**({"assay": "adherent", "modality": "phase"} | options))


def test_all_faults_of_the_settings_are_told_at_once():
    with pytest.raises(ValueError, match=r"(?s)assay is.*modality is.*dead_min is"):
        AnalysisSettings("x", "y", dead_min=-1)


def dish(um_per_px):
    """Return bright and dark disks of 13 um, some touching, drawn and shaken without any float of OpenCV."""
    rng = np.random.default_rng(11)
    image = rng.integers(96, 105, (480, 640)).astype(np.uint8)
    radius = round(6.5 / um_per_px)
    for row in range(3 * radius, 480 - 3 * radius, 5 * radius):
        for number, col in enumerate(range(3 * radius, 640 - 3 * radius, 5 * radius)):
            level = (180, 40)[(number + row) % 2]
            cv2.circle(image, (col, row), radius, level, cv2.FILLED)
            if number % 3 == 0:
                cv2.circle(image, (col + 2 * radius - 1, row), radius, level, cv2.FILLED)
    return image


@pytest.mark.parametrize(
    ("method", "um_per_px", "expected"),
    [
        ("hybrid", 0.65, (72, 72)),
        ("hybrid", 0.4, (20, 30)),
        ("paper", 0.65, (72, 72)),
        ("paper", 0.4, (20, 30)),
    ],
)
def test_counts_are_the_same_under_every_opencv(method, um_per_px, expected):
    reading = assess(
        frame_of(dish(um_per_px), Scale(um_per_px, "measured")), CLASSIFY, replace(ADHERENT, method=method)
    )
    assert (reading.n_live, reading.n_dead) == expected


def test_the_same_frame_gives_the_same_reading_on_any_number_of_threads(phantom):
    threads = cv2.getNumThreads()
    try:
        readings = []
        for number in (1, 2, 4, 1):
            cv2.setNumThreads(number)
            readings.append(assess(frame_of(phantom.image), CLASSIFY, ADHERENT))
    finally:
        cv2.setNumThreads(threads)
    first, *others = readings
    for other in others:
        assert np.array_equal(first.labels, other.labels)
        assert (first.cells, first.quality) == (other.cells, other.quality)
