"""Claims about plate.csv and dataset.json."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.errors import ConfigError
from device.plates import (
    DatasetInfo,
    Plate,
    find_dataset_info,
    find_fields,
    read_dataset_info,
    read_plate,
    scale_of,
    write_dataset_info,
    write_plate,
)
from device.records import PlateWell, Scale

HEADER = "file,well,sample,role,dose,dose_unit,replicate\n"
INFO = DatasetInfo(Scale(0.65, "published"), "phase", "our own dishes", "CC0", "adherent", simulated=True)


def faults_of(path, text):
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        read_plate(path)
    return caught.value.faults


def test_wells_with_files_doses_and_replicates_are_read(tmp_path):
    path = tmp_path / "monday.csv"
    path.write_text(HEADER + "a.png,A1,medium,blank,,,\nb/*.png,B1,gelatin,test,12.5,ug/mL,2\n", "utf-8-sig")
    assert read_plate(path) == Plate(
        "monday",
        (
            PlateWell("A1", "medium", "blank", None, None, 1, files=("a.png",)),
            PlateWell("B1", "gelatin", "test", 12.5, "ug/mL", 2, files=("b/*.png",)),
        ),
    )
    assert read_plate(path, name="week 7").name == "week 7"


def test_rows_of_one_well_add_files_or_positions(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(HEADER + "a.png,A1,x,test,,,1\nb.png,A1,x,test,,,1\n", "utf-8")
    assert read_plate(path).wells[0].files == ("a.png", "b.png")
    path.write_text("position,well,sample,role,fields\n1;2,A1,x,test,5\n3;4,A1,x,test,5\n", "utf-8")
    well = read_plate(path).wells[0]
    assert (well.positions, well.fields) == (("1;2", "3;4"), 5)


def test_missing_replicates_count_the_wells_of_a_sample_and_dose(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("well,sample,role,dose,dose_unit\nA1,x,test,1,%\nA2,x,test,1,%\nA3,x,test,2,%\n", "utf-8")
    assert [well.replicate for well in read_plate(path).wells] == [1, 2, 1]


def test_rendered_wells_have_a_dead_fraction_and_fields(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("well,sample,role,dead_fraction,fields\nA1,x,test,0.25,10\n", "utf-8")
    well = read_plate(path).wells[0]
    assert (well.dead_fraction, well.fields) == (0.25, 10)


def test_all_faults_are_listed_in_the_order_of_lines(tmp_path):
    found = faults_of(
        tmp_path / "p.csv",
        "well,sample,role,dose,dose_unit,replicate,dead_fraction,fields\n"
        "A1,x,tests,5,,1,,\n"
        "A 2,x,test,1e999,%,0,2,1.5\n"
        "A3,,test,-1,%,,,\n"
        "A4,x\n",
    )
    expected = [
        "line 2: role is 'tests'; expected one of blank, negative, positive, test",
        "line 2: dose_unit is ''; expected a unit such as ug/mL with a dose",
        "line 3: sample x is test, but tests in line 2; expected one role for a sample",
        "line 3: well is 'A 2'; expected a name such as B03",
        "line 3: dose is '1e999'; expected a number with a decimal point, 0 or more",
        "line 3: replicate is '0'; expected a whole number, 1 to 10000",
        "line 3: dead_fraction is '2'; expected a number with a decimal point, 0 to 1",
        "line 3: fields is '1.5'; expected a whole number, 1 to 10000",
        "line 4: sample is ''; expected a name of at most 64 characters",
        "line 4: dose is '-1'; expected a number with a decimal point, 0 or more",
        "line 5: 2 cells; expected 8 as in line 1",
    ]
    assert len(found) == len(expected)
    for words in expected:
        assert any(words in fault for fault in found), words
    lines = [int(fault.split(" line ")[1].split(":")[0]) for fault in found]
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("/etc/x.png,A1,x,test,,,", "file is '/etc/x.png'; expected a path or pattern inside the folder"),
        ("../x.png,A1,x,test,,,", "file is '../x.png'; expected a path or pattern inside the folder"),
        ('a.png,A1,x,test,"1,5",%,', "dose is '1,5'; expected a number with a decimal point"),
        ("a.png,A1,x,test,nan,%,", "dose is 'nan'; expected a number with a decimal point"),
        ("a.png,A1,x,test,,%,", "dose_unit is '%'; expected a unit such as ug/mL with a dose, and nothing"),
        ("a.png,A1,x,test,1,%,1\nb.png,A1,x,test,2,%,1", "line 3: well A1 is not as in line 2"),
        ("a.png,A1,x,test,,,1\nb.png,A2,x,test,,,1", "replicate 1 of x is well A1 already"),
        ("a.png,A1,x,test,,,\n,A1,x,test,,,", "line 3: well A1 stands in line 2 already"),
    ],
)
def test_an_impossible_row_is_named(tmp_path, row, words):
    assert any(words in fault for fault in faults_of(tmp_path / "p.csv", HEADER + row + "\n"))


def test_an_unusable_table_says_what_was_expected(tmp_path):
    path = tmp_path / "p.csv"
    assert "unknown column 'wel'" in faults_of(path, "wel,sample,role\n")[0]
    assert "column well is missing" in faults_of(path, "sample,role\n")[0]
    assert "column role stands twice" in faults_of(path, "well,sample,role,role\n")[0]
    assert "has no wells" in faults_of(path, HEADER)[0]
    assert "column well is missing" in faults_of(path, "")[0]
    assert (
        "position is '1'; expected nothing, because the row has a file"
        in faults_of(path, "file,position,well,sample,role\na.png,1,A1,x,test\n")[0]
    )
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"cannot be read: .* expected a comma separated UTF-8 table"):
        read_plate(path)
    with pytest.raises(ConfigError, match=r"nowhere.csv is missing; expected a plate.csv with columns"):
        read_plate(tmp_path / "nowhere.csv")


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}", fullmatch=True)


@given(
    st.lists(names, min_size=1, max_size=6, unique=True),
    st.floats(0, 1e9),
    st.one_of(st.none(), st.floats(0, 1)),
    st.one_of(st.none(), st.integers(1, 100)),
)
def test_a_written_plate_is_read_back(tmp_path_factory, wells, dose, dead_fraction, fields):
    plate = Plate(
        "p",
        tuple(
            PlateWell(
                name,
                "x y",
                "test",
                dose,
                "ug/mL",
                i + 1,
                (f"{i}.png", f"{i}b.png"),
                (),
                dead_fraction,
                fields,
            )
            for i, name in enumerate(wells)
        ),
    )
    path = tmp_path_factory.mktemp("plate") / "p.csv"
    write_plate(path, plate)
    assert read_plate(path) == plate


def test_columns_nobody_uses_are_not_written(tmp_path):
    well = PlateWell("A1", "x", "test", None, None, 1, dead_fraction=0.5, fields=3)
    write_plate(tmp_path / "p.csv", Plate("p", (well,)))
    assert (tmp_path / "p.csv").read_text() == (
        "well,sample,role,dose,dose_unit,replicate,dead_fraction,fields\nA1,x,test,,,1,0.5,3\n"
    )
    assert read_plate(tmp_path / "p.csv").wells == (well,)


def test_files_of_a_well_are_found_by_name_and_by_pattern(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "d/e").mkdir(parents=True)
    for name in ("a.png", "b/2.png", "b/1.png", "c[1].png", "d/e/3.png", ".4.png"):
        (tmp_path / name).touch()
    wells = (
        PlateWell("A1", "x", "test", None, None, 1, files=("a.png", "c[1].png")),
        PlateWell("A2", "x", "test", None, None, 2, files=("b/2.png", "b/*.png")),
        PlateWell("A3", "x", "test", None, None, 3, files=("d/**/*.png", "?4.png")),
    )
    assert find_fields(Plate("p", wells), tmp_path) == {
        "A1": (tmp_path / "a.png", tmp_path / "c[1].png"),
        "A2": (tmp_path / "b/2.png", tmp_path / "b/1.png"),
        "A3": (tmp_path / "d/e/3.png", tmp_path / ".4.png"),
    }


def test_files_that_are_missing_shared_or_not_named_are_all_listed(tmp_path):
    (tmp_path / "a.png").touch()
    wells = (
        PlateWell("A1", "x", "test", None, None, 1, files=("a.png", "z*.png")),
        PlateWell("A2", "x", "test", None, None, 2, files=("*.png",)),
        PlateWell("A3", "x", "test", None, None, 3),
    )
    with pytest.raises(ConfigError) as caught:
        find_fields(Plate("p", wells), tmp_path)
    first, second, third = caught.value.faults
    assert first.startswith("no file z*.png in")
    assert "is in wells A1 and A2; expected each file in one well" in second
    assert third.startswith("well A3 names no file")


def test_dataset_info_is_read_back_as_written(tmp_path):
    write_dataset_info(tmp_path, INFO)
    assert read_dataset_info(tmp_path) == INFO


def test_dataset_info_is_found_beside_the_images_before_that_above(tmp_path):
    images = tmp_path / "plate" / "images"
    images.mkdir(parents=True)
    assert find_dataset_info(images) is None
    write_dataset_info(tmp_path / "plate", INFO)
    assert find_dataset_info(images) == INFO
    write_dataset_info(images, dataclasses.replace(INFO, simulated=False))
    assert find_dataset_info(images) == dataclasses.replace(INFO, simulated=False)


def test_dataset_info_lists_all_faults(tmp_path):
    (tmp_path / "dataset.json").write_text(
        json.dumps(
            {
                "um_per_px": True,
                "um_per_px_source": "guess",
                "modality": "DIC",
                "origin": 5,
                "simulated": 1,
                "label_source": "me",
            }
        )
    )
    with pytest.raises(ConfigError) as caught:
        read_dataset_info(tmp_path)
    text = str(caught.value)
    assert len(caught.value.faults) == 7
    for words in (
        "um_per_px is true; expected a number > 0",
        'um_per_px_source is "guess"; expected one of measured, published, assumed',
        'modality is "DIC"; expected one of phase, brightfield',
        "origin is 5; expected words",
        "licence is null; expected words",
        "simulated is 1; expected true or false",
        'label_source is "me"; expected one of person, station or null',
    ):
        assert words in text


@pytest.mark.parametrize(
    ("content", "words"), [("[]", "holds a list"), ("{", "cannot be read"), (None, "is missing")]
)
def test_dataset_info_that_is_no_object_is_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ConfigError, match=words):
        read_dataset_info(tmp_path)


def test_a_scale_on_the_command_line_overrides_the_value_only():
    assert scale_of(None, None) is None
    assert scale_of(None, 0.5) == Scale(0.5, "measured")
    assert scale_of(INFO, None) == INFO.scale
    assumed = dataclasses.replace(INFO, scale=Scale(0.65, "assumed"))
    assert scale_of(assumed, 0.5) == Scale(0.5, "assumed")
    with pytest.raises(ConfigError, match="expected a number > 0"):
        scale_of(None, 0)
