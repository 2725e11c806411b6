import os
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.analysis.grading import EXTRACT, RULES
from device.config import read_config, to_toml
from device.errors import CameraError, ConfigError
from device.tables import read_rule

GOOD = """
[station]
site = "lab"
name = "bench-1"
assay = "adherent"
modality = "phase"
[scale]
um_per_px = 0.65
[camera]
kind = "toy"
"""
SECTIONS = "station, scale, camera, model, publisher, journal, plate, rule, frames, commands, http"
OPTIONS = "exposure_ms, gain, mode, path, loop, levels"


@dataclass(frozen=True, slots=True)
class Toy:
    exposure_ms: float = field(default=10.0, metadata={"range": (0.1, 1000.0)})
    gain: int | None = None
    mode: Literal["fast", "slow"] = "fast"
    path: Path = Path("images")
    loop: bool = False
    levels: tuple[float, ...] = ()

    def __post_init__(self):
        if self.loop and self.mode == "slow":
            raise ValueError("loop and slow exclude each other; expected one of them")


def read(tmp_path, text):
    path = tmp_path / "station.toml"
    path.write_text(text)
    return read_config(path, camera_settings=lambda _: Toy)


def faults_of(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    return caught.value.faults


def test_defaults_are_filled_in_and_paths_are_relative_to_the_file(tmp_path):
    config = read(tmp_path, GOOD + 'path = "plate-7"\n[journal]\n[plate]\nfile = "plate.csv"')
    assert config.scale.source == "measured"
    assert config.station.method == "hybrid"
    assert config.camera.settings == Toy(path=tmp_path / "plate-7")
    assert config.journal.path == tmp_path / "journal.db"
    assert config.plate.file == tmp_path / "plate.csv"
    assert config.publisher.kind == "mqtt"


def test_a_credential_of_the_service_stays_as_it_is_written(tmp_path):
    config = read(tmp_path, GOOD + 'path = "$CREDENTIALS_DIRECTORY/key"')
    assert config.camera.settings.path == Path("$CREDENTIALS_DIRECTORY/key")
    assert 'path = "$CREDENTIALS_DIRECTORY/key"' in to_toml(config)


def test_what_is_shown_can_be_read_again(tmp_path):
    config = read(tmp_path, GOOD + 'mode = "slow"\nlevels = [0.5, 1]\n[model]\ntrusted = ["ab\\"c"]')
    shown = tmp_path / "shown.toml"
    shown.write_text(to_toml(config))
    again = read_config(shown, camera_settings=lambda _: Toy)
    assert (again.camera, again.model, again.journal) == (config.camera, config.model, config.journal)


def test_the_scale_has_no_default(tmp_path):
    expected = "scale.um_per_px is missing; expected 0.05 to 10 (station.toml)"
    assert faults_of(tmp_path, GOOD.replace("um_per_px = 0.65", "")) == [expected]


def test_all_faults_are_told_at_once_with_key_found_and_expected(tmp_path):
    text = (
        GOOD.replace('"lab"', '"Lab/+"').replace('"phase"', '"darkfield"').replace("0.65", "-1")
        + 'exposure_ms = 0\nexposre = 3\n[jurnal]\npath = "x"\n[publisher]\nkind = 3'
    )
    assert faults_of(tmp_path, text) == [
        f"jurnal is unknown; expected {SECTIONS}; did you mean journal? (station.toml)",
        "station.site is 'Lab/+'; expected text that matches [a-z0-9][a-z0-9-]{0,31} (station.toml)",
        "station.modality is 'darkfield'; expected one of 'phase', 'brightfield' (station.toml)",
        "scale.um_per_px is -1; expected 0.05 to 10 (station.toml)",
        f"camera.exposre is unknown; expected {OPTIONS}; did you mean exposure_ms? (station.toml)",
        "camera.exposure_ms is 0; expected 0.1 to 1000 (station.toml)",
        'publisher.kind is 3; expected the name of a kind, such as "mqtt" (station.toml)',
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gain = 1.5", "camera.gain is 1.5; expected a whole number"),
        ("gain = true", "camera.gain is True; expected a whole number"),
        ("exposure_ms = nan", "camera.exposure_ms is nan; expected 0.1 to 1000"),
        ("exposure_ms = true", "camera.exposure_ms is True; expected 0.1 to 1000"),
        ('mode = "quick"', "camera.mode is 'quick'; expected one of 'fast', 'slow'"),
        ("path = 3", "camera.path is 3; expected a path"),
        ('path = ""', "camera.path is ''; expected a path"),
        ("loop = 1", "camera.loop is 1; expected true or false"),
        ('levels = ["a"]', "camera.levels is ['a']; expected a list, each item a number"),
        ('loop = true\nmode = "slow"', "camera: loop and slow exclude each other; expected one of them"),
    ],
)
def test_each_type_names_what_it_expected(tmp_path, line, expected):
    assert faults_of(tmp_path, GOOD + line) == [f"{expected} (station.toml)"]


@pytest.mark.parametrize("value", ["0.1", "1000", "1000.0"])
def test_the_ends_of_a_range_are_allowed(tmp_path, value):
    assert read(tmp_path, GOOD + f"exposure_ms = {value}").camera.settings.exposure_ms == float(value)


def test_a_kind_that_cannot_be_found_is_one_fault_among_others(tmp_path):
    def settings_of(kind):
        raise CameraError(f"no {kind}; expected folder")

    path = tmp_path / "station.toml"
    path.write_text(GOOD.replace("0.65", "0"))
    with pytest.raises(ConfigError) as caught:
        read_config(path, camera_settings=settings_of)
    assert len(caught.value.faults) == 2
    assert caught.value.faults[1] == "no toy; expected folder (station.toml)"


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "cannot be read"), (b"[station", "is not TOML"), (b"\xff\xfe", "cannot be read")],
)
def test_a_file_that_cannot_be_read_is_one_error(tmp_path, content, expected):
    path = tmp_path / "station.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        read_config(path)


@settings(max_examples=2000 if os.environ.get("NANOTOX_LONG") else 100)
@given(text=st.text(max_size=200), value=st.one_of(st.text('0123456789.-naif"[]{}tru', max_size=10)))
def test_nothing_but_a_config_error_comes_of_any_text(tmp_path_factory, text, value):
    path = tmp_path_factory.mktemp("config") / "station.toml"
    for content in (text, GOOD.replace("0.65", value), GOOD + f"gain = {value}\n[plate]\nfile = {value}"):
        path.write_text(content, encoding="utf-8", errors="replace")
        with suppress(ConfigError):
            read_config(path, camera_settings=lambda _: Toy)


def write_rule(tmp_path, text):
    path = tmp_path / "rule.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_lab_writes_a_rule_of_its_own(tmp_path):
    path = write_rule(
        tmp_path,
        'id = "our-lab/2"\nbased_on = "iso10993-5-extract/1"\ngrade_limit = 1\nlooks = [6, 12]\n'
        'policy = "median"\naffected_steps = [0.05, 0.15, 0.5, 0.7]\n',
    )
    rule = read_rule(path)
    changed = {"id": "our-lab/2", "grade_limit": 1, "looks": (6, 12), "policy": "median"}
    assert rule == replace(EXTRACT, **changed, affected_steps=(0.05, 0.15, 0.5, 0.7))
    assert rule.limit == 0.15


@pytest.mark.parametrize("name", RULES)
def test_known_rules_go_by_their_names(name):
    assert read_rule(name) is RULES[name]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'id = "our-lab/1"\n',
            r"based_on is missing; expected one of iso10993-5-extract/1, .* \(rule.toml\)",
        ),
        ('id = "our-lab/1"\nbased_on = "iso"\n', "based_on is 'iso'; expected one of"),
        ('based_on = "usp87/1"\n', "rule.id is missing; expected a name of its own"),
        ('id = "usp87/1"\nbased_on = "usp87/1"\n', "rule.id is 'usp87/1'; expected a name of its own"),
        (
            'id = "a/1"\nbased_on = "usp87/1"\nfield_min = 3\n',
            "field_min is unknown; .* did you mean fields_min",
        ),
        ('id = "a/1"\nbased_on = "usp87/1"\nwells_min = "x"\n', "wells_min is 'x'; expected a whole number"),
        ('id = "a/1"\nbased_on = "usp87/1"\nwells_min = 0\n', "wells_min is 0; expected 1 to 100"),
        ('id = "a/1"\nbased_on = "usp87/1"\npolicy = "best"\n', "policy is 'best'; expected one of 'any'"),
        ("id = \n", "is not TOML"),
    ],
)
def test_a_rule_with_faults_is_refused(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        read_rule(write_rule(tmp_path, text))


@pytest.mark.parametrize("named", ["iso", "rules.json"])
def test_an_unknown_rule_names_the_known_ones(named):
    with pytest.raises(
        ConfigError, match=r"expected one of iso10993-5-extract/1, .* or a TOML file of your own"
    ):
        read_rule(named)


def test_a_missing_rule_file_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"nix.toml cannot be read .* expected a rule"):
        read_rule(tmp_path / "nix.toml")
