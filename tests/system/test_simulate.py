import json

import jsonschema
import pytest

from device.cli import main
from device.messages.schema import json_schema

pytestmark = pytest.mark.system


def test_simulated_stations_say_what_stations_say(broker, subscribe):
    subscriber = subscribe(broker)
    url = f"mqtt://127.0.0.1:{broker.port}"
    assert main(["simulate", "--stations", "3", "--rate", "20", "--fields", "4", "--broker", url]) == 0
    assert subscriber.wait_for(lambda s: s.words().count("stopped") == 3)
    found: dict[str, set] = {}
    for message in subscriber.messages:
        _, _, site, station, leaf = message.topic.split("/")
        if leaf == "availability":
            continue
        values = json.loads(message.payload)
        jsonschema.validate(values, json_schema(values["schema"]))
        if "seq" in values and leaf != "head":
            assert values["simulated"]
            found.setdefault(f"{site}/{station}", set()).add(values["seq"])
    assert found == {f"simulated/s{number}": set(range(1, 9)) for number in range(3)}
    assert len({reading["ledger_id"] for reading in subscriber.payloads("reading")}) == 3


def test_a_simulation_without_a_broker_says_so(capsys, monkeypatch):
    monkeypatch.setattr("device.station.simulated._DRAIN_S", 0.5)
    assert (
        main(["simulate", "--stations", "1", "--rate", "20", "--fields", "1", "--broker", "mqtt://[::1]:9"])
        == 1
    )
    assert "nanotox: error: 2 records unsent; expected a broker at mqtt://[::1]:9" in capsys.readouterr().err
