"""`nanotox model`: which models are here, and whether they give here what they gave where they were made."""

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from device.cli import Commands


def add_parser(commands: "Commands") -> None:
    """Add `nanotox model` to the commands."""
    parser = commands.add_parser(
        "model",
        help="list the model bundles, or verify one on this machine",
        description="List the shipped bundles, or run the golden inputs of one in this machine's runtime.",
        epilog="Example: nanotox model verify phase-cell",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    show = actions.add_parser(
        "list", help="list the shipped bundles", epilog="Example: nanotox model list --json"
    )
    show.add_argument("--json", action="store_true", help="one JSON object a line")
    show.set_defaults(run=run_list)


def run_list(args: argparse.Namespace) -> int:
    """Print one line for each shipped bundle."""
    from device.models import find_bundle, list_bundles

    for name in list_bundles():
        bundle = find_bundle(name)
        card = bundle.card
        row = {
            "name": bundle.name,
            "kind": card.kind,
            "assay": card.assay,
            "modality": card.modality,
            "classes": list(card.classes),
            "um_per_px": card.um_per_px,
            "sha256": bundle.id.sha256,
            "trusted": bundle.id.trusted,
        }
        trust = "trusted" if bundle.id.trusted else "untrusted"
        scope = f"{card.kind:<6} {card.assay:<11} {card.modality:<12} {trust:<10}"
        line = f"{bundle.name:<16} {scope} {', '.join(card.classes)}"
        print(json.dumps(row) if args.json else line)
    return 0
