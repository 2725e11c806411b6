"""`quality.json` and its figure: what a GAN made, judged by a cell model fitted to the real images alone."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from training.dataset import Samples
from training.evaluation.generated import Images, Quality, judge_generated
from training.fitting import FitSettings, fit_network, predict
from training.recipes.make import Progress

GATE_NOT_RUN = "not run: generated images stay out of shipped models"


def write_quality(
    folder: Path, train: Samples, held_out: Samples, generated: Samples, fit: FitSettings, progress: Progress
) -> list[str]:
    """Judge generated images, write `quality.json` and `quality.png`, and return a line for each class.

    Parameters
    ----------
    folder : Path
        Exists.
    train, held_out : Samples
        Real images that the GAN was fitted on, of two classes or more, and those it never saw; the latter
        also choose the epoch of the judge.
    generated : Samples
        At least one of each class there is.
    fit : FitSettings
        Of the judge, whose layer before the last gives the features.
    """
    progress(f"fitting {fit.learner} to {train.count()} as the judge")
    model = fit_network(train, held_out, fit).model

    def look(samples: Samples, class_index: int) -> Images:
        some = samples.take(samples.y == class_index)
        seen = predict(model, some.x)
        features = seen["features"].astype(np.float64)
        return Images(some.x, features, some.group.tolist(), seen["logits"].argmax(axis=1))

    found = {
        train.classes[k]: judge_generated(
            look(train, k), look(held_out, k), look(generated, k), k, seed=fit.seed
        )
        for k in np.unique(generated.y).tolist()
    }
    document = {
        "features": f"layer before the last of learner {fit.learner}, fitted to these training images",
        "gate": GATE_NOT_RUN,
        "classes": {name: asdict(quality) for name, quality in found.items()},
    }
    (folder / "quality.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    _draw(folder / "quality.png", found)
    return [_describe(name, quality) for name, quality in found.items()]


def _describe(name: str, quality: Quality) -> str:
    copies = {
        True: "copies of training images",
        False: "no sign of copies",
        None: "too few images to rule copies out",
    }
    fidelity, sure = f"{quality.fidelity:.0%}", quality.fidelity_interval
    apart = "not tested" if quality.c2st_auc is None else f"AUC {quality.c2st_auc:.2f}"
    return (
        f"{name}: KID {quality.verdict}; told apart from held-out ones: {apart}; "
        f"{copies[quality.memorized]}; {fidelity} ({sure.low:.0%} to {sure.high:.0%}) called {name}"
    )


def _draw(path: Path, found: dict[str, Quality]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(found), 3.5), layout="constrained")
    for axes, (name, quality) in zip(np.ravel(figure.subplots(1, len(found))), found.items(), strict=True):
        bars = {
            "generated": quality.kid,
            "train halves": quality.kid_halves,
            "held out": quality.kid_held_out,
        }
        for place, kid in enumerate(bars.values()):
            if kid is None:
                axes.text(place, 0, "too few", ha="center")
                continue
            axes.plot([place, place], [kid.interval.low, kid.interval.high], color="gray")
            axes.plot(place, kid.mean, "o", color="black")
        axes.set_xticks(range(len(bars)), list(bars))
        axes.set(title=f"{name}, {quality.n_generated} generated", ylabel="KID to training images")
    figure.savefig(path, dpi=120)
