"""Claims about which fields enter a well, and what controls and wells pool to."""

import dataclasses
import math

import pytest

from device.analysis.evidence import Evidence, gather_well, is_mostly_odd, pool_reference, pool_wells
from device.analysis.grading import EXTRACT
from device.records import FieldCount, ModelId, Outcome, PlateWell, Reason, Tally

TEST = PlateWell("B1", "gelatin", "test", 10.0, "ug/mL", 1)
BLANK = PlateWell("A1", "medium", "blank", None, None, 1)
POSITIVE = PlateWell("A3", "ZDEC", "positive", None, None, 1)
MODEL = ModelId("phase-cell", "0" * 64, trusted=True)


def gather(*readings):
    return gather_well(TEST, readings, assay="adherent", modality="phase", method="hybrid")


def field(number, live, rounded=0, lysed=0, area_mm2=0.13, **other):
    return FieldCount(number, live, rounded, lysed, area_mm2, **{"confluence": 0.5} | other)


def well(*fields, plan=TEST, **other):
    known = {"um_per_px": 0.65, "um_per_px_source": "measured", "cell_model": MODEL}
    return Evidence(plan, fields, 0, (), "adherent", "phase", "hybrid", **known | other)


def counts(**changed):
    return {
        "tally": Tally(
            **{"n_live": 5, "n_rounded": 1, "n_lysed": 0, "area_mm2": 0.1, "confluence": 0.2} | changed
        )
    }


@pytest.mark.parametrize(
    "changed",
    [
        counts(n_live=-1),
        counts(n_rounded=-1),
        counts(n_lysed=-1),
        counts(confluence=-0.01),
        counts(confluence=1.01),
        counts(area_mm2=0.0),
        counts(area_mm2=math.inf),
        {"p_toxic": -0.01},
        {"p_toxic": 1.01},
        {"assay": "suspension"},
        {"modality": "brightfield"},
        {"method": "paper"},
        {"outcome": Outcome.INVALID},
    ],
    ids=str,
)
def test_a_reading_of_impossible_numbers_or_of_another_kind_is_refused(make_reading, changed):
    evidence = gather(make_reading(5, 1), dataclasses.replace(make_reading(5, 1), **changed))
    assert (len(evidence.fields), evidence.n_fields_refused) == (1, 1)
    assert evidence.refused_by == (Reason.ANALYSIS_FAILED,)


@pytest.mark.parametrize(
    "changed",
    [
        counts(n_live=0, n_rounded=0, confluence=0.0),
        counts(confluence=1.0),
        counts(area_mm2=1e-9),
        counts(area_mm2=None),
        {"p_toxic": 0.0},
        {"p_toxic": 1.0},
    ],
    ids=str,
)
def test_the_ends_of_what_is_possible_are_accepted(make_reading, changed):
    assert gather(dataclasses.replace(make_reading(5, 1), **changed)).refused_by == ()


def test_a_reading_enters_only_if_gate_and_outcome_and_scale_all_allow_it(make_reading):
    good = make_reading(5, 1)

    def refused(**quality):
        reading = dataclasses.replace(good, quality=dataclasses.replace(good.quality, **quality))
        return gather(reading).refused_by

    assert refused() == ()
    assert refused(passed=False) == (Reason.ANALYSIS_FAILED,)
    assert refused(refused_by=(Reason.BLUR,)) == (Reason.BLUR,)
    assert refused(um_per_px=None) == (Reason.NO_CALIBRATION,)
    assert refused(um_per_px_source=None) == (Reason.NO_CALIBRATION,)
    invalid = dataclasses.replace(good, outcome=Outcome.INVALID, reasons=(Reason.DRIFT,))
    assert gather(invalid).refused_by == (Reason.DRIFT,)


def test_fields_are_numbered_as_they_come_where_nobody_numbered_them(make_reading):
    unnumbered = [dataclasses.replace(make_reading(live, 1), field=None) for live in (5, 6, 7)]
    assert [(f.field, f.n_live) for f in gather(*unnumbered).fields] == [(0, 5), (1, 6), (2, 7)]
    numbered = [make_reading(live, 1, field=7 - live) for live in (5, 6, 7)]
    assert [(f.field, f.n_live) for f in gather(*numbered).fields] == [(0, 7), (1, 6), (2, 5)]


def test_one_simulated_reading_marks_the_well(make_reading):
    seen = [make_reading(5, 1, field=i) for i in range(2)]
    assert not gather(*seen).simulated
    assert gather(seen[0], dataclasses.replace(seen[1], simulated=True)).simulated


def test_a_scale_or_model_of_a_well_is_the_one_that_all_its_fields_have(make_reading):
    seen = [make_reading(5, 1, field=i) for i in range(2)]
    coarse = dataclasses.replace(seen[1], quality=dataclasses.replace(seen[1].quality, um_per_px=0.7))
    assert gather(*seen).um_per_px == 0.65
    assert gather(seen[0], coarse).um_per_px is None
    published = make_reading(5, 1, field=2, source="published")
    assert gather(*seen, published).um_per_px_source == "published"
    assert gather(*seen, published, make_reading(5, 1, source="assumed")).um_per_px_source == "assumed"


@pytest.mark.parametrize(("cells", "n", "enough"), [(40, 5, True), (40, 4, False), (39, 5, False)])
def test_a_reference_takes_the_fewest_fields_and_cells_of_its_rule(cells, n, enough):
    fields = [field(i, cells) for i in range(n)]
    assert (pool_reference([well(*fields, plan=BLANK)], EXTRACT) is not None) is enough


def test_a_reference_is_made_of_healthy_wells_with_fields_only():
    fields = [field(i, 50, 1) for i in range(5)]
    empty = dataclasses.replace(BLANK, well="A2")
    wells = [well(*fields, plan=plan) for plan in (BLANK, POSITIVE, TEST)] + [well(plan=empty)]
    pooled = pool_reference(wells, EXTRACT)
    assert (pooled.wells, pooled.fields_per_well) == (("A1",), (5,))
    assert (pooled.n_cells, pooled.n_dead, pooled.cell_model) == (255, 5, MODEL)


def test_wells_pool_to_one_whose_fields_they_are():
    first = well(
        field(0, 10, 2, 1, p_toxic=0.2), field(1, 20, 3, 2, area_mm2=0.2, confluence=0.3, p_toxic=0.8)
    )
    second = dataclasses.replace(
        well(field(0, 7, odd=True), field(1, 8, area_mm2=None)),
        n_fields_refused=3,
        refused_by=(Reason.BLUR,),
        um_per_px_source="published",
        simulated=True,
    )
    pooled = pool_wells([first, second])
    assert pooled.plan == first.plan
    assert [(f.field, f.n_live, f.n_rounded, f.n_lysed) for f in pooled.fields] == [
        (0, 30, 5, 3),
        (1, 15, 0, 0),
    ]
    assert [f.area_mm2 for f in pooled.fields] == [pytest.approx(0.33), None]
    assert [f.confluence for f in pooled.fields] == [pytest.approx(0.4), 0.5]
    assert [f.p_toxic for f in pooled.fields] == [pytest.approx(0.5), None]
    assert [f.odd for f in pooled.fields] == [False, False]
    assert (pooled.n_fields_refused, pooled.refused_by) == (3, (Reason.BLUR,))
    assert (pooled.um_per_px, pooled.um_per_px_source, pooled.cell_model) == (0.65, "published", MODEL)
    assert pooled.simulated
    assert not pool_wells([first]).simulated


@pytest.mark.parametrize(("n_odd", "mostly"), [(0, False), (2, False), (3, True)])
def test_more_than_half_is_mostly(n_odd, mostly):
    fields = [field(i, 5, odd=i < n_odd) for i in range(4)]
    assert is_mostly_odd(fields) is mostly
