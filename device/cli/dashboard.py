"""`nanotox dashboard`: what all stations say, on a page for people who are not at the microscope."""

import argparse
import importlib.util
import logging
import sys
from pathlib import Path

from device.cli.broker import add_broker_options, add_db_option, broker_settings
from device.options import Commands, port_number


def add_parser(commands: Commands) -> None:
    """Add `nanotox dashboard` to the commands."""
    parser = commands.add_parser(
        "dashboard",
        help="show all stations of a broker in a browser; needs the extra `dashboard`",
        description="Collect the records of all stations, as nanotox collect does, and serve pages that show "
        "them, until Ctrl-C or SIGTERM: a wall of stations, each station, plates, and reviews of fields. "
        "Read-only unless there is an operator's token. For research use only.",
        epilog="Example: nanotox dashboard --broker mqtt://localhost --db lab.db --port 8765",
    )
    add_broker_options(parser, default="mqtt://localhost")
    add_db_option(parser, default=Path("collector.db"))
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="H",
        help="address to listen on (default: 127.0.0.1, this machine alone; 0.0.0.0 is all of the network, "
        "who then may read everything)",
    )
    parser.add_argument(
        "--port", type=port_number, default=8765, metavar="P", help="port (8765); 0 takes any"
    )
    parser.add_argument(
        "--operator-token-file",
        type=Path,
        metavar="F",
        help="file whose first line is the token that commands need, mode 0600; without it there are none",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; 0 then."""
    from device.cli import DONE, installed_version

    check_installed()
    logging.basicConfig(level="INFO", format="%(levelname)s %(message)s", force=True)
    from device.dashboard import serve

    serve(
        broker_settings(args),
        args.db,
        host=args.host,
        port=args.port,
        token_file=args.operator_token_file,
        version=installed_version(),
        tell=lambda address: print(f"dashboard: {address}", file=sys.stderr, flush=True),
    )
    return DONE


def check_installed() -> None:
    """Raise ConfigError if the extra is not installed."""
    from device.errors import ConfigError

    if importlib.util.find_spec("nicegui") is None:
        raise ConfigError(
            "the package nicegui is missing; expected the extra dashboard: pip install 'nanotox[dashboard]'"
        )
