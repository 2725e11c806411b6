"""`nanotox model`: which models are here, and whether they give here what they gave where they were made."""

import argparse
import json
from dataclasses import asdict

from device.options import Commands, add_json_option


def add_parser(commands: Commands) -> None:
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
    add_json_option(show)
    show.set_defaults(run=run_list)
    verify = actions.add_parser(
        "verify",
        help="check a bundle's checksums and golden outputs on this machine",
        epilog="Example: nanotox model verify phase-cell",
    )
    verify.add_argument("model", metavar="NAME|DIR", help="shipped name, or folder of a bundle")
    add_json_option(verify)
    verify.set_defaults(run=run_verify)


def run_list(args: argparse.Namespace) -> int:
    """Print one line for each shipped bundle."""
    from device.models import find_bundle, list_bundles

    for name in list_bundles():
        bundle = find_bundle(name)
        card = bundle.card
        if args.json:
            keys = ("kind", "assay", "modality", "classes", "um_per_px")
            print(json.dumps(asdict(bundle.id) | {key: getattr(card, key) for key in keys}))
        else:
            trust = "trusted" if bundle.id.trusted else "untrusted"
            scope = f"{card.kind:<6} {card.assay:<11} {card.modality:<12} {trust:<10}"
            print(f"{name:<16} {scope} {', '.join(card.classes)}")
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Run a bundle's golden inputs here; a mismatch is a ModelError."""
    from device.classifier import golden_limit, golden_shift, open_network, runtime_name
    from device.models import find_bundle

    bundle = find_bundle(args.model)
    shift, limit = golden_shift(bundle, open_network(bundle)), golden_limit(bundle)
    row = {
        **asdict(bundle.id),
        "runtime": runtime_name(),
        "golden_runtime": bundle.card.golden_runtime,
        "n_golden": len(bundle.golden.inputs),
        "shift": round(shift.largest, 5),
        "shift_allowed": limit.largest,
        "shift_mean": round(shift.mean, 5),
        "shift_mean_allowed": limit.mean,
    }
    if args.json:
        print(json.dumps(row))
    else:
        trust = "" if bundle.id.trusted else "; it is not trusted: it gives no non_toxic (MODEL_UNVERIFIED)"
        print(
            f"{bundle.name} is fit for {runtime_name()}: checksums hold, {row['n_golden']} golden inputs are "
            f"off by {shift}; allowed {limit}{trust}"
        )
    return 0
