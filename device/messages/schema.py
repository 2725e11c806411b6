"""The contract of the wire as JSON Schema and AsyncAPI 3.0, generated from the records."""

import ast
import inspect
import itertools
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from device.messages import LEAVES, MAX_MESSAGE_BYTES, OVERLAY, RETAINED, SCHEMAS, Identity, Published, Topics
from device.messages.commands import COMMANDS, Command
from device.messages.replies import Reply
from device.records import Latest, NonToxic, Outcome

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_WORDS = {bool: "boolean", int: "integer", float: "number", str: "string"}
_PARAMETERS = {
    "site": {"description": "The laboratory."},
    "station": {"description": "The station within it."},
}
_TRANSACTION = {"transaction": {"description": "That of the command, where it names no response topic."}}
_ADDRESSES = {"reply": "reply/{transaction}", "image_overlay": OVERLAY}
_SUMMARY = {
    "availability": "online; stopped after a clean end; offline as last will after 10 s; retained",
    "reading": "what one field gives; an event, never retained",
    "verdict": "what a well gives, provisional after each field and final when done; never retained",
    "plate": "samples and controls of a finished plate; never retained",
    "info": "birth of the station; retained",
    "state": "what the station does now; retained, expires after 300 s",
    "alert": "a condition raised or cleared, once each; never retained",
    "health": "how the station is; retained, expires after 3 intervals",
    "latest": "the newest verdict and how long it holds; retained, expires after 2 periods",
    "image_overlay": "the newest field, JPEG of at most 100 kB, user properties ledger_id and seq; off by "
    "default; retained, expires after 2 periods",
    "head": "the newest published record; retained, after every change and every 30 s",
}


def json_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of a form such as `reading/1`; KeyError if there is none of that name.

    Every field is required and unknown ones are allowed: the producer is strict, consumers are tolerant.
    """
    definitions: dict[str, Any] = {}
    record = SCHEMAS[name]
    schema = _record_schema(record, definitions)
    if record in get_args(Published):
        identity = _record_schema(Identity, definitions)
        schema["properties"] |= identity["properties"]
        schema["required"] += identity["required"]
    if record is Latest:
        verdict = json_schema("verdict/1")
        definitions |= verdict.pop("$defs")
        definitions["Verdict"] = {key: verdict[key] for key in verdict if key not in ("$schema", "$id")}
        schema["properties"]["verdict"] = {"$ref": "#/$defs/Verdict"}
    schema["properties"]["schema"] = {"const": name, "description": "Form of this payload."}
    return {"$schema": _DIALECT, "$id": f"nanotox:{name}", "title": name, **schema, "$defs": definitions}


def asyncapi(version: str) -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document of everything that a station of `version` publishes."""
    topics = Topics("{site}", "{station}")
    messages: dict[str, Any] = {
        "availability": {
            "name": "availability",
            "contentType": "text/plain",
            "payload": {"type": "string", "enum": ["online", "stopped", "offline"]},
        },
        "image_overlay": {"name": OVERLAY, "contentType": "image/jpeg", "payload": {"type": "string"}},
    }
    for leaf, name in LEAVES.items():
        # Inside AsyncAPI a $ref counts from the document, so the definitions move to its own components.
        moved = _moved(json_schema(name), f"#/components/messages/{leaf}/payload/$defs/")
        messages[leaf] = {"name": name, "contentType": "application/json", "payload": moved}
    messages |= _commands()
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for leaf, message in messages.items():
        message.setdefault("title", _SUMMARY.get(leaf))
        address = _ADDRESSES.get(leaf, leaf.replace("cmd_", "cmd/", 1))
        qos = 0 if address == OVERLAY else 1
        channels[leaf] = {
            "address": topics.of(address),
            "parameters": _PARAMETERS | (_TRANSACTION if leaf == "reply" else {}),
            "messages": {leaf: {"$ref": f"#/components/messages/{leaf}"}},
        }
        operations[leaf] = {
            "action": "receive" if leaf.startswith("cmd_") else "send",
            "channel": {"$ref": f"#/channels/{leaf}"},
            "bindings": {"mqtt": {"qos": qos, "retain": address in RETAINED, "bindingVersion": "0.2.0"}},
        }
        if leaf.startswith("cmd_"):
            operations[leaf]["reply"] = {"channel": {"$ref": "#/channels/reply"}}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "nanotox station",
            "version": version,
            "description": f"What a station publishes, for research use only. A message is at most "
            f"{MAX_MESSAGE_BYTES} bytes. PUBACK is not delivery: drop duplicates by (ledger_id, seq).",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }


def _commands() -> dict[str, Any]:
    """Return the messages of all commands and of their reply."""
    found: dict[str, Any] = {}
    forms: dict[str, type[Any]] = {"reply": Reply, **{f"cmd_{name}": args for name, args in COMMANDS.items()}}
    for leaf, record in forms.items():
        definitions: dict[str, Any] = {}
        if leaf == "reply":
            schema = _record_schema(record, definitions)
        else:
            schema = _asked_schema(Command, definitions)
            del schema["properties"]["issued_at"]["pattern"]  # any time with a zone
            schema["properties"]["args"] = _asked_schema(record, definitions)
        moved = _moved(schema | {"$defs": definitions}, f"#/components/messages/{leaf}/payload/$defs/")
        title = " ".join((record.__doc__ or "").split())
        found[leaf] = {"name": leaf, "title": title, "contentType": "application/json", "payload": moved}
    return found


def _asked_schema(record: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of what others send: defaults may be left out, nothing may come besides."""
    needed = [f.name for f in fields(record) if f.default is MISSING and f.default_factory is MISSING]
    schema = _record_schema(record, definitions)
    for inner in definitions.values():
        inner["additionalProperties"] = False
    return schema | {"required": needed, "additionalProperties": False}


def field_docs(record: type[Any]) -> dict[str, str]:
    """Return the docstring below each field of a dataclass, by the field's name, in one line each."""
    tree = ast.parse(inspect.cleandoc(inspect.getsource(record)))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
    docs = {}
    for statement, below in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            docs[statement.target.id] = " ".join(str(below.value.value).split())
    return docs


def _record_schema(record: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    hints, docs = get_type_hints(record), field_docs(record)
    properties = {}
    for item in fields(record):
        if not item.metadata.get("payload", True):
            continue
        schema = _type_schema(hints[item.name], definitions)
        if "pattern" in item.metadata:
            schema["pattern"] = f"^{item.metadata['pattern']}$"
        if "range" in item.metadata:
            schema["minimum"], schema["maximum"] = item.metadata["range"]
        properties[item.name] = schema | ({"description": docs[item.name]} if item.name in docs else {})
    description = " ".join((record.__doc__ or "").split())
    required = list(properties)
    return {"type": "object", "description": description, "properties": properties, "required": required}


def _type_schema(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - a type expression
    origin, arms = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if NonToxic in arms:  # one value under two types
            return {"enum": [outcome.value for outcome in Outcome]}
        schemas = [{"type": "null"} if arm is type(None) else _type_schema(arm, definitions) for arm in arms]
        return {"anyOf": schemas}
    if origin is Literal:
        return {"enum": list(arms)}
    if origin is dict:
        return {"type": "object"}
    if origin is tuple:
        return {"type": "array", "items": _type_schema(arms[0], definitions)}
    if hint is datetime:
        pattern = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"
        return {"type": "string", "format": "date-time", "pattern": pattern}
    if issubclass(hint, Enum):
        return {"enum": [member.value for member in hint]}
    if isinstance(hint, type) and is_dataclass(hint):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}
            definitions[hint.__name__] = _record_schema(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    return {"type": _WORDS[hint]}


def _moved(schema: Any, base: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return the schema with its `$ref` counted from `base` instead of its own `$defs`."""
    if isinstance(schema, Mapping):
        return {
            key: value.replace("#/$defs/", base) if key == "$ref" else _moved(value, base)
            for key, value in schema.items()
        }
    return [_moved(item, base) for item in schema] if isinstance(schema, list) else schema
