"""`nanotox-train gan`: generated training images and what they are worth."""

import argparse
from pathlib import Path

from training.cli import DONE, Commands, show_progress
from training.cli.fit import add_options


def add_parser(commands: Commands) -> None:
    """Add `gan`."""
    parser = commands.add_parser(
        "gan",
        help="generate training images",
        description="Fit one GAN to each class of split train (robust: one to all) and write generated.npz "
        "(x, y, classes), loss curves, sample grids and quality.json, which compares them with split val. "
        "Generated images are training data only, never validation.",
        epilog="Example: nanotox-train gan data/ldc --out runs/gan --profile paper --count 150",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="dataset folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--profile", choices=("paper", "robust"), default="paper", help="default paper")
    parser.add_argument("--count", type=int, default=150, help="images in all (default 150)")
    parser.add_argument(
        "--steps", type=int, default=1500, help="mini-batches: the paper's epochs (default 1500)"
    )
    parser.add_argument("--labels", type=int, help="use only so many labeled training samples")
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fit the GANs and write what they generate."""
    from dataclasses import replace

    import numpy as np

    from training.cotraining.paper import choose_labeled
    from training.dataset import read_dataset
    from training.fitting import FitSettings
    from training.gan import GanSettings, generate_samples, open_gan, write_gan_figures
    from training.gan.robust import RobustSettings, open_robust_gan
    from training.recipes.generated import GATE_NOT_RUN, write_quality
    from training.recipes.make import improvise, prepare

    dataset = read_dataset(args.folder)
    recipe = improvise(
        dataset, unit=args.unit, classes=args.classes, assay=args.assay, fit=FitSettings(seed=args.seed)
    )
    material = prepare(recipe, dataset, show_progress)
    train = material.train
    if args.labels is not None:
        train = choose_labeled(train, args.labels, args.seed)[0]
    found = np.unique(train.y).tolist()
    if args.profile == "robust":
        gan = open_robust_gan(RobustSettings(steps=args.steps, seed=args.seed), len(train.classes))
        gans = dict.fromkeys(found, gan)
    else:
        settings = GanSettings(steps=args.steps, seed=args.seed)
        gans = {k: open_gan(replace(settings, seed=args.seed + k)) for k in found}
    made = generate_samples(train, gans, args.count, steps=None, seed=args.seed, progress=show_progress)
    args.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out / "generated.npz", x=made.x, y=made.y, classes=np.array(made.classes))
    for gan in dict.fromkeys(gans.values()):
        name = "-".join(train.classes[k] for k in found if gans[k] is gan)
        write_gan_figures(args.out, name, gan)
    if args.count >= len(found) > 1:
        for line in write_quality(args.out, train, material.val, made, recipe.fit, show_progress):
            print(line)
    print(f"gate {GATE_NOT_RUN}")
    print(f"{args.out / 'generated.npz'}: {len(made)} images, {made.count()}")
    return DONE
