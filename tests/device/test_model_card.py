"""A card states all it has to, nothing else, and all its faults come at once."""

import json
from pathlib import Path

import numpy as np
import pytest

from device.errors import ModelError
from device.model_card import Card, card_text, fit_faults, network_input, read_card, settings_from_card

TEXT = (Path(__file__).parent / "data" / "tiny-cell" / "card.json").read_text()
FOCUS = {"focus_laplacian": 0.08, "focus_tenengrad": 5, "focus_slope": -2.9, "focus_slope_mad": 0.2}


def changed(**changes):
    return json.dumps({**json.loads(TEXT), **changes})


def test_a_card_survives_writing_and_reading():
    full = changed(
        thresholds={"accept_min": 0.4},
        reference_quality=FOCUS,
        data=[{"name": "ldc", "sha256": "ab", "origin": "rendered", "licence": "MIT", "n": 3}],
        recipe={"name": "tiny-cell", "sha256": "cd"},
        metrics={"f1_dead": {"value": 0.9, "low": 0.8, "high": None, "n": 40, "data": "real, test split"}},
        parity={"agreement": 0.999, "passed": True, "n": 1000, "against": "float"},
    )
    card = read_card(full, "card.json")
    assert isinstance(card, Card)
    assert card.metrics["f1_dead"].high is None
    assert card.parity == {"agreement": 0.999, "passed": True, "n": 1000, "against": "float"}
    assert read_card(card_text(card), "again") == card


def test_all_faults_come_at_once():
    text = changed(colour=1, kind="tissue", temperature="hot", limits=[1])
    with pytest.raises(ModelError) as caught:
        read_card(text, "models/x/card.json")
    message = str(caught.value)
    assert message.startswith("models/x/card.json: ")
    assert "unknown key colour; remove it" in message
    assert "kind is 'tissue'; expected 'cell' or 'field'" in message
    assert "temperature is 'hot'; expected a finite number" in message
    assert "limits[0] is 1; expected text" in message


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"temperature": 0}, "temperature is 0.0; expected more than 0"),
        ({"um_per_px": -0.65}, "um_per_px is -0.65"),
        ({"classes": ["live"]}, "expected 2 or more"),
        ({"classes": ["live", "live"]}, "each once"),
        ({"classes": ["live", "other"]}, "expected live and at least one dead class"),
        ({"classes": ["dead", "other"]}, "expected live and at least one dead class"),
        ({"classes": ["live", "asleep"]}, "class 'asleep' is unknown"),
        ({"kind": "field"}, "class 'live' is unknown; expected non_toxic, toxic"),
        ({"input_px": 32}, "input_px is 32; expected 28"),
        ({"preprocessing": "raw/1"}, "preprocessing is 'raw/1'; expected 'relative/2'"),
        ({"thresholds": {"p_max": 0.5}}, "threshold 'p_max' is unknown; expected accept_min, dead_min"),
        ({"thresholds": {"accept_min": 1.5}}, "thresholds.accept_min is 1.5; expected 0 to 1"),
        ({"logits": {"scale": 0.1, "zero_point": 200}}, "logits.zero_point is 200"),
        ({"logits": {"scale": 0.0, "zero_point": 0}}, "logits.scale is 0.0"),
        ({"n_features": 16.0}, "n_features is 16.0; expected a whole number"),
        ({"n_features": True}, "n_features is True; expected a whole number"),
        ({"schema": "card/2"}, "schema is 'card/2'; expected 'card/1'"),
        ({"recipe": "tiny"}, "recipe is 'tiny'; expected an object"),
        ({"recipe": {"name": "tiny"}}, "recipe.sha256 is missing"),
    ],
)
def test_a_value_out_of_range_is_named(changes, fault):
    with pytest.raises(ModelError) as caught:
        read_card(changed(**changes), "card.json")
    assert fault in str(caught.value)


FIELD = {"kind": "field", "classes": ["non_toxic", "toxic"], "thresholds": {}}
AUC = {"value": 0.6, "low": 0.45, "high": 0.7, "n": 40, "data": "real: some fields"}
RENDERED = {"value": 0.95, "low": 0.9, "high": 1.0, "n": 40, "data": "synthetic: rendered-phase, val"}
HEARD = {
    "assay": "adherent",
    "modality": "phase",
    "auc": AUC,
    "abstains": False,
    "temperature": 1.0,
    "offset": 0.0,
}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, "preprocessing is 'relative/2'; expected 'relative/2 squeezed' or 'relative/2 tiles'"),
        ({"preprocessing": "relative/2 tiles", "um_per_px": 1.3}, "input_px is 28; expected 80"),
        ({"preprocessing": "relative/2 tiles", "input_px": 80}, "um_per_px is 0.65; expected 1.3"),
        (
            {"preprocessing": "relative/2 squeezed", "opinions": [HEARD]},
            "it speaks on adherent phase with AUC 0.6, low end 0.45, on real: some",
        ),
        (
            {"preprocessing": "relative/2 squeezed", "opinions": [HEARD | {"auc": RENDERED}]},
            "on synthetic: rendered-phase, val; expected more than 0.5 on images that are not all",
        ),
    ],
)
def test_a_field_model_states_its_view_and_speaks_above_chance_only(changes, fault):
    with pytest.raises(ModelError) as caught:
        read_card(changed(**FIELD, **changes), "card.json")
    assert fault in str(caught.value)


def test_a_field_model_that_abstains_is_read():
    silent = HEARD | {"abstains": True}
    card = read_card(changed(**FIELD, preprocessing="relative/2 squeezed", opinions=[silent]), "card.json")
    assert card.opinion("adherent", "phase").abstains
    assert card.opinion("suspension", "brightfield") is None
    with pytest.raises(ModelError, match=r"temperature on adherent phase is -1\.0; expected"):
        read_card(
            changed(**FIELD, preprocessing="relative/2 squeezed", opinions=[silent | {"temperature": -1.0}]),
            "x",
        )


def test_a_missing_key_is_named():
    document = json.loads(TEXT)
    del document["classes"]
    with pytest.raises(ModelError, match="classes is missing"):
        read_card(json.dumps(document), "card.json")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"temperature": NaN}'])
def test_what_is_no_card_is_refused(text):
    with pytest.raises(ModelError, match=r"card\.json"):
        read_card(text, "card.json")


def test_background_is_zero_to_the_network():
    crops = np.array([0, 128, 255], np.uint8)
    np.testing.assert_array_equal(network_input(crops), np.array([-1, 0, 127 / 128], np.float32))


def test_a_model_for_other_images_does_not_fit():
    card = read_card(TEXT, "card.json")
    assert fit_faults(card, assay="suspension", modality="brightfield") == []
    assert fit_faults(card, assay=None, modality=None) == []
    assert fit_faults(card, assay="adherent", modality="phase") == [
        "model tiny-cell is for assay suspension; expected adherent",
        "model tiny-cell is for brightfield; expected phase",
    ]
    coarse = read_card(changed(um_per_px=1.3), "card.json")
    assert fit_faults(coarse, assay=None, modality=None) == ["model tiny-cell sees 1.3 um/px; expected 0.65"]


def test_settings_are_those_of_the_card():
    card = read_card(changed(thresholds={"accept_min": 0.4}, reference_quality=FOCUS), "card.json")
    settings = settings_from_card(card, method="paper")
    assert (settings.assay, settings.modality, settings.method) == ("suspension", "brightfield", "paper")
    assert settings.accept_min == 0.4
    assert settings.dead_min == 0.5
    assert settings.limits.focus == card.reference_quality
