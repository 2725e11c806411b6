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
        "With --gate also fit with and without them over five folds, which takes six times as long. "
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
    parser.add_argument(
        "--gate", action="store_true", help="also ask whether they help: see `fit --generated`"
    )
    parser.add_argument(
        "--epochs", type=int, default=20, help="of the judge and the gate's fits (default 20)"
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fit the GANs and write what they generate."""
    import numpy as np

    from training.cotraining.paper import choose_labeled
    from training.dataset import read_dataset
    from training.fitting import FitSettings
    from training.gan import GanSettings, write_gan_figures
    from training.gan.robust import RobustSettings
    from training.provenance import PROVENANCE_FILE, write_provenance
    from training.recipes.generated import GATE_NOT_RUN, IMAGES_FILE, ask_gate, generate_anew, write_quality
    from training.recipes.make import improvise, prepare, require_classes

    dataset = read_dataset(args.folder)
    fit = FitSettings(epochs=args.epochs, seed=args.seed)
    recipe = improvise(dataset, unit=args.unit, classes=args.classes, assay=args.assay, fit=fit)
    material = prepare(recipe, dataset, show_progress)
    train = material.train
    require_classes(train)
    if args.labels is not None:
        train = choose_labeled(train, args.labels, args.seed)[0]
    settings = (RobustSettings if args.profile == "robust" else GanSettings)(steps=args.steps, seed=args.seed)
    found = generate_anew(train, settings, args.count, fit, show_progress)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / PROVENANCE_FILE).unlink(missing_ok=True)  # what is half of each GAN is none
    made, classes = found.made, np.array(train.classes)
    np.savez_compressed(args.out / IMAGES_FILE, x=made.x, y=made.y, classes=classes)
    for gan in dict.fromkeys(found.gans.values()):
        name = "-".join(train.classes[k] for k, one in found.gans.items() if one is gan)
        write_gan_figures(args.out, name, gan)
    lines = [f"gate {GATE_NOT_RUN}"]
    if args.count >= len(found.gans) > 1:
        gate = ask_gate(train, settings, args.count, fit, show_progress) if args.gate else None
        lines = write_quality(args.out, found, material.val, fit, show_progress, gate)
    write_provenance(args.out, vars(args), dataset.folder, (entry.file for entry in dataset.entries))
    for line in lines:
        print(line)
    print(f"{args.out / IMAGES_FILE}: {len(made)} images, {made.count()}")
    return DONE
