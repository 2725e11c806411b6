import json

import jsonschema
import pytest

from device.cli import main
from device.messages import SCHEMAS


def test_asyncapi_is_printed_as_json(capsys):
    assert main(["schema", "asyncapi"]) == 0
    assert json.loads(capsys.readouterr().out)["asyncapi"] == "3.0.0"


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_of_a_message_is_printed(capsys, name):
    assert main(["schema", "jsonschema", name]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"] == name


def test_all_schemas_come_by_name(capsys):
    assert main(["schema", "jsonschema"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(SCHEMAS)


def test_an_unknown_message_is_answered_with_those_there_are(capsys):
    assert main(["schema", "jsonschema", "reading/2"]) == 2
    assert "no message 'reading/2'; expected one of reading/1, verdict/1" in capsys.readouterr().err
