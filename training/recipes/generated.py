"""What a GAN made, judged by a cell model fitted to the real images alone: quality report and gate."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device.errors import ConfigError
from device.plates import file_sha256
from device.records import Interval
from training.cotraining.paper import split_groups
from training.dataset import MANIFEST, Dataset
from training.dataset.folds import N_FOLDS, draw_folds
from training.dataset.samples import Samples, join_samples
from training.evaluation.binary import balanced_accuracy
from training.evaluation.gate import FIDELITY_MIN, GateResult, PairedResult, pass_gate
from training.evaluation.generated import (
    SUBSET_MAX,
    SUBSET_MIN,
    Images,
    Quality,
    judge_generated,
    measure_kid,
    measure_overfit,
)
from training.evaluation.resampling import share_wilson
from training.fitting import FitSettings, fit_network, predict, predict_logits
from training.gan import GENERATED, Gan, GanSettings, generate_samples
from training.gan.paper import open_gans
from training.gan.robust import RobustSettings, open_robust_gan
from training.provenance import PROVENANCE_FILE
from training.recipes.make import GanGate, Progress

GATE_NOT_RUN = "not run: generated images stay out of shipped models"
Gate = Callable[[Mapping[str, Quality]], GateResult]
"""Gives the result of the gate, asked with the reports by class."""
IMAGES_FILE, QUALITY_FILE = "generated.npz", "quality.json"
CHOOSING_SHARE = 0.2
"""Share of the training images, by whole groups, that choose the checkpoint of the robust GAN."""


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """Images of freshly fitted GANs."""

    made: Samples
    seen: Samples
    """Real images that the GANs were fitted on."""
    gans: Mapping[int, Gan]
    """By class; one and the same for all where it knows classes."""


def generate_anew(
    train: Samples, settings: GanSettings, count: int, fit: FitSettings, progress: Progress
) -> Generation:
    """Return images of GANs fitted to `train`: one to each class, or one to all with `RobustSettings`.

    The robust one keeps the checkpoint of the lowest KID on a fifth of the training images that it never saw,
    where that is 20 images of each class; `fit` is of the network whose features the KID is taken in.
    """
    found, measure, seen = np.unique(train.y).tolist(), None, train
    if isinstance(settings, RobustSettings):
        gans = dict.fromkeys(found, open_robust_gan(settings, len(train.classes)))
        seen, held = split_groups(train, CHOOSING_SHARE, settings.seed)
        if min(int(np.sum(held.y == k)) for k in found) >= SUBSET_MIN:
            measure = _kid_on(held, seen, fit)
        else:
            seen = train
    else:
        gans = open_gans(settings, found)
    made = generate_samples(
        seen, gans, count, steps=None, seed=settings.seed, progress=progress, measure=measure
    )
    return Generation(made, seen, gans)


def write_quality(
    folder: Path,
    generation: Generation,
    held_out: Samples,
    fit: FitSettings,
    progress: Progress,
    gate: Gate | None = None,
) -> list[str]:
    """Judge generated images, write `quality.json` and `quality.png`, and return a line for each class.

    Parameters
    ----------
    folder : Path
        Exists.
    generation : Generation
        Of two classes or more, at least one image of each.
    held_out : Samples
        Real images that the GAN never saw; they also choose the epoch of the judge.
    fit : FitSettings
        Of the judge, whose layer before the last gives the features.
    gate : callable, optional
        Without it none is run.
    """
    train, made = generation.seen, generation.made
    progress(f"fitting {fit.learner} to {train.count()} as the judge")
    model = fit_network(train, held_out, fit).model

    def look(samples: Samples, class_index: int) -> Images:
        some = samples.take(samples.y == class_index)
        seen = predict(model, some.x)
        features = seen["features"].astype(np.float64)
        return Images(some.x, features, some.group.tolist(), seen["logits"].argmax(axis=1))

    found = {}
    for k in np.unique(made.y).tolist():
        known, new, fake = (look(samples, k) for samples in (train, held_out, made))
        quality = judge_generated(known, new, fake, k, seed=fit.seed)
        logits = [generation.gans[k].judge(part.x, k).astype(np.float64) for part in (known, new, fake)]
        found[train.classes[k]] = replace(quality, overfit=measure_overfit(*logits))
    result = gate(found) if gate else None
    document = {
        "features": f"layer before the last of learner {fit.learner}, fitted to these training images",
        "gate": asdict(result) if result else GATE_NOT_RUN,
        "checkpoints": {str(step): kid for gan in generation.gans.values() for step, kid in gan.kids.items()},
        "classes": {name: asdict(quality) for name, quality in found.items()},
    }
    (folder / QUALITY_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    _draw(folder / "quality.png", found)
    return [*(_describe(name, quality) for name, quality in found.items()), _describe_gate(result)]


def ask_gate(train: Samples, settings: GanSettings, count: int, fit: FitSettings, progress: Progress) -> Gate:
    """Return the gate of GANs that are fitted anew, by `generate_anew`, to the training part of each fold."""

    def make(rest: Samples) -> Samples:
        return generate_anew(rest, settings, count, fit, progress).made

    return lambda found: run_gate(train, fit, make, found, progress)


def run_gate(
    train: Samples,
    fit: FitSettings,
    make: Callable[[Samples], Samples],
    found: Mapping[str, Quality],
    progress: Progress,
) -> GateResult:
    """Return whether generated images help, by five folds of whole groups of `train` and three fits of each.

    Parameters
    ----------
    train : Samples
        Real labeled images.
    fit : FitSettings
        Of each fit; all three of a fold take equally many steps from equal weights.
    make : callable
        Generates anew from the part of a fold that trains.
    found : mapping of str to Quality
        Reports by class, for copies and label fidelity.
    progress : callable
        Called with one line of text at a time.
    """
    folds = draw_folds(train.group.tolist())
    fold = np.array([folds[str(group)] for group in train.group])
    rng, results = np.random.default_rng(fit.seed), []
    for k in range(N_FOLDS):
        rest, test = train.take(fold != k), train.take(fold == k)
        if len(np.unique(rest.y)) < len(np.unique(train.y)) or len(np.unique(test.y)) < 2:
            continue  # too few groups of a class: nothing to be learned or judged
        made = make(rest)
        counts = np.bincount(made.y, minlength=len(rest.classes)).tolist()
        drawn = [rng.choice(np.flatnonzero(rest.y == c), n) for c, n in enumerate(counts) if n]
        copies = rest.take(np.concatenate(drawn))
        steps = fit.steps_per_epoch or -(-len(rest) // fit.batch)
        with_gan, classical, duplicates = (
            _score(join_samples([rest, *more]), test, replace(fit, steps_per_epoch=steps))
            for more in ([made], [], [copies])
        )
        results.append(PairedResult(with_gan, classical, duplicates, len(rest), len(test)))
        progress(
            f"gate, fold {k + 1} of {N_FOLDS}: balanced accuracy {with_gan:.3f} with generated images, "
            f"{classical:.3f} without, {duplicates:.3f} with as many copies"
        )
    copied = [quality.memorized for quality in found.values()]
    memorized = True if True in copied else None if None in copied or not copied else False
    fidelity, real = _worst_fidelity(found)
    return pass_gate(results, memorized=memorized, fidelity=fidelity, fidelity_real=real)


def read_generated(folder: Path, classes: tuple[str, ...], dataset: Dataset) -> tuple[Samples, GanGate]:
    """Return what `gan` wrote to `folder` and what a card says of it; no samples where the gate did not pass.

    Raises
    ------
    ConfigError
        If there is none, or it was made of other classes or of another manifest than that of `dataset`.
    """
    try:
        with np.load(folder / IMAGES_FILE, allow_pickle=False) as arrays:
            x, y, named = arrays["x"], arrays["y"], tuple(arrays["classes"].tolist())
        gate = json.loads((folder / QUALITY_FILE).read_text(encoding="utf-8"))["gate"]
        data = json.loads((folder / PROVENANCE_FILE).read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{folder} holds no finished GAN ({error}); expected the --out folder of "
            "`nanotox-train gan --gate`"
        ) from error
    if named != classes or data.get(MANIFEST) != file_sha256(dataset.folder / MANIFEST):
        raise ConfigError(
            f"{folder} was made of {', '.join(named)} of another dataset or with other classes; expected "
            f"{', '.join(classes)} of {dataset.folder} (run `nanotox-train gan --gate` on it)"
        )
    stated = gate if isinstance(gate, dict) else {"passed": False, "note": gate}
    kept = slice(None if stated["passed"] else 0)
    samples = Samples(x[kept], y[kept], np.full(len(y), GENERATED)[kept], "train", GENERATED, classes)
    return samples, {"used": stated["passed"], "n_generated": len(samples), **stated}


def _score(train: Samples, test: Samples, fit: FitSettings) -> float:
    model = fit_network(train, None, fit).model
    return balanced_accuracy(predict_logits(model, test.x).argmax(axis=1), test.y)


def _kid_on(held: Samples, seen: Samples, fit: FitSettings) -> Callable[[Gan], float]:
    """Return the mean over classes of the KID of a GAN's images on `held`, in features fitted to `seen`."""
    model = fit_network(seen, held, fit).model

    def look(x: NDArray[np.uint8]) -> NDArray[np.float64]:
        return predict(model, x)["features"].astype(np.float64)

    real = {k: look(held.x[held.y == k]) for k in np.unique(held.y).tolist()}
    return lambda gan: float(
        np.mean([measure_kid(look(gan.generate(SUBSET_MAX, fit.seed, k)), some) for k, some in real.items()])
    )


def _worst_fidelity(found: Mapping[str, Quality]) -> tuple[float | None, Interval | None]:
    """Return label fidelity, and that of real images, of the class that falls short the most."""
    pairs = [
        (q.fidelity, share_wilson(round((q.fidelity_held_out or 0) * q.n_held_out), q.n_held_out))
        for q in found.values()
    ]
    short = [(fidelity - min(FIDELITY_MIN, real.low if real else 1.0)) for fidelity, real in pairs]
    return pairs[int(np.argmin(short))] if pairs else (None, None)


def _describe_gate(result: GateResult | None) -> str:
    if result is None:
        return f"gate {GATE_NOT_RUN}"
    gains = f"{result.lower_classical:+.3f} over classical, {result.lower_duplicates:+.3f} over copies"
    said = "passed" if result.passed else f"not passed: {result.note}"
    return f"gate {said} (least sure gain in {result.n_folds} folds: {gains})"


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
