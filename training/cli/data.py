"""`nanotox-train data import|check`: dataset folders in one form, and what is wrong with one."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli import DONE, FAILED, Commands, show_progress

if TYPE_CHECKING:
    from training.evaluation.check import Finding

SHOWN = 10
"""Faults of a code that are told in words; `--json` has all."""


def add_parser(commands: Commands) -> None:
    """Add `data import` and `data check`."""
    data = commands.add_parser(
        "data", help="import images into a dataset folder, or check one", allow_abbrev=False
    )
    actions = data.add_subparsers(metavar="ACTION", required=True)
    parser = actions.add_parser(
        "import",
        help="write a dataset folder from another form",
        description="Write a dataset folder (manifest.csv, images, cells.csv, dataset.json), then check it. "
        "Exit 0 once it is written, whatever the check says.",
        epilog="Example: nanotox-train data import ldc Cell-Dataset --out data/ldc",
        allow_abbrev=False,
    )
    parser.add_argument("kind", metavar="KIND", help="kind of SRC; an unknown one lists those there are")
    parser.add_argument("source", metavar="SRC", type=Path, help="folder or file to read")
    parser.add_argument("--out", type=Path, required=True, help="dataset folder to write")
    parser.add_argument(
        "--um-per-px", type=float, help="scale of the images, where SRC does not say it (csv)"
    )
    parser.add_argument("--modality", choices=("phase", "brightfield"), help="how they were made (csv)")
    parser.add_argument("--assay", choices=("adherent", "suspension"), help="what they show (csv)")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the splits, where SRC has none; for sets in 5 folds the one that is test (default 0)",
    )
    parser.add_argument(
        "--accept-proposals",
        action="store_true",
        help="take a station's own cells as labels where nobody corrected them (station)",
    )
    parser.set_defaults(run=run_import)
    parser = actions.add_parser(
        "check",
        help="list every fault of a dataset folder",
        description="Exit 0 if every check passes or cannot be made, 1 if one refuses (leakage, copies in "
        "two splits, single classes, labels that background or batch give away), 2 if tables are broken.",
        epilog="Example: nanotox-train data check data/ldc --json",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object with every number")
    parser.set_defaults(run=lambda args: run_check(args.folder, as_json=args.json))


def run_import(args: argparse.Namespace) -> int:
    """Import, then check what was written."""
    import importlib

    from device.errors import ConfigError
    from training.dataset import ImportOptions, list_importers

    if args.kind not in list_importers():
        raise ConfigError(
            f"unknown kind of data {args.kind!r}; expected one of {', '.join(list_importers())}"
        )
    if not args.source.exists():
        raise ConfigError(f"{args.source} does not exist; expected a folder or file of kind {args.kind}")
    options = ImportOptions(args.um_per_px, args.modality, args.assay, args.seed, args.accept_proposals)
    importer = importlib.import_module(f"training.dataset.from_{args.kind}")
    said: str | None = importer.import_data(args.source, args.out, options)
    if said:
        show_progress(said)
    if run_check(args.out) != DONE:
        show_progress(f"{args.out} is written; do not fit on it before the check passes")
    return DONE


def run_check(folder: Path, *, as_json: bool = False) -> int:
    """Tell what each check of a dataset found, in words and if asked as JSON."""
    import json
    from dataclasses import asdict

    from training.dataset import SPLITS, UNLABELED
    from training.evaluation.check import check_dataset, label_counts

    dataset, findings = check_dataset(folder)
    splits = {}
    for split in (*SPLITS, UNLABELED):
        if entries := dataset.in_split(split):
            labels = label_counts(dataset, split)
            splits[split] = {
                "images": len(entries),
                "groups": len({e.group for e in entries}),
                "labels": labels,
            }
            told = "; ".join(
                f"{name} " + ", ".join(f"{n} {label}" for label, n in counts.items())
                for name, counts in labels.items()
            )
            show_progress(
                f"{split}: {len(entries)} images in {splits[split]['groups']} groups; {told or 'no labels'}"
            )
    for finding in findings:
        show_progress(_words(finding))
    refused = sorted({finding.code for finding in findings if finding.passed is False})
    show_progress(f"{folder} is {'refused: ' + ', '.join(refused) if refused else 'fine'}")
    if as_json:
        checks = [asdict(finding) for finding in findings]
        document = {
            "folder": str(folder),
            "passed": not refused,
            "codes": refused,
            "splits": splits,
            "checks": checks,
        }
        print(json.dumps(document, allow_nan=False))
    return FAILED if refused else DONE


def _words(finding: "Finding") -> str:
    """Return one finding: a line, and where it refuses a line for each of the first ten faults."""
    verdict = {True: "passed", False: "REFUSED", None: "not judged"}[finding.passed]
    value = "" if finding.value is None else f": {finding.measure} {finding.value:g}"
    if finding.interval:
        value += f" (95 % {finding.interval.low:.3f} to {finding.interval.high:.3f})"
    line = f"{finding.code} {verdict}{value}"
    if finding.passed is None:
        return f"{line}: {finding.found[0]}"
    line += f", limit {finding.limit:g}"
    if finding.passed:
        return line
    more = len(finding.found) - SHOWN
    faults = [f"  {fault}" for fault in finding.found[:SHOWN]] + ([f"  and {more} more"] if more > 0 else [])
    return "\n".join([line, *faults, f"  expected {finding.expected}"])
