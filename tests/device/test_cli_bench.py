"""`nanotox bench`: the stages of `assess`, timed."""

import json

import pytest

from device import cli

SMALL = ["bench", "--size", "160x120", "--cells", "4", "--repeats", "2"]


def bench(capsys, *options):
    assert cli.main([*SMALL, "--json", *map(str, options)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_each_stage_and_the_floor_are_timed_in_cpu_and_wall(capsys):
    row = bench(capsys)
    assert list(row["stages"])[:3] == ["pyramid", "flatten", "quality"]
    assert list(row["stages"])[-2:] == ["rest", "total"]
    assert "classify" in row["stages"]
    assert list(row["floor"]) == ["copy", "halving"]
    for times in row["stages"].values():
        assert 0 <= times["cpu_p50_ms"] <= times["cpu_p99_ms"]
        assert 0 <= times["wall_p50_ms"] <= times["wall_p99_ms"]
    assert (row["height_px"], row["width_px"], row["repeats"]) == (120, 160, 2)
    assert row["peak_mib"] > 20


def test_the_stages_add_up_to_the_total(capsys):
    row = bench(capsys, "--repeats", 1)
    parts = [times["wall_p50_ms"] for name, times in row["stages"].items() if name != "total"]
    assert sum(parts) == pytest.approx(row["stages"]["total"]["wall_p50_ms"], abs=0.02)


def test_the_paper_and_another_scale_are_timed_as_well(capsys):
    row = bench(capsys, "--um-per-px", 0.5, "--method", "paper")
    assert (row["um_per_px"], row["method"]) == (0.5, "paper")
    assert "gradient" in row["stages"]


def test_text_is_a_table(capsys):
    assert cli.main(SMALL) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("rendered, 160 x 120 px at 0.65 um/px: hybrid with phase-cell, 2 runs")
    assert any(line.startswith("floor: halving") for line in lines)
    assert "peak memory" in lines[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "8x8"], "the frame cannot be rendered: size is"),
        (["--model", "none"], "no model 'none'"),
    ],
)
def test_what_cannot_be_timed_is_said(options, message, capsys):
    assert cli.main([*SMALL, *options]) in (1, 2)
    assert message in capsys.readouterr().err


def test_a_size_that_is_none_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", "--size", "large"])
    assert "large is no size; expected such as 1332x990" in capsys.readouterr().err
