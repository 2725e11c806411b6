"""The broker on a command line: its URL and what TLS and a password need, as an `mqtt.Settings`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from device.publishers import mqtt

_FILES = {
    "--password-file": "file whose first line is the password, mode 0600",
    "--ca-file": "certificate authority of the broker, PEM; mqtts:// needs it",
    "--cert-file": "certificate of this client, PEM, where the broker wants one",
    "--key-file": "its private key, PEM, mode 0600",
}


def add_broker_options(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """Add `--broker` and what belongs to it; without a `default` it is mandatory."""
    said = "mqtt://HOST[:PORT], or mqtts:// with TLS" + (f" (default: {default})" if default else "")
    parser.add_argument("--broker", required=default is None, default=default, metavar="URL", help=said)
    parser.add_argument(
        "--prefix", default="nanotox/v1", help="first part of every topic (default: nanotox/v1)"
    )
    parser.add_argument("--user", metavar="NAME", help="user name, if the broker asks for one")
    for option, text in _FILES.items():
        parser.add_argument(option, type=Path, metavar="FILE", help=text)


def add_db_option(parser: argparse.ArgumentParser, *, default: Path | str) -> None:
    """Add `--db`, the file of a collector."""
    parser.add_argument("--db", type=Path, default=default, metavar="F", help="file (default: collector.db)")


def broker_settings(args: argparse.Namespace) -> "mqtt.Settings":
    """Return the settings that the options give; ConfigError if they cannot be."""
    from device.errors import ConfigError
    from device.publishers import mqtt

    expected = "expected mqtt://HOST, mqtt://HOST:PORT or mqtts://HOST"
    if "@" in args.broker:
        raise ConfigError(
            "--broker holds a user name; expected --user and --password-file, which nobody sees"
        )
    try:
        url = urlsplit(args.broker)
        port = url.port or (8883 if url.scheme == "mqtts" else 1883)
    except ValueError as error:
        raise ConfigError(f"--broker is {args.broker}: {error}; {expected}") from error
    if url.scheme not in ("mqtt", "mqtts") or not url.hostname or url.path.strip("/"):
        raise ConfigError(f"--broker is {args.broker}; {expected}")
    if (url.scheme == "mqtts") != (args.ca_file is not None):
        raise ConfigError(f"--broker is {url.scheme}://; expected --ca-file with mqtts:// and only there")
    files = [getattr(args, option[2:].replace("-", "_")) for option in _FILES]
    try:
        return mqtt.Settings(url.hostname, port, args.prefix, args.user, *files)
    except ValueError as error:
        raise ConfigError(str(error)) from error
