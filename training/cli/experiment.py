"""`nanotox-train experiment`: what a few labels give, by arm and label budget."""

import argparse
from pathlib import Path

from device.errors import ConfigError
from training.cli import DONE, Commands


def add_parser(commands: Commands) -> None:
    """Add `experiment`."""
    parser = commands.add_parser(
        "experiment",
        help="compare arms over label budgets and seeds",
        description="Draw labels from split train, fit every arm to each draw with one step budget, and "
        "judge all on the same samples of another split. Writes results.json, summary.csv, summary.md and "
        "figures to RUN. Finished tasks are kept: the same command goes on after an interruption, and a "
        "wider one does only what is new. An unknown arm lists all there are.",
        epilog="Example: nanotox-train experiment data/ldc --out runs/few --labels 20,50,100,all "
        "--arms cnn,cnn+duplicates,cnn+gan --seeds 5",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="dataset folder")
    parser.add_argument("--out", type=Path, required=True, help="run folder to write")
    parser.add_argument("--labels", required=True, help="comma-separated budgets, such as 20,50,100,all")
    parser.add_argument("--arms", required=True, help="comma-separated arms")
    parser.add_argument("--seeds", type=int, default=5, help="draws of each budget (default 5)")
    parser.add_argument(
        "--ratio", default="equal", help="equal, natural or equal,natural: classes of a draw (default equal)"
    )
    parser.add_argument("--control", default="cnn", help="arm to compare with (default cnn)")
    parser.add_argument(
        "--split", choices=("val", "test"), default="val", help="what judges (default val; test only at last)"
    )
    parser.add_argument("--unit", choices=("cell", "field"), default="cell", help="default cell")
    parser.add_argument("--learner", default="table2", help="network of the arms (default table2)")
    parser.add_argument("--steps", type=int, help="gradient steps of a fit (default 500, with all 1500)")
    parser.add_argument("--noise", action="store_true", help="estimate the noise of the labels too")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one a core)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a running Dask cluster, instead")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the experiment and print its tables."""
    from training.experiment import ExperimentOptions, run_experiment

    ratios = tuple(args.ratio.split(","))
    faults = [
        f"--{name} is {value}; expected {low} or more"
        for name, value, low in (
            ("seeds", args.seeds, 1),
            ("steps", args.steps, 1),
            ("workers", args.workers, 0),
        )
        if value is not None and value < low
    ]
    if not set(ratios) <= {"equal", "natural"}:
        faults.append(f"--ratio is {args.ratio}; expected equal, natural or equal,natural")
    if faults:
        raise ConfigError(faults)
    options = ExperimentOptions(
        arms=tuple(dict.fromkeys(args.arms.split(","))),
        labels=read_budgets(args.labels),
        n_seeds=args.seeds,
        ratios=ratios,
        unit=args.unit,
        split=args.split,
        control=args.control,
        learner=args.learner,
        steps=args.steps,
        noise=args.noise,
    )
    run_experiment(args.folder, args.out, options, workers=args.workers, scheduler=args.scheduler)
    print((args.out / "summary.md").read_text(encoding="utf-8"), end="")
    return DONE


def read_budgets(text: str) -> tuple[int | None, ...]:
    """Return the label budgets of a comma-separated list, None for `all`."""
    budgets = []
    for word in dict.fromkeys(text.split(",")):
        if word != "all" and not (word.isdecimal() and int(word) >= 4):
            raise ConfigError(
                f"--labels has {word!r}; expected numbers of 4 or more, or all, such as 20,50,all"
            )
        budgets.append(None if word == "all" else int(word))
    return tuple(budgets)
