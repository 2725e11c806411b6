from datetime import UTC, datetime

import numpy as np
import pytest

from device.analysis.counting import Judged, accept_cells, count_cells, judge_cells, labels_in_frame
from device.analysis.pyramid import build_pyramid
from device.analysis.segmentation import Regions
from device.records import Cell, CellClass, Outcome, Quality, Reading, Scale, Tally

LIVE, DEAD, OTHER = CellClass.LIVE, CellClass.DEAD, CellClass.OTHER
CHAMBER = (LIVE, DEAD, OTHER)
ADHERENT = (LIVE, CellClass.ROUNDED, CellClass.LYSED, OTHER)
LIMITS = {"accept_min": 0.5, "dead_min": 0.5, "merge_px": 8.0, "merge_live_px": 0.0}


def centers_of(*places):
    return np.array(places, np.float32).reshape(-1, 2)


def accept(centers, probabilities, classes=CHAMBER, **limits):
    return accept_cells(centers, np.array(probabilities, np.float32), classes, **(LIMITS | limits))


def test_other_is_dropped_and_the_classes_are_told_apart():
    centers = centers_of((5, 5), (5, 30), (5, 60))
    cells, others = accept(centers, [(0.8, 0.1, 0.1), (0.1, 0.2, 0.7), (0.2, 0.7, 0.1)])
    assert cells.classes == (LIVE, DEAD)
    assert cells.centers.tolist() == [[5, 5], [5, 60]]
    assert cells.p_dead == pytest.approx([1 / 9, 7 / 9])
    assert others.tolist() == [[5, 30]]


def test_of_two_close_candidates_the_surer_stays_and_the_other_is_no_other():
    cells, others = accept(centers_of((5, 5), (5, 10)), [(0.7, 0.1, 0.2), (0.9, 0.05, 0.05)])
    assert cells.centers.tolist() == [[5, 10]]
    assert len(others) == 0


def test_of_equally_sure_candidates_the_stronger_first_one_stays():
    cells, _ = accept(centers_of((5, 5), (5, 10), (5, 15)), [(1, 0, 0)] * 3)
    assert cells.centers.tolist() == [[5, 5], [5, 15]]


def test_living_cells_keep_a_larger_distance_among_themselves():
    centers = centers_of((5, 5), (5, 15), (5, 25))
    living, dead = (0.9, 0.05, 0.05), (0.05, 0.85, 0.1)
    cells, others = accept(centers, [living, living, dead], merge_live_px=12.0)
    assert cells.centers.tolist() == [[5, 5], [5, 25]]
    assert cells.classes == (LIVE, DEAD)
    assert len(others) == 0


def test_the_finer_class_is_the_likeliest_on_the_side_that_won():
    probabilities = np.array([(0.4, 0.35, 0.25, 0), (0.5, 0.1, 0.35, 0.05), (0.1, 0.5, 0.4, 0)], np.float32)
    cells = judge_cells(centers_of((1, 1), (2, 2), (3, 3)), probabilities, ADHERENT, dead_min=0.5)
    assert cells.classes == (CellClass.ROUNDED, LIVE, CellClass.ROUNDED)


def test_a_region_that_is_surely_other_counts_as_live_for_the_paper_and_breaks_nothing():
    cells = judge_cells(centers_of((1, 1)), np.array([[0, 0, 1]], np.float32), CHAMBER, dead_min=0.5)
    assert cells.classes == (LIVE,)
    assert cells.p_dead.tolist() == [0]


def count_squares(squares, *, classes, others=(), source="measured", shape=(40, 60), um_per_px=0.65):
    labels = np.zeros(shape, np.uint16)
    for number, (top, left) in enumerate([*squares, *others], start=1):
        labels[top : top + 5, left : left + 5] = number
    labels.flags.writeable = False
    centers = centers_of(*((top + 2, left + 2) for top, left in squares))
    one_hot = np.array([[kind is name for name in ADHERENT] for kind in classes], np.float32).reshape(-1, 4)
    judged = judge_cells(centers, one_hot, ADHERENT, dead_min=0.5)
    pyramid = build_pyramid(np.zeros(shape, np.uint8), um_per_px)
    areas = np.full(len(squares), 25)
    regions = Regions(labels, um_per_px, len(others), areas, centers, np.rint(centers).astype(int))
    return count_cells(judged, regions, pyramid, Scale(um_per_px, source))


def test_every_cell_and_every_other_region_has_one_label():
    count = count_squares([(5, 5), (5, 20)], classes=[LIVE, CellClass.LYSED], others=[(20, 20), (30, 40)])
    assert np.unique(count.labels).tolist() == [0, 1, 2, 3, 4]
    assert [count.labels[7, 7], count.labels[7, 22], count.labels[22, 22]] == [1, 2, 3]
    assert (len(count.cells), count.n_other) == (2, 2)
    assert not count.labels.flags.writeable


@pytest.mark.parametrize(
    ("place", "touches", "counted"),
    [
        ((10, 10), False, True),
        ((0, 10), True, True),
        ((10, 0), True, True),
        ((35, 10), True, False),
        ((10, 55), True, False),
    ],
)
def test_cells_at_the_bottom_and_right_edge_are_listed_but_not_counted(place, touches, counted):
    count = count_squares([place], classes=[LIVE])
    assert (count.cells[0].touches_edge, count.cells[0].counted) == (touches, counted)
    assert count.tally.n_live == int(counted)


def test_areas_are_in_um2_and_null_where_the_scale_is_assumed():
    measured = count_squares([(5, 5)], classes=[LIVE])
    assert measured.cells[0].area_um2 == pytest.approx(25 * 0.65**2)
    assert measured.tally.area_mm2 == pytest.approx(40 * 60 * 0.65**2 / 1e6)
    assumed = count_squares([(5, 5)], classes=[LIVE], source="assumed")
    assert (assumed.cells[0].area_um2, assumed.tally.area_mm2) == (None, None)


def test_the_tally_splits_the_dead_and_confluence_is_of_the_living():
    classes = [LIVE, CellClass.ROUNDED, CellClass.LYSED, CellClass.ROUNDED]
    tally = count_squares([(5, 5), (5, 20), (5, 35), (35, 40)], classes=classes).tally
    assert (tally.n_live, tally.n_rounded, tally.n_lysed, tally.n_dead, tally.n_cells) == (1, 1, 1, 2, 3)
    assert tally.confluence == pytest.approx(25 / 2400)


def reading_with(labels, height_px, width_px, zoom):
    quality = Quality(True, (), (), None, None, None, 0, 0, 0.5, 0, 0.65, "measured")
    cell = Cell(1, 0, 0, "live", LIVE, 0, None, False, True)
    return Reading(
        source="x", sequence=0, taken_at=datetime(2026, 1, 1, tzinfo=UTC), well=None, field=None,
        simulated=False, outcome=Outcome.INCONCLUSIVE, reasons=(), n_live=1, n_dead=0, n_other=0,
        affected=0.0, p_toxic=None, tally=Tally(1, 0, 0, None, 0), quality=quality, cells=(cell,),
        height_px=height_px, width_px=width_px, assay="adherent", modality="phase", method="hybrid",
        cell_model=None, field_model=None, labels=labels.astype(np.uint16), zoom=zoom,
    )  # fmt: skip


@pytest.mark.parametrize("zoom", [0.5, 1.0, 1.6, 2.0, 6.2])
def test_masks_in_the_frame_have_its_size_and_every_label_in_its_place(zoom):
    labels = np.zeros((40, 50), int)
    labels[10:16, 20:26] = 1
    height_px, width_px = round(40 * zoom), round(50 * zoom)
    masks = labels_in_frame(reading_with(labels, height_px, width_px, zoom))
    assert masks.shape == (height_px, width_px)
    rows, cols = np.nonzero(masks)
    center = (np.array([rows.mean(), cols.mean()]) + 0.5) / zoom
    assert center == pytest.approx((13, 23), abs=0.6)


def test_a_reading_without_regions_has_empty_masks():
    assert not labels_in_frame(reading_with(np.zeros((0, 0)), 30, 40, 1.0)).any()


def test_a_living_cell_of_a_layer_stands_between_its_nucleus_and_the_middle_of_its_body():
    labels = np.zeros((40, 60), np.uint16)
    labels[10:15, 10:31] = 1
    labels[30:35, 10:31] = 2
    judged = Judged(
        centers_of((12, 12), (32, 12)),
        (LIVE, DEAD),
        np.array([0, 1], np.float32),
        np.arange(2),
        in_layer=True,
    )
    middles = centers_of((12, 20), (32, 20))
    regions = Regions(labels, 0.65, 0, np.array([105, 105]), middles, np.array([[12, 12], [32, 12]]))
    count = count_cells(
        judged, regions, build_pyramid(labels.astype(np.uint8), 0.65), Scale(0.65, "measured")
    )
    assert [(cell.row, cell.col) for cell in count.cells] == [(12, 16), (32, 12)]


def test_a_place_outside_its_own_region_gives_way_to_the_anchor():
    labels = np.zeros((40, 60), np.uint16)
    labels[5:35, 10:14] = labels[5:9, 10:40] = 1  # a hook: its middle lies outside
    rows, cols = np.nonzero(labels)
    judged = Judged(centers_of((30, 12)), (LIVE,), np.array([0], np.float32), np.arange(1), in_layer=True)
    middle = centers_of((rows.mean(), cols.mean()))
    regions = Regions(labels, 0.65, 0, np.array([len(rows)]), middle, np.array([[30, 12]]))
    count = count_cells(
        judged, regions, build_pyramid(labels.astype(np.uint8), 0.65), Scale(0.65, "measured")
    )
    assert (count.cells[0].row, count.cells[0].col) == (30, 12)
