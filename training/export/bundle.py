"""Writes a run as the bundle that a station loads, and measures it through the station's own classifier."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from device.analysis.crops import PREPROCESSING, view_of, view_um_per_px
from device.classifier import Int8Network, dequantize, open_network, runtime_name, softmax
from device.errors import ConfigError
from device.model_card import Bundle, Card, Golden, Scalar
from device.model_card.opinions import RENDERED_ONLY, opinion_on
from device.models import find_bundle, write_bundle
from device.records import CellClass
from training.evaluation.binary import measure, rank_auc
from training.export.convert import convert_int8, float_gap
from training.export.familiar import learn_familiar
from training.export.parity import Parity, draw_changes, measure_parity, probability_changes, whole_fields
from training.export.twin import twin_logits
from training.fitting import CALIBRATION_MIN, fit_temperature, predict_logits
from training.provenance import NETWORK_FILE, RENDERED, SIMULATED, Run, RunSamples, read_run, tool_versions

if TYPE_CHECKING:
    import keras

N_GOLDEN = 64
N_GAP = 256
"""Crops that the float TFLite file is compared on."""


def export_run(
    folder: Path, out: Path, *, name: str | None = None, progress: Callable[[str], None]
) -> Bundle:
    """Return the bundle that was written to `out` from the run in `folder`.

    Parameters
    ----------
    folder : Path
        A run, as `fit`, `cotrain` or `paper` leave it.
    out : Path
        Folder of the bundle; an earlier one there is replaced.
    name : str, optional
        Name in the card; that of the folder by default.
    progress : callable
        Called with one line of text at a time.

    Raises
    ------
    ConfigError
        If the run is incomplete.
    ModelError
        If the int8 model does not fit the station's runtimes, or the station's check of it fails here.
    """
    run, samples = read_run(folder)
    network = load_network(folder)
    progress("converting to int8")
    model = convert_int8(network, samples.representative)
    int8 = Int8Network(model)
    x, y = _check_samples(samples)
    raw_logits, raw_features = int8.run(x)
    before, _ = whole_fields(predict_logits(network, x), y, samples.val_whole)
    logits, y = whole_fields(dequantize(raw_logits, int8.logits), y, samples.val_whole)
    temperature = fit_temperature(logits, y) if len(y) >= CALIBRATION_MIN else run.temperature
    gap = float_gap(network, x[:N_GAP])
    parity = measure_parity(before, logits, y, temperature, gap)
    familiar = None
    if run.kind == "cell":
        other = run.classes.index(CellClass.OTHER) if CellClass.OTHER in run.classes else None
        features = dequantize(raw_features, int8.features)
        familiar = learn_familiar(logits, features, y, temperature, other)
    card, golden = (
        _make_card(run, name or out.resolve().name, int8, temperature, parity),
        _make_golden(int8, samples),
    )
    if familiar is not None:
        limits = {"energy_max": familiar.energy_max, "distance_max": familiar.distance_max}
        card = replace(card, thresholds=limits)
        golden = replace(golden, means=familiar.means, whitening=familiar.whitening)
    if run.kind == "field" and len(set(y.tolist())) == 2:
        own = [str(i) for i in range(len(y))]
        rendered = all(source.origin.startswith((SIMULATED, RENDERED)) for source in run.data)
        data = f"{RENDERED_ONLY if rendered else 'real'}: its own validation fields, each taken as a group"
        auc = measure(rank_auc, (logits[:, 1] - logits[:, 0]).astype(np.float64), y == 1, own, data)
        card = replace(card, opinions=(opinion_on(run.assay, run.modality, auc, temperature),))
    write_bundle(out, card=card, model=model, golden=golden)
    bundle = find_bundle(out.resolve())
    open_network(bundle)  # as the station opens it: card and golden outputs compared
    progress(describe_parity(parity))
    return bundle


def measure_bundle(
    bundle: Bundle,
    run: Path | None,
    x: NDArray[np.uint8],
    y: NDArray[np.intp],
    whole: NDArray[np.intp] | None = None,
    figure: Path | None = None,
) -> Parity:
    """Return how far a bundle departs from the float network of its run, else from its own float twin.

    Tiles are compared as the `whole` fields they are of (`whole_fields`). A histogram of the changes of
    probability is written to `figure`.
    """
    network = load_network(run) if run else None
    reference, _ = whole_fields(
        predict_logits(network, x) if network else twin_logits(bundle.model, x), y, whole
    )
    logits, y = whole_fields(int8_logits(open_network(bundle), x), y, whole)
    temperature = bundle.card.temperature
    if figure:
        draw_changes(
            figure, probability_changes(softmax(reference, temperature), softmax(logits, temperature))
        )
    return measure_parity(
        reference, logits, y, temperature, float_gap(network, x[:N_GAP]) if network else 0.0
    )


def int8_logits(network: Int8Network, x: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the (N, K) logits of the station's network as real numbers."""
    return dequantize(network.run(x)[0], network.logits)


def load_network(folder: Path) -> "keras.Model":
    """Return the float network of a run.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    import keras

    try:
        return keras.models.load_model(folder / NETWORK_FILE)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{folder / NETWORK_FILE} cannot be read ({error}); fit the run again") from error


def describe_parity(parity: Parity) -> str:
    """Return one line that says whether the gate passed, with its main figures."""
    figures = (
        f"parity on {parity.n} crops or fields: agreement {parity.agreement:.4f}, "
        f"mean |dp| {parity.mean_dp:.4f}, max |dp| {parity.max_dp:.4f}"
    )
    return f"{figures}; FAILED: {'; '.join(parity.failures)}" if parity.failures else f"{figures}; passed"


def _check_samples(samples: RunSamples) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    if len(samples.val_y):
        return samples.val_x, samples.val_y
    raise ConfigError(
        "the run has no validation crops; expected some to prove that int8 equals float; fit it again"
    )


def _make_golden(network: Int8Network, samples: RunSamples) -> Golden:
    """Return up to 64 real crops, evenly spread over the classes' order, with what they give here."""
    x = samples.val_x[np.argsort(samples.val_y, kind="stable")]
    x = np.concatenate([x, samples.representative])[: max(N_GOLDEN, len(x))]
    inputs = x[np.unique(np.linspace(0, len(x) - 1, N_GOLDEN).astype(int))]
    logits, features = network.run(inputs)
    return Golden(inputs, logits, features)


def _make_card(run: Run, name: str, network: Int8Network, temperature: float, parity: Parity) -> Card:
    figures: dict[str, Scalar] = dict(asdict(parity))
    view = view_of(network.input_px)
    is_cell = run.kind == "cell"
    return Card(
        schema="card/1",
        name=name,
        kind=run.kind,
        scope=run.scope,
        assay=run.assay,
        modality=run.modality,
        classes=run.classes,
        um_per_px=run.um_per_px if is_cell else view_um_per_px(view),
        um_per_px_source=run.um_per_px_source,
        input_px=network.input_px,
        preprocessing=PREPROCESSING if is_cell else view,
        input=network.input,
        logits=network.logits,
        features=network.features,
        n_features=int(network.run(np.zeros((1, network.input_px, network.input_px), np.uint8))[1].shape[1]),
        temperature=temperature,
        thresholds={},
        reference_quality=run.reference_quality,
        data=run.data,
        recipe=run.recipe,
        metrics=run.metrics,
        parity={"passed": not parity.failures, **figures},
        gan_gate=run.gan_gate,
        golden_runtime=runtime_name(),
        limits=run.limits,
        attribution=run.attribution,
        made_with={**run.made_with, **tool_versions()},
    )
