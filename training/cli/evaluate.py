"""`nanotox-train evaluate`: how good a run or bundle is on a dataset."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli import DONE, Commands, show_progress

if TYPE_CHECKING:
    from device.model_card import Bundle
    from training.dataset import Dataset
    from training.export.acceptance import Classify, StationScores


def add_parser(commands: Commands) -> None:
    """Add `evaluate`."""
    parser = commands.add_parser(
        "evaluate",
        help="score a run or bundle on a dataset folder",
        description="Score the crops of true cells, and for a bundle of a cell model the station's whole "
        "path too: each image through the same analysis, found cells matched to true; of a field model how "
        "it and the count tell toxic from non-toxic fields. The last line is JSON.",
        epilog="Example: nanotox-train evaluate chamber-cell data/ldc --split test --json",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="RUN|BUNDLE", help="run folder, or name or folder of a bundle")
    parser.add_argument("folder", metavar="DIR", type=Path, help="dataset folder")
    parser.add_argument(
        "--split", default="test", choices=("train", "val", "test", "all"), help="default test"
    )
    parser.add_argument(
        "--method", choices=("hybrid", "paper"), help="default: paper for a model without `other`"
    )
    parser.add_argument(
        "--mosaics",
        type=int,
        metavar="N",
        help="judge a bundle of a field model on N mosaics of 16 tiles, in 5 pools that share no tile",
    )
    parser.add_argument(
        "--blended",
        type=int,
        metavar="N",
        help="judge a bundle of a field model on fields of a healthy culture and on N copies of each with "
        "rounded cells blended in",
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score and print."""
    import json

    from device.models import find_bundle
    from training.dataset import read_dataset
    from training.export.acceptance import score_crops, scores_document
    from training.fields import bundle_samples
    from training.provenance import RUN_FILE, read_run

    dataset = read_dataset(args.folder)
    show = (lambda _line: None) if args.json else show_progress
    station = None
    if (Path(args.model) / RUN_FILE).is_file():
        fitted, samples = read_run(Path(args.model))
        kind, classes, input_px = fitted.kind, fitted.classes, samples.val_x.shape[1]
        classify = _float_classifier(Path(args.model), fitted.temperature)
    else:
        bundle = find_bundle(args.model)
        if bundle.card.kind == "field":
            return _evaluate_field(bundle, dataset, args)
        kind, classes, classify = bundle.card.kind, bundle.card.classes, _int8_classifier(bundle)
        input_px = bundle.card.input_px
        if dataset.cells:
            show(f"reading the fields of {args.folder}, {args.split}")
            station = _score_station(bundle, dataset, args.split, args.method)
    crops = score_crops(classify, bundle_samples(kind, classes, dataset, args.split, input_px=input_px))
    document = {
        "model": args.model,
        "data": str(args.folder),
        "split": args.split,
        **scores_document(crops, station),
    }
    if not args.json:
        _print_text(document)
    print(json.dumps(document))
    return DONE


def _evaluate_field(bundle: "Bundle", dataset: "Dataset", args: argparse.Namespace) -> int:
    """Print what a field model and the count rule make of whole fields, side by side."""
    import json
    from dataclasses import asdict

    from device.errors import ConfigError
    from training.evaluation.binary import binary_scores
    from training.export.acceptance import scores_document
    from training.fields import true_fields
    from training.labeling import dataset_fields
    from training.recipes import BlendSettings
    from training.recipes.field import FIELD_ROUNDED, half_blended
    from training.recipes.mosaics import draw_mosaics
    from training.recipes.opinions import judge_fields, score_judged, truths

    info, data = dataset.info, f"{args.folder}, {args.split}"
    if info.assay is None:
        raise ConfigError(f"{args.folder} states no assay; expected adherent or suspension in dataset.json")
    if args.mosaics:
        data = f"{args.mosaics} mosaics of {data}"
        tiles = dataset_fields(dataset, args.split)
        fields = truths(draw_mosaics(tiles, args.mosaics, pools=5, seed=0), info.assay)
    elif args.blended:
        blend = BlendSettings(args.blended, FIELD_ROUNDED)
        blended, data = half_blended(dataset, blend, args.split)
        fields = truths(blended, info.assay)
    else:
        fields = (field for field in true_fields(dataset, args.split) if field[1])
    judged = judge_fields(fields, info.scale, bundle, info.assay, dataset.modality, data)
    if not len(judged.toxic):
        raise ConfigError(
            f"no field of {data} has a label and an opinion; expected some ({judged.n_refused} refused)"
        )
    scores = score_judged(judged)
    if not args.json:
        for name, figures in scores.items():
            for key, metric in figures.items():
                print(
                    f"{name:<12} {key:<18} {metric.value:.3f} (95 % {metric.low}-{metric.high}, n {metric.n})"
                )
    told = {name: {key: asdict(metric) for key, metric in each.items()} for name, each in scores.items()}
    chosen = {name: value for name in ("split", "mosaics", "blended") if (value := getattr(args, name))}
    asked = {"folder": dataset.folder.name, "options": " ".join(f"--{k} {v}" for k, v in chosen.items())}
    document = {"model": args.model, "data": data, **asked, "n_refused": judged.n_refused, **told}
    print(json.dumps(document | scores_document(binary_scores(judged.p_toxic, judged.toxic), None)))
    return DONE


def _float_classifier(folder: Path, temperature: float) -> "Classify":
    from device.classifier import softmax
    from training.export.bundle import load_network
    from training.fitting import predict_logits

    network = load_network(folder)
    return lambda x: softmax(predict_logits(network, x), temperature)


def _int8_classifier(bundle: "Bundle") -> "Classify":
    from device.classifier import open_network, softmax
    from training.export.bundle import int8_logits

    network = open_network(bundle)
    return lambda x: softmax(int8_logits(network, x), bundle.card.temperature)


def _score_station(bundle: "Bundle", dataset: "Dataset", split: str, method: str | None) -> "StationScores":
    from device.classifier import open_cell_classifier
    from device.model_card import settings_from_card
    from training.export.acceptance import read_fields, score_station
    from training.labeling import dataset_fields

    chosen = method or ("hybrid" if "other" in bundle.card.classes else "paper")
    settings = settings_from_card(bundle.card, method="paper" if chosen == "paper" else "hybrid")
    classify = open_cell_classifier(bundle)
    fields = dataset_fields(dataset, split)
    return score_station(read_fields(fields, classify, settings, dataset.info.scale))


def _print_text(document: dict[str, object]) -> None:
    for name in ("n", "n_dead", "balanced_accuracy", "f1_dead", "auc", "nll"):
        value = document[name]
        print(f"{name:<18} {value:.4f}" if isinstance(value, float) else f"{name:<18} {value}")
