"""`nanotox model`: which models are here, whether they are fit for this machine, which one a station uses."""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from device.options import Commands, add_config_option, add_json_option

if TYPE_CHECKING:
    from device.config import Config
    from device.model_card import Card


def add_parser(commands: Commands) -> None:
    """Add `nanotox model` to the commands."""
    parser = commands.add_parser(
        "model",
        help="list the model bundles, verify one on this machine, put one into use",
        description="List the shipped bundles, run the golden inputs of one in this machine's runtime, or "
        "choose which one a station uses.",
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
    use = actions.add_parser(
        "activate",
        help="let a station use a bundle, and trust it",
        description="Try a bundle in a process of its own, copy it beside the station's journal and let the "
        "station use it from its next start on. The operator vouches for it: the journal notes the name, and "
        "the bundle counts as trusted. The station must not run meanwhile. A crash at any moment leaves the "
        "model in use that was.",
        epilog="Example: nanotox model activate our-model/ --operator 'A. Curie'",
    )
    use.add_argument("model", metavar="NAME|DIR", help="shipped name, or folder of a bundle")
    use.set_defaults(run=run_activate)
    back = actions.add_parser(
        "rollback",
        help="let a station use the model that was before",
        description="Undo the last activate; the journal notes it. The station must not run meanwhile.",
        epilog="Example: nanotox model rollback --operator 'A. Curie'",
    )
    back.set_defaults(run=run_rollback)
    for action in (use, back):
        action.add_argument("--operator", metavar="NAME", required=True, help="who decides this")
        add_config_option(action)


def run_list(args: argparse.Namespace) -> int:
    """Print one line for each shipped bundle."""
    from device.models import find_bundle, list_bundles

    for name in list_bundles():
        bundle = find_bundle(name)
        card = bundle.card
        if args.json:
            keys = ("kind", "assay", "modality", "classes", "um_per_px")
            told = {key: getattr(card, key) for key in keys}
            print(json.dumps(asdict(bundle.id) | told | {"opinions": [asdict(o) for o in card.opinions]}))
            continue
        trust = "trusted" if bundle.id.trusted else "untrusted"
        for assay, modality, what in _kinds(card):
            print(f"{name:<16} {card.kind:<6} {assay:<11} {modality:<12} {trust:<10} {what}")
    return 0


def _kinds(card: "Card") -> list[tuple[str, str, str]]:
    """Return assay, modality and what the model says there: classes, or the worth of its opinion."""
    if card.kind == "cell":
        return [(card.assay, card.modality, ", ".join(card.classes))]
    return [
        (o.assay, o.modality, f"AUC {o.auc.value:.2f}{', abstains' if o.abstains else ''}")
        for o in card.opinions
    ]


def run_verify(args: argparse.Namespace) -> int:
    """Run a bundle's golden inputs here; a mismatch is a ModelError."""
    from device.classifier import golden_limit, golden_shift, open_network, runtime_name
    from device.models import find_bundle

    bundle = find_bundle(args.model)
    network = open_network(bundle)
    began = time.perf_counter()
    shift, limit = golden_shift(bundle, network), golden_limit(bundle)
    took_ms = 1000 * (time.perf_counter() - began)
    row = {
        **asdict(bundle.id),
        "runtime": runtime_name(),
        "golden_runtime": bundle.card.golden_runtime,
        "n_golden": len(bundle.golden.inputs),
        "shift": round(shift.largest, 5),
        "shift_allowed": limit.largest,
        "shift_mean": round(shift.mean, 5),
        "shift_mean_allowed": limit.mean,
        "ms_per_input": round(took_ms / len(bundle.golden.inputs), 3),
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


def run_activate(args: argparse.Namespace) -> int:
    """Try a bundle and let the station use it from its next start on."""
    from device.station.activation import activate

    with _journal_of(args) as (config, note, now):
        item = activate(config, args.model, operator=args.operator, at=now, note=note)
    print(f"{item.name} ({item.sha256[:12]}) is the {item.kind} model from the next start on")
    return 0


def run_rollback(args: argparse.Namespace) -> int:
    """Let the station use the model that was before the last activate."""
    from device.station.activation import roll_back

    with _journal_of(args) as (config, note, _):
        item = roll_back(config, operator=args.operator, note=note)
    now_used = "the shipped model" if item is None else f"{item.name} ({item.sha256[:12]})"
    print(f"{now_used} is used from the next start on")
    return 0


@contextmanager
def _journal_of(args: argparse.Namespace) -> "Iterator[tuple[Config, Callable[..., None], str]]":
    """Give the configuration, the journal's `note` and the time; JournalError where the station runs."""
    from device.journal import Journal
    from device.messages.sealing import rfc3339
    from device.station.instruments import load_config

    config = load_config(args.config)
    journal = Journal(config.journal.path, site=config.station.site, station=config.station.name)
    try:
        yield config, journal.note, rfc3339(datetime.now(UTC))
    finally:
        journal.close()
