"""`nanotox schema`: the contract of the messages, for those who subscribe."""

import argparse
import json

from device.options import Commands


def add_parser(commands: Commands) -> None:
    """Add `nanotox schema` to the commands."""
    parser = commands.add_parser(
        "schema",
        help="print AsyncAPI or JSON Schema of everything a station publishes",
        description="Print the contract of the messages, generated from the records they are made of.",
        epilog="Example: nanotox schema jsonschema verdict/1 > verdict.schema.json",
    )
    actions = parser.add_subparsers(metavar="FORM", required=True)
    asyncapi = actions.add_parser(
        "asyncapi",
        help="all topics and messages as AsyncAPI 3.0",
        epilog="Example: nanotox schema asyncapi > asyncapi.json",
    )
    asyncapi.set_defaults(run=run_asyncapi)
    jsonschema = actions.add_parser(
        "jsonschema",
        help="one message, or all by name",
        epilog="Example: nanotox schema jsonschema reading/1",
    )
    jsonschema.add_argument("name", nargs="?", help="such as reading/1; all in one object if left out")
    jsonschema.set_defaults(run=run_jsonschema)


def run_asyncapi(_args: argparse.Namespace) -> int:
    """Print the AsyncAPI document."""
    from device.cli import installed_version
    from device.messages.schema import asyncapi

    print(json.dumps(asyncapi(installed_version()), indent=2))
    return 0


def run_jsonschema(args: argparse.Namespace) -> int:
    """Print one JSON Schema, or an object of all of them."""
    from device.errors import ConfigError
    from device.messages import SCHEMAS
    from device.messages.schema import json_schema

    if args.name is not None and args.name not in SCHEMAS:
        raise ConfigError(f"no message {args.name!r}; expected one of {', '.join(SCHEMAS)}")
    found = json_schema(args.name) if args.name else {name: json_schema(name) for name in SCHEMAS}
    print(json.dumps(found, indent=2))
    return 0
