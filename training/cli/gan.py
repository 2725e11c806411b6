"""`nanotox-train gan`: generated training images, one GAN a class."""

import argparse
from pathlib import Path

from training.cli import DONE, Commands, show_progress
from training.cli.fit import add_options


def add_parser(commands: Commands) -> None:
    """Add `gan`."""
    parser = commands.add_parser(
        "gan",
        help="generate training images",
        description="Fit one GAN to each class of split train and write generated.npz (x, y, classes), loss "
        "curves and sample grids. Generated images are training data only, never validation.",
        epilog="Example: nanotox-train gan data/ldc --out runs/gan --profile paper --count 150",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="dataset folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--profile", choices=("paper",), default="paper", help="default paper")
    parser.add_argument("--count", type=int, default=150, help="images in all (default 150)")
    parser.add_argument(
        "--steps", type=int, default=1500, help="mini-batches: the paper's epochs (default 1500)"
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fit the GANs and write what they generate."""
    from dataclasses import replace

    import numpy as np

    from training.dataset import read_dataset
    from training.fitting import FitSettings
    from training.gan import GanSettings, generate_samples, open_gan, write_gan_figures
    from training.recipes.make import improvise, prepare

    dataset = read_dataset(args.folder)
    recipe = improvise(
        dataset, unit=args.unit, classes=args.classes, assay=args.assay, fit=FitSettings(seed=args.seed)
    )
    train = prepare(recipe, dataset, show_progress).train
    settings = GanSettings(steps=args.steps, seed=args.seed)
    gans = {int(k): open_gan(replace(settings, seed=args.seed + int(k))) for k in np.unique(train.y)}
    made = generate_samples(train, gans, args.count, steps=None, seed=args.seed, progress=show_progress)
    args.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out / "generated.npz", x=made.x, y=made.y, classes=np.array(made.classes))
    for k, gan in gans.items():
        write_gan_figures(args.out, train.classes[k], gan)
    print(f"{args.out / 'generated.npz'}: {len(made)} images, {made.count()}")
    return DONE
