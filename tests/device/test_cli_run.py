import logging
import signal
from contextlib import nullcontext

import cv2
import numpy as np
import pytest

import device.station as station_module
from device.cli import main
from device.cli.run import _OneLine
from device.errors import ConfigError
from device.station.safe_mode import Start

CONFIG = '[station]\nsite = "lab"\nname = "bench-1"\nassay = "adherent"\nmodality = "phase"\n'


def test_a_missing_configuration_is_one_line_on_stderr_and_exit_2(tmp_path, capsys):
    assert main(["run", "--config", str(tmp_path / "station.toml")]) == 2
    out, said = capsys.readouterr()
    assert out == ""
    assert said.startswith("nanotox: error: ")
    assert "cannot be read" in said
    assert said.count("\n") == 1


def test_the_default_is_station_toml_here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run"]) == 2
    assert "station.toml cannot be read" in capsys.readouterr().err


def test_signals_and_the_log_are_given_back(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    main(["run", "--config", str(tmp_path / "station.toml")])
    assert not [h for h in logging.getLogger().handlers if isinstance(h.formatter, _OneLine)]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_second_would_end_it_at_once(monkeypatch, number):
    seen = []

    class Waiting:
        def __init__(self, *_, **__):
            pass

        def run(self, stop):
            signal.raise_signal(number)
            seen.append((stop.is_set(), signal.getsignal(number)))

    monkeypatch.setattr(station_module, "Station", Waiting)
    monkeypatch.setattr(station_module, "load_config", lambda _: None)
    monkeypatch.setattr(station_module, "open_instruments", lambda *_: None)
    monkeypatch.setattr(station_module, "begun", lambda _: nullcontext(Start(None, ())))
    assert main(["run"]) == 0
    assert seen == [(True, signal.SIG_DFL)]


def test_a_traceback_is_one_line_of_the_log():
    with pytest.raises(ConfigError) as caught:
        raise ConfigError("a\nb")
    exception = (caught.type, caught.value, caught.tb)
    record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", None, exception)
    line = _OneLine("%(levelname)s %(message)s").format(record)
    assert line.startswith("ERROR failed\\nTraceback")
    assert "\n" not in line


def test_without_a_fitting_model_nothing_starts(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/f.png"), np.zeros((4, 4), np.uint8))
    text = CONFIG + '[scale]\num_per_px = 0.65\n[camera]\nkind = "folder"\npath = "images"\n'
    (tmp_path / "station.toml").write_text(text + '[model]\ncell_model = "nobody"\n')
    assert main(["run", "--config", str(tmp_path / "station.toml")]) == 2
    assert "no model 'nobody'" in capsys.readouterr().err
    assert not (tmp_path / "journal.db").exists()
