"""`nanotox-train data import|check`: dataset folders in one form, and what is wrong with one."""

import argparse
from pathlib import Path

from training.cli import DONE, Commands


def add_parser(commands: Commands) -> None:
    """Add `data import` and `data check`."""
    data = commands.add_parser(
        "data", help="import images into a dataset folder, or check one", allow_abbrev=False
    )
    actions = data.add_subparsers(metavar="ACTION", required=True)
    parser = actions.add_parser(
        "import",
        help="write a dataset folder from another form",
        description="Write a dataset folder (manifest.csv, images, cells.csv, dataset.json), then check it.",
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
        description="Exit 0 with counts, or 2 with every fault: missing files and columns, divided groups, "
        "copies across splits, single classes, unreadable images.",
        epilog="Example: nanotox-train data check data/ldc",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.set_defaults(run=lambda args: run_check(args.folder))


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
        print(said)
    return run_check(args.out)


def run_check(folder: Path) -> int:
    """Print the counts of a dataset, or raise its faults."""
    from device.errors import ConfigError
    from training.dataset.check import check_dataset

    found = check_dataset(folder)
    if found.faults:
        raise ConfigError(list(found.faults))
    for split, n_images in found.n_images.items():
        labels = (
            ", ".join(f"{n} {label}" for label, n in sorted(found.n_labels.get(split, {}).items()))
            or "no labels"
        )
        print(f"{split}: {n_images} images in {found.n_groups[split]} groups; {labels}")
    print(f"{folder} is fine")
    return DONE
