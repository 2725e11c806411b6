"""Options that several commands share. Standard library only, so that `--help` stays quick."""

import argparse
import math
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  argparse gives it no public name
"""What `add_parser` of a command's module gets."""
ASSAYS = ("adherent", "suspension")
MODALITIES = ("phase", "brightfield")
METHODS = ("hybrid", "paper")


def add_analysis_options(
    parser: argparse.ArgumentParser, *, workers: str = "images read side by side (default: 1)"
) -> None:
    """Add what says how images are read: scale, assay, modality, model, method, and what `workers` are."""
    parser.add_argument(
        "--um-per-px",
        type=positive_number,
        metavar="X",
        help="micrometers a pixel; mandatory unless dataset.json beside the images says it",
    )
    stated = "default: that of dataset.json, else of the model"
    parser.add_argument("--assay", choices=ASSAYS, help=stated)
    parser.add_argument("--modality", choices=MODALITIES, help=stated)
    parser.add_argument(
        "--model", metavar="NAME|DIR", help="model bundle; default: the shipped one for assay and modality"
    )
    parser.add_argument(
        "--field-model",
        metavar="NAME|DIR|none",
        help="model of whole fields, the second opinion; default: the shipped one, where it beats chance",
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="hybrid",
        help="paper: the paper's watershed chain; without --model every region counts as dead, as printed",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="without shortcuts of speed: slow, the reference for the quick way",
    )
    parser.add_argument("--workers", type=positive_whole, default=1, metavar="N", help=workers)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add `--json`, which means the same for every command."""
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line on stdout, text on stderr"
    )


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add `--config`, the station.toml of this folder if left out."""
    parser.add_argument(
        "--config", type=Path, default=Path("station.toml"), help="configuration (default: station.toml)"
    )


def positive_number(text: str) -> float:
    """Return a finite number above 0, for argparse."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def positive_whole(text: str) -> int:
    """Return a whole number above 0, for argparse."""
    positive_number(text)
    return int(text)


def port_number(text: str) -> int:
    """Return a TCP port, 0 for any, for argparse."""
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port; expected 0 to 65535")
    return value
