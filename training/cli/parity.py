"""`nanotox-train parity`: float against int8 on other images."""

import argparse
from pathlib import Path

from training.cli import DONE, FAILED, Commands


def add_parser(commands: Commands) -> None:
    """Add `parity`."""
    parser = commands.add_parser(
        "parity",
        help="compare a bundle with its float network",
        description="Run the crops of a split through the bundle, as a station does, and through the float "
        "network of the run it was exported from. Prints figures beside their limits; the last line is JSON. "
        "Exit 1 where a limit does not hold.",
        epilog="Example: nanotox-train parity models/my-chamber data/ldc --run runs/ldc --split val",
        allow_abbrev=False,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="name or folder of a bundle")
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="dataset folder, or the run itself (its validation crops)"
    )
    parser.add_argument(
        "--run",
        dest="run_folder",
        type=Path,
        help="run with the float network (default: DIR, or the bundle's own weights as float)",
    )
    parser.add_argument("--split", default="val", choices=("train", "val", "test", "all"), help="default val")
    parser.add_argument("--out", type=Path, help="folder for parity.png, the histogram of |dp|")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print parity."""
    import json
    from dataclasses import asdict

    from device.errors import ConfigError
    from device.models import find_bundle
    from training.dataset import read_dataset
    from training.export.bundle import describe_parity, measure_bundle
    from training.export.parity import parity_table
    from training.fields import bundle_samples
    from training.provenance import RUN_FILE, read_run

    bundle = find_bundle(args.bundle)
    if (args.folder / RUN_FILE).is_file():
        samples = read_run(args.folder)[1]
        x, y, whole = samples.val_x, samples.val_y, samples.val_whole
        run_folder = args.run_folder or args.folder
    else:
        card, dataset = bundle.card, read_dataset(args.folder)
        found = bundle_samples(card.kind, card.classes, dataset, args.split, input_px=card.input_px)
        x, y, whole, run_folder = found.x, found.y, found.whole, args.run_folder
    if not len(y):
        raise ConfigError(
            f"{args.folder} has nothing to compare in split {args.split}; expected labeled images"
        )
    figure = args.out / "parity.png" if args.out else None
    parity = measure_bundle(bundle, run_folder, x, y, whole, figure)
    print(parity_table(parity))
    print(describe_parity(parity))
    print(json.dumps({"passed": not parity.failures, **asdict(parity)}))
    return FAILED if parity.failures else DONE
