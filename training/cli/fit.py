"""`nanotox-train fit`: a network from a dataset folder."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli import DONE, Commands, show_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from training.recipes import Recipe


def add_parser(commands: Commands) -> None:
    """Add `fit`."""
    parser = commands.add_parser(
        "fit",
        help="fit a network to a dataset folder",
        description="Cut crops as the station does, fit a network on split train, choose it on split val.",
        epilog="Example: nanotox-train fit data/ldc --out runs/ldc --learner table2 --seed 1",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="dataset folder")
    parser.add_argument("--out", type=Path, required=True, help="run folder to write")
    add_options(parser)
    parser.add_argument(
        "--learner", default="station", help="kind of network (default station); an unknown one lists them"
    )
    parser.add_argument("--labels", type=int, help="use only so many labeled training samples")
    parser.add_argument(
        "--generated", type=Path, help="train on images of `gan --gate` too, where the gate was passed"
    )
    parser.add_argument("--epochs", type=int, default=20, help="default 20")
    parser.add_argument(
        "--pretrain",
        metavar="rendered|RUN",
        help="begin with what a network learned from rendered cells (kept in --out), or with that of a run",
    )
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `fit`, `gan` and `cotrain` share."""
    parser.add_argument(
        "--unit",
        choices=("cell", "field"),
        help="what one sample is (default: cell where there is a cells.csv)",
    )
    parser.add_argument(
        "--classes", help="comma-separated cell classes (default: live, the dead ones in cells.csv, other)"
    )
    parser.add_argument(
        "--assay", choices=("adherent", "suspension"), help="where dataset.json does not say it"
    )
    parser.add_argument("--seed", type=int, default=0, help="default 0")


def run(args: argparse.Namespace) -> int:
    """Fit and write the run."""
    from dataclasses import replace

    from training.cotraining.paper import choose_labeled
    from training.dataset import read_dataset
    from training.fitting import FitSettings
    from training.provenance import write_provenance
    from training.recipes.generated import read_generated
    from training.recipes.make import fit_recipe, improvise, prepare

    dataset = read_dataset(args.folder)
    # a pass over 20 labels is one batch: an epoch is 25, so that few labels train as long as many
    steps = 25 if args.labels is not None else 0
    fit = FitSettings(learner=args.learner, epochs=args.epochs, steps_per_epoch=steps, seed=args.seed)
    recipe = improvise(dataset, unit=args.unit, classes=args.classes, assay=args.assay, fit=fit)
    material = prepare(recipe, dataset, show_progress)
    if args.labels is not None:
        material = replace(material, train=choose_labeled(material.train, args.labels, args.seed)[0])
    start = None
    if args.pretrain:
        start = _read_start(args, recipe)
        source = "rendered cells" if args.pretrain == "rendered" else f"the run {args.pretrain}"
        recipe = replace(recipe, limits=(*recipe.limits, f"all but its last layer began with {source}"))
    made, gate = None, None
    if args.generated:
        made, gate = read_generated(args.generated, recipe.classes, dataset)
        show_progress(
            f"gate of {args.generated}: {len(made)} generated images are used {gate.get('note') or ''}"
        )
    fitted = fit_recipe(recipe, material, args.out, show_progress, start=start, generated=made, gan_gate=gate)
    write_provenance(args.out, vars(args), dataset.folder, (entry.file for entry in dataset.entries))
    epoch = f"epoch {fitted.best_epoch + 1} of {len(fitted.history)}"
    print(f"{args.out}: {epoch}, temperature {fitted.temperature:.2f}")
    return DONE


def _read_start(args: argparse.Namespace, recipe: "Recipe") -> "Sequence[NDArray[np.float32]]":
    """Return the weights that `--pretrain` names."""
    from device.errors import ConfigError
    from training.cotraining.transfer import PretrainSettings, keep_pretrained
    from training.export.bundle import load_network
    from training.provenance import read_run

    if args.pretrain == "rendered":
        show_progress("fitting to rendered cells first")
        settings = PretrainSettings(args.learner, modality=recipe.modality, seed=args.seed)
        return keep_pretrained(settings, args.out / "pretrained.npz")
    learner = read_run(Path(args.pretrain))[0].learner
    if learner != args.learner:
        raise ConfigError(f"{args.pretrain} holds a {learner}; expected a {args.learner} (--learner)")
    weights: Sequence[NDArray[np.float32]] = load_network(Path(args.pretrain)).get_weights()
    return weights
