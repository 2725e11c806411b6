"""`nanotox-train cotrain`: Algorithm 1 from few labels."""

import argparse
from pathlib import Path

from training.cli import DONE, Commands, show_progress
from training.cli.fit import add_options


def add_parser(commands: Commands) -> None:
    """Add `cotrain`."""
    parser = commands.add_parser(
        "cotrain",
        help="co-train two networks from few labels",
        description="Keep the labels of some samples of split train, forget the others, and let two networks "
        "label them by agreement (Algorithm 1 with its misprints corrected); then fit the final network.",
        epilog="Example: nanotox-train cotrain data/ldc --out runs/co --labels 35 --seed 1",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="dataset folder")
    parser.add_argument("--out", type=Path, required=True, help="run folder to write")
    parser.add_argument("--profile", choices=("paper",), default="paper", help="default paper")
    parser.add_argument("--labels", type=int, default=35, help="labeled samples (default 35)")
    parser.add_argument("--unlabeled", type=int, default=300, help="unlabeled samples at most (default 300)")
    parser.add_argument("--count", type=int, default=150, help="generated images (default 150)")
    parser.add_argument("--steps", type=int, default=1500, help="GAN steps of the first round (default 1500)")
    parser.add_argument("--epochs", type=int, default=20, help="of each network (default 20)")
    parser.add_argument("--rounds", type=int, default=10, help="at most (default 10)")
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Co-train and write the run of the final network."""
    from training.cotraining.paper import PaperSettings
    from training.dataset import read_dataset
    from training.fitting import FitSettings
    from training.gan import GanSettings
    from training.recipes.make import improvise, prepare
    from training.recipes.paper import co_train_material

    dataset = read_dataset(args.folder)
    fit = FitSettings("table2", epochs=args.epochs, batch=32, balanced=False, seed=args.seed)
    recipe = improvise(dataset, unit=args.unit, classes=args.classes, assay=args.assay, fit=fit)
    settings = PaperSettings(
        n_labeled=args.labels,
        n_generated=args.count,
        max_rounds=args.rounds,
        refit_steps=max(1, args.steps // 5),
        gan=GanSettings(steps=args.steps, seed=args.seed),
        fit=fit,
        seed=args.seed,
    )
    material = prepare(recipe, dataset, show_progress)
    found = co_train_material(recipe, material, settings, args.unlabeled, args.out, show_progress)
    n_pseudo, ending = (
        len(found.co_training.pseudo),
        "I_F unchanged" if found.co_training.unchanged else "round limit",
    )
    print(f"{args.out}: {n_pseudo} pseudo-labeled in {len(found.co_training.rounds)} rounds ({ending})")
    return DONE
