import json
import threading

import jsonschema
import pytest

from device.cli import main
from device.messages.schema import json_schema
from device.publishers import mqtt
from device.station import simulated

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def _few_drawn(monkeypatch):
    monkeypatch.setattr(simulated, "_DEAD", (0.3,))
    monkeypatch.setattr(simulated, "_FIELDS", 2)
    monkeypatch.setattr(simulated, "_DRAIN_S", 5.0)


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
    monkeypatch.setattr(simulated, "_DRAIN_S", 0.5)
    assert (
        main(["simulate", "--stations", "1", "--rate", "20", "--fields", "1", "--broker", "mqtt://[::1]:9"])
        == 1
    )
    assert "nanotox: error: 2 records unsent; expected a broker at mqtt://[::1]:9" in capsys.readouterr().err


def test_simulated_stations_outlive_their_broker(broker, subscribe, tmp_path):
    stop, ended = threading.Event(), []
    settings = mqtt.Settings(port=broker.port)
    words = {"stations": 3, "rate_hz": 20.0, "fields": None, "version": "x"}
    loop = threading.Thread(
        target=lambda: ended.append(simulated.simulate(tmp_path, settings, stop, **words))
    )
    loop.start()
    try:
        assert subscribe(broker).wait_for(lambda s: len(s.payloads("verdict")) > 3)
        broker.kill()
        broker.start()
        again = subscribe(broker)
        assert again.wait_for(lambda s: s.words().count("online") == 3 and len(s.payloads("verdict")) > 3)
    finally:
        stop.set()
        loop.join()
    (n_stored, n_unsent) = ended[0]
    assert n_stored > 0
    assert n_unsent == 0
