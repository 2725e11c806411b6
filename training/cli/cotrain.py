"""`nanotox-train cotrain`: co-training from few labels."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.cli import DONE, Commands, show_progress
from training.cli.fit import add_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from training.dataset import Dataset
    from training.dataset.samples import Samples
    from training.evaluation.binary import BinaryScores
    from training.recipes import Recipe


def add_parser(commands: Commands) -> None:
    """Add `cotrain`."""
    parser = commands.add_parser(
        "cotrain",
        help="co-train two learners from few labels",
        description="Keep the labels of some samples of split train, forget the others, and let two learners "
        "label them; then fit the final network. Profile paper: Table 2's network twice, by agreement "
        "(Algorithm 1 with its misprints corrected). Profile robust: pixels (an embedding learned "
        "without labels) and texture and shape (for whole fields a network and the station's counts); each "
        "calls the classes in their shares, a label needs both and can be taken back. Profile fixmatch: one "
        "network that labels what it is sure of under weak changes and learns it under strong ones.",
        epilog="Example: nanotox-train cotrain data/ldc --out runs/co --profile robust --labels 35 --seed 1",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="dataset folder")
    parser.add_argument("--out", type=Path, required=True, help="run folder to write")
    parser.add_argument(
        "--profile", choices=("paper", "robust", "fixmatch"), default="paper", help="default paper"
    )
    parser.add_argument("--labels", type=int, default=35, help="labeled samples (default 35)")
    parser.add_argument("--unlabeled", type=int, default=300, help="unlabeled samples at most (default 300)")
    parser.add_argument("--epochs", type=int, default=20, help="of each network (default 20)")
    parser.add_argument("--rounds", type=int, help="at most (default: 10 by profile paper, 4 by robust)")
    paper = parser.add_argument_group("profile paper only")
    paper.add_argument("--count", type=int, default=150, help="generated images (default 150)")
    paper.add_argument("--steps", type=int, default=1500, help="GAN steps of the first round (default 1500)")
    robust = parser.add_argument_group("profiles robust and fixmatch only")
    robust.add_argument("--learner", default="station", help="kind of network (default station)")
    robust.add_argument(
        "--split", choices=("val", "test"), default="val", help="what the outcome is scored on (default val)"
    )
    robust.add_argument("--model", help="cell model that counts whole fields (default: that of the assay)")
    robust.add_argument(
        "--shares",
        help="of the classes among the unlabeled, such as 0.8,0.2, where counting told (default: estimated)",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Co-train and write the run of the final network."""
    from training.dataset import read_dataset
    from training.provenance import write_provenance

    dataset = read_dataset(args.folder)
    code = _run_paper(args, dataset) if args.profile == "paper" else _run_robust(args, dataset)
    write_provenance(args.out, vars(args), dataset.folder, (entry.file for entry in dataset.entries))
    return code


def _run_robust(args: argparse.Namespace, dataset: "Dataset") -> int:
    from dataclasses import replace

    from training.cotraining.robust import RobustSettings
    from training.fields import bundle_samples
    from training.fitting import FitSettings
    from training.recipes.cotrain import RobustOptions, co_train_material_robust, fit_material_fixmatch
    from training.recipes.make import improvise, prepare

    # a pass over 20 labels is one batch: an epoch is 25, so that few labels train as long as many
    fit = FitSettings(args.learner, epochs=args.epochs, steps_per_epoch=25, seed=args.seed)
    if args.profile == "fixmatch":
        # a labeled crop comes with seven unlabeled ones
        fit = replace(fit, batch=16, shift_px=0 if args.unit == "field" else 2, noise=0.05)
    recipe = improvise(dataset, unit=args.unit, classes=args.classes, assay=args.assay, fit=fit)
    options = RobustOptions(
        n_labeled=args.labels,
        max_unlabeled=args.unlabeled,
        seed=args.seed,
        shares=_read_shares(args.shares, len(recipe.classes)),
        loop=RobustSettings() if args.rounds is None else RobustSettings(max_rounds=args.rounds),
    )
    judged = bundle_samples(recipe.kind, recipe.classes, dataset, args.split)
    material = prepare(recipe, dataset, show_progress)
    more = _find_unlabeled(dataset, recipe)
    rest = (recipe, material, judged, options, args.out, show_progress)
    if args.profile == "fixmatch":
        _tell(args, fit_material_fixmatch(*rest, unlabeled=more))
        return DONE
    views = _count_views(args, dataset, recipe) if recipe.kind == "field" else {}
    found = co_train_material_robust(*rest, unlabeled=more, **views)
    _tell(args, found.scores)
    n_pseudo, right = len(found.co_training.pseudo), found.pseudo_right
    print(
        f"{args.out}: {n_pseudo} pseudo-labeled in round {found.co_training.best_round + 1} of "
        f"{len(found.co_training.rounds)} ({found.co_training.ending})"
        + ("" if right is None else f", {right:.1%} of them right")
    )
    return DONE


def _read_shares(text: str | None, n_classes: int) -> tuple[float, ...] | None:
    """Return stated shares, sum 1, None where they are to be estimated."""
    from device.errors import ConfigError

    if text is None:
        return None
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if len(shares) != n_classes or min(shares) <= 0 or abs(sum(shares) - 1) > 0.01:
        raise ConfigError(
            f"--shares is {text!r}; expected {n_classes} numbers above 0 of sum 1, one a class in their order"
        )
    return tuple(share / sum(shares) for share in shares)


def _find_unlabeled(dataset: "Dataset", recipe: "Recipe") -> "Samples | None":
    """Return the fields of split train without a label and those of split unlabeled, None for cells."""
    from training.dataset import UNLABELED
    from training.dataset.samples import join_samples
    from training.fields import field_samples

    if recipe.kind != "field":
        return None  # a crop is cut where a true cell is known
    fields = join_samples(field_samples(dataset, split, unlabeled=True) for split in ("train", UNLABELED))
    return fields.take(fields.y < 0)


def _count_views(args: argparse.Namespace, dataset: "Dataset", recipe: "Recipe") -> dict[str, Any]:
    """Return second learner and floor of whole fields: what the station counts in them."""
    from device.errors import ConfigError
    from device.model_card import fit_faults
    from device.models import default_bundle, find_bundle
    from training.dataset import UNLABELED
    from training.recipes.cotrain import network_learner
    from training.recipes.counts import learn_counts, read_counts, rule_by_counts

    bundle = find_bundle(args.model) if args.model else default_bundle(recipe.assay, recipe.modality)
    if faults := fit_faults(bundle.card, assay=recipe.assay, modality=recipe.modality):
        raise ConfigError(faults)
    show_progress(f"counting the cells of each field with {bundle.name}")
    counts = read_counts(dataset, ("train", UNLABELED, args.split), bundle)
    return {
        "views": ((recipe.fit.learner, network_learner(recipe.fit)), ("counts", learn_counts(counts))),
        "floors": {"count rule": rule_by_counts(counts, recipe.assay)},
    }


def _tell(args: argparse.Namespace, scores: "Mapping[str, BinaryScores]") -> None:
    for name, score in scores.items():
        said = {"balanced accuracy": score.balanced_accuracy, "F1 dead": score.f1_dead, "nll": score.nll}
        told = ", ".join(f"{what} {value:.3f}" for what, value in said.items() if value is not None)
        print(f"{args.split}, {name}: {told}")


def _run_paper(args: argparse.Namespace, dataset: "Dataset") -> int:
    from training.cotraining import MAX_ROUNDS
    from training.cotraining.paper import PaperSettings
    from training.fitting import FitSettings
    from training.gan import GanSettings
    from training.recipes.make import improvise, prepare
    from training.recipes.paper import co_train_material

    fit = FitSettings("table2", epochs=args.epochs, batch=32, balanced=False, seed=args.seed)
    recipe = improvise(dataset, unit=args.unit, classes=args.classes, assay=args.assay, fit=fit)
    settings = PaperSettings(
        n_labeled=args.labels,
        n_generated=args.count,
        max_rounds=args.rounds or MAX_ROUNDS,
        refit_steps=max(1, args.steps // 5),
        gan=GanSettings(steps=args.steps, seed=args.seed),
        fit=fit,
        seed=args.seed,
    )
    material = prepare(recipe, dataset, show_progress)
    more = _find_unlabeled(dataset, recipe)
    found = co_train_material(
        recipe, material, settings, args.unlabeled, args.out, show_progress, unlabeled=more
    )
    ending = "I_F unchanged" if found.co_training.unchanged else "round limit"
    n_pseudo = len(found.co_training.pseudo)
    print(f"{args.out}: {n_pseudo} pseudo-labeled in {len(found.co_training.rounds)} rounds ({ending})")
    return DONE
