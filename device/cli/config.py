"""`nanotox config`: whether station.toml is right, and what it says with every default."""

import argparse
import sys

from device.options import Commands, add_config_option


def add_parser(commands: Commands) -> None:
    """Add `nanotox config` to the commands."""
    parser = commands.add_parser(
        "config",
        help="check or show the configuration of the station",
        description="Check station.toml and list every fault at once, or show it with every default.",
        epilog="Example: nanotox config check --config /etc/nanotox/station.toml",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for name, function, text in (
        ("check", run_check, "list every fault, with what was found and what is expected"),
        ("show", run_show, "print the configuration with every default"),
    ):
        action = actions.add_parser(
            name, help=text, epilog=f"Example: nanotox config {name} --config station.toml"
        )
        add_config_option(action)
        action.set_defaults(run=function)


def run_check(args: argparse.Namespace) -> int:
    """Print one line for each fault; 2 if there are any."""
    from device.errors import ConfigError
    from device.station.instruments import check_files, load_config

    try:
        check_files(load_config(args.config))
    except ConfigError as error:
        for fault in error.faults:
            print(f"nanotox: error: {fault}", file=sys.stderr)
        return 2
    print(f"{args.config} is right")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print the configuration as TOML, defaults filled in; a password is never part of it."""
    from device.config import to_toml
    from device.station.instruments import load_config

    print(to_toml(load_config(args.config)), end="")
    return 0
