"""`nanotox-train paper`: the paper's recipe from labels by counting to the int8 model."""

import argparse
from pathlib import Path

from training.cli import DONE, Commands, show_progress


def add_parser(commands: Commands) -> None:
    """Add `paper`."""
    parser = commands.add_parser(
        "paper",
        help="the paper's recipe, with its figures beside ours",
        description="Count every image by the paper's chain, label by counting, generate, co-train "
        "(Algorithm 1), fit Table 2's network and export it to RUN/bundle; write RUN/report.md. With default "
        "settings it takes a quarter of an hour on two cores, with --smoke a minute.",
        epilog="Example: nanotox-train paper data/ldc --out runs/paper --smoke",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="dataset folder")
    parser.add_argument("--out", type=Path, required=True, help="run folder to write")
    parser.add_argument(
        "--smoke", action="store_true", help="tiny steps: shows that it runs, not how good it is"
    )
    parser.add_argument("--unit", choices=("field", "cell"), help="default: cell where there is a cells.csv")
    parser.add_argument(
        "--model", help="bundle that tells dead from live regions (default: every region is dead)"
    )
    parser.add_argument("--steps", type=int, help="GAN steps (default 1500: the paper's epochs)")
    parser.add_argument("--labels", type=int, default=35, help="default 35")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the recipe."""
    from dataclasses import replace

    from device.classifier import open_cell_classifier
    from device.models import find_bundle
    from training.dataset import read_dataset
    from training.provenance import write_provenance
    from training.recipes.paper import SMOKE, RecipeSettings, run_recipe

    dataset = read_dataset(args.folder)
    settings = SMOKE if args.smoke else RecipeSettings()
    gan = replace(settings.paper.gan, seed=args.seed, **({"steps": args.steps} if args.steps else {}))
    settings = replace(
        settings,
        unit=args.unit or ("cell" if dataset.cells else "field"),
        paper=replace(settings.paper, n_labeled=args.labels, gan=gan, seed=args.seed),
    )
    classify = open_cell_classifier(find_bundle(args.model)) if args.model else None
    outcome = run_recipe(dataset, args.out, settings, classify, show_progress)
    write_provenance(args.out, vars(args), dataset.folder, (entry.file for entry in dataset.entries))
    print(f"{args.out / 'report.md'}; model {outcome.bundle.name} in {args.out / 'bundle'}")
    return DONE
