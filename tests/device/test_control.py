"""Claims about the baseline of a station, and about what is out of control."""

from dataclasses import replace

import numpy as np
import pytest

from device.analysis.assess import AnalysisSettings
from device.analysis.control import (
    WATCHED,
    ControlRun,
    Seen,
    compare,
    draw_control_chart,
    learn,
    limits_of,
    see_field,
    stability_index,
)
from device.baseline import QcState, note_run, read_qc, with_baseline
from device.errors import ConfigError
from device.model_card.strict import write_record
from device.records import Cell, CellClass, ModelId, Reason

USUAL = {
    "focus_laplacian": 0.08, "focus_tenengrad": 0.1, "focus_slope": -3.0, "level": 0.4, "flatness": 0.06,
    "noise": 0.02,
}  # fmt: skip
AT = "2026-03-02T08:00:00.000Z"


def fields(n, *, seed=0, cells=10, area_um2=300.0, **shifted):
    """Return accepted fields that scatter a little about what is usual."""
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(n):
        measures = {k: (v + shifted.get(k, 0.0)) * rng.normal(1, 0.02) for k, v in USUAL.items()}
        areas = tuple(rng.normal(area_um2, 40, cells).tolist())
        seen.append(Seen(measures, {"area_um2": areas, "p_dead": tuple(rng.uniform(size=cells).tolist())}))
    return seen


@pytest.fixture(scope="module")
def learned():
    return learn(fields(40, cells=20))


@pytest.fixture
def control_reading(make_reading):
    """A function of a number that gives the reading of an accepted field, one in four pixels its own."""

    def make(i, **quality):
        reading = make_reading(3, 0, field=i)
        measured = {name: value * (1 + 0.01 * (i % 5)) for name, value in USUAL.items()} | quality
        cell = Cell(1, 5.0, 5.0, "live", CellClass.LIVE, 0.1, 300.0, touches_edge=False, counted=True)
        return replace(reading, quality=replace(reading.quality, **measured), cells=(cell,) * 3)

    return make


def test_a_run_like_the_baseline_is_in_control(learned):
    found = compare(fields(10, seed=1, cells=30), learned)
    assert found.out == ()
    assert set(found.psi) == {"area_um2", "p_dead"}
    assert max(found.psi.values()) < 0.2
    assert found.reasons == ()


@pytest.mark.parametrize(
    ("name", "worse", "better"),
    [
        ("focus_laplacian", -0.04, 0.04),
        ("focus_tenengrad", -0.05, 0.05),
        ("focus_slope", -1.0, 1.0),
        ("flatness", 0.08, -0.05),
        ("noise", 0.01, -0.01),
    ],
)
def test_what_gets_worse_is_out_of_control_and_what_gets_better_is_not(learned, name, worse, better):
    assert compare(fields(5, **{name: worse}), learned).out == (name,)
    assert compare(fields(5, **{name: better}), learned).out == ()


@pytest.mark.parametrize("shift", [-0.1, 0.1])
def test_the_lamp_is_out_of_control_both_ways(learned, shift):
    assert compare(fields(5, level=shift), learned).out == ("level",)


def test_limits_are_three_deviations_from_the_median(learned):
    spread = learned.spreads["level"]
    assert limits_of("level", spread) == pytest.approx(
        (0.4 - 3 * spread.deviation, 0.4 + 3 * spread.deviation), abs=0.01
    )
    assert limits_of("noise", learned.spreads["noise"])[0] == -np.inf
    assert limits_of("focus_slope", learned.spreads["focus_slope"])[1] == np.inf


def test_the_deviation_is_robust_and_has_a_floor():
    usual = fields(40)
    wild = [replace(field, measures=field.measures | {"level": 0.9}) for field in usual[:4]]
    assert learn(wild + usual[4:]).spreads["level"].median == pytest.approx(0.4, abs=0.01)
    assert learn(wild + usual[4:]).spreads["level"].deviation < 0.02
    same = learn([Seen(USUAL, {})] * 30).spreads
    assert same["level"].deviation == 0.01
    assert same["noise"].deviation == pytest.approx(0.002)
    assert same["focus_slope"].deviation == 0.1


def test_larger_cells_are_a_drift_and_too_few_cells_tell_none(learned):
    found = compare(fields(10, area_um2=380.0, cells=30), learned)
    assert found.psi["area_um2"] > 0.25
    assert found.reasons == (Reason.DRIFT,)
    assert found.out == ()
    assert compare(fields(10, area_um2=380.0, cells=5), learned).psi == {}


def test_the_stability_index_is_symmetric_zero_for_equal_shares_and_finite():
    assert stability_index((10, 20, 30), (100, 200, 300)) == pytest.approx(0, abs=1e-3)
    assert stability_index((50, 50), (90, 10)) == pytest.approx(stability_index((90, 10), (50, 50)))
    expected = (0.9 - 0.5) * np.log(0.9 / 0.5) + (0.1 - 0.5) * np.log(0.1 / 0.5)
    assert stability_index((5000, 5000), (9000, 1000)) == pytest.approx(expected, rel=1e-3)
    assert np.isfinite(stability_index((100, 0), (0, 100)))


def test_equal_cells_make_fewer_bins():
    seen = [Seen(USUAL, {"p_dead": (0.0,) * 10})] * 30
    histogram = learn(seen).histograms["p_dead"]
    assert histogram.edges == (0.0,)
    assert compare(seen, learn(seen)).psi["p_dead"] == 0


def test_a_baseline_needs_thirty_fields():
    with pytest.raises(ValueError, match="29 fields; expected 30"):
        learn(fields(29))


def test_refused_fields_and_unknown_areas_say_nothing(make_reading, control_reading):
    assert see_field(make_reading(5, refused_by=[Reason.BLUR])) is None
    assert see_field(make_reading(5)) is None  # its noise was not measured
    reading = control_reading(0)
    assert see_field(reading).cells == {"area_um2": (300.0,) * 3, "p_dead": (0.1,) * 3}
    unknown = replace(reading, cells=(replace(reading.cells[0], area_um2=None),))
    assert see_field(unknown).cells == {"p_dead": (0.1,)}


def test_a_baseline_is_learned_over_several_runs_then_compared(control_reading, make_reading, tmp_path):
    state = QcState("qc/1", "adherent", "phase")
    refused = make_reading(5, refused_by=[Reason.BLUR])
    state = note_run(state, [*(control_reading(i) for i in range(29)), refused], AT)
    assert (state.baseline, len(state.pending)) == (None, 29)
    assert (state.runs[0].n_fields, state.runs[0].n_refused, state.runs[0].comparison) == (30, 1, None)
    state = note_run(state, [control_reading(29)], AT)
    assert state.baseline.learned.n_fields == 30
    assert state.pending == ()
    state = note_run(state, [control_reading(1, noise=0.05)], AT)
    assert state.runs[-1].comparison.out == ("noise",)
    state = note_run(state, [refused], AT)
    assert state.runs[-1].comparison is None
    write_record(tmp_path / "state" / "qc.json", state)
    assert read_qc(tmp_path / "state" / "qc.json", "adherent", "phase") == state


def test_cells_are_not_compared_with_those_of_another_model(control_reading):
    many = [replace(control_reading(i), cells=control_reading(i).cells * 10) for i in range(30)]
    state = note_run(QcState("qc/1", "adherent", "phase"), many, AT)
    assert note_run(state, many, AT).runs[-1].comparison.psi
    other = [replace(reading, cell_model=ModelId("new", "1" * 64, trusted=True)) for reading in many]
    assert note_run(state, other, AT).runs[-1].comparison.psi == {}


def test_the_gate_uses_the_focus_that_was_learned(control_reading):
    settings = AnalysisSettings("adherent", "phase")
    empty = QcState("qc/1", "adherent", "phase")
    assert with_baseline(settings, empty) is settings
    state = note_run(empty, [control_reading(i) for i in range(30)], AT)
    focus = with_baseline(settings, state).limits.focus
    assert focus.focus_laplacian == pytest.approx(0.0816)
    assert focus.focus_slope == pytest.approx(-3.06)
    assert focus.focus_slope_mad == 0.1


def test_a_damaged_or_foreign_baseline_is_refused_with_advice(tmp_path):
    path = tmp_path / "qc.json"
    assert read_qc(path, "adherent", "phase") == QcState("qc/1", "adherent", "phase")
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"cannot be read .*--relearn"):
        read_qc(path, "adherent", "phase")
    path.write_text('{"schema": "qc/0", "assay": "adherent", "modality": "phase"}')
    with pytest.raises(ConfigError, match=r"schema is 'qc/0'; expected 'qc/1'"):
        read_qc(path, "adherent", "phase")
    write_record(path, QcState("qc/1", "suspension", "brightfield"))
    with pytest.raises(ConfigError, match=r"learned for suspension cells in brightfield; expected adherent"):
        read_qc(path, "adherent", "phase")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_record(path / "below" / "qc.json", QcState("qc/1", "adherent", "phase"))


def test_the_chart_marks_what_is_out_by_color_and_shape(learned):
    good, bad = (compare(fields(5, **shift), learned) for shift in ({}, {"noise": 0.02}))
    empty = ControlRun(AT, 5, 5, None)
    runs = [ControlRun(AT, 5, 0, good)] * 3
    calm = draw_control_chart([*runs, empty], learned)
    alarm = draw_control_chart([*runs, ControlRun(AT, 5, 0, bad)], learned)
    red = [(picture == (0, 94, 213)).all(axis=2) for picture in (calm, alarm)]
    assert not red[0].any()
    rows, cols = np.nonzero(red[1])
    panel = (alarm.shape[0] - 30) // 2, alarm.shape[1] // 3
    assert (rows // panel[0] == 1).all()
    assert (cols // panel[1] == list(WATCHED).index("noise") - 3).all()
    assert draw_control_chart([empty] * 100, learned).shape == calm.shape
    assert draw_control_chart(runs * 50, learned).shape == calm.shape
