"""`nanotox dataset bundle`: readings worth a person's labels, with their kept frames, for the workstation."""

import argparse
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device.cli.bundle import BundleImage, write_tables
from device.cli.kept import KeptFrames, add_frames_options
from device.options import Commands, positive_whole

_WHY = ("corrected", "uncertain", "disagreeing", "odd", "random")
_RANDOM = 4  # one of so many is drawn at random


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One reading whose frame was kept, by what makes it worth a label; its cells stay in the journal."""

    number: int
    """Of its record in the source, from 0."""
    made: tuple[Any, ...]
    """Scale and how that is known, modality, assay, whether rendered: what a dataset folder has once."""
    ranks: Mapping[str, float]
    """By reason; the highest is chosen first. A reason that does not hold for it is not there."""


def add_parser(commands: Commands) -> None:
    """Add `nanotox dataset` to the commands."""
    dataset = commands.add_parser(
        "dataset",
        help="choose kept frames to be labeled for training",
        epilog="Example: nanotox dataset bundle journal.db --frames frames --out to-label",
    )
    parser = dataset.add_subparsers(metavar="WHAT", required=True).add_parser(
        "bundle",
        help="write a dataset folder of readings that are worth a label",
        description="Choose readings whose frames were kept: a quarter at random over all, so that the set "
        "does not hold hard cases only, the rest in equal parts by a person's corrections, by uncertain "
        "cells, by a field model that contradicts the count, and by cells unlike those the model knows; a "
        "reason without readings leaves its part to the others. Refused fields stay out. Write their frames "
        "as they are, the station's own cells as proposals.csv, which are no labels, the reviews of its "
        "records as reviews.csv, and fields whose cells a person corrected as cells.csv, where only those "
        "cells have a label. Exits with 3 if a frame is missing or altered.",
        epilog="Example: nanotox dataset bundle journal.db --frames frames --config station.toml "
        "--out to-label --count 50",
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="journal.db of the station of --config")
    add_frames_options(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder")
    parser.add_argument(
        "--count", type=positive_whole, default=50, metavar="N", help="readings at most (default: 50)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the random part (default: 0)")
    parser.add_argument("--refused", action="store_true", help="choose among refused fields too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Choose, write, and print how many readings by reason."""
    from device.cli import DONE, REFUSED
    from device.errors import ConfigError

    if args.seed < 0:
        raise ConfigError(f"--seed is {args.seed}; expected 0 or more")
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise ConfigError(f"{args.out} is not empty; expected a new or empty folder for --out")
    kept = KeptFrames(args)
    pool, n_other = _find_candidates(args, kept)
    chosen = _choose(pool, args.count, args.seed)
    try:
        written = _write_bundle(args, kept, chosen)
    except OSError as error:
        raise ConfigError(f"{args.out} cannot be written ({error}); expected a folder with space") from error
    for why in _WHY:
        print(f"{why:<12}{written[why]:>5}")
    print(f"{args.out}: {written.total()} of {len(pool)} readings with a kept frame")
    if n_other:
        print(f"{n_other} readings left out: of another scale, modality or assay than the newest one")
    return DONE if written.total() == len(chosen) else REFUSED


def _find_candidates(args: argparse.Namespace, kept: KeptFrames) -> tuple[list[_Candidate], int]:
    """Return what can be chosen, and how many readings were made unlike the newest one and stay out.

    Of readings that share a frame the newest stays. ConfigError if there are none, or of another station.
    """
    from device.errors import ConfigError
    from device.journal.reviews import corrections, read_reviews

    found: dict[str, _Candidate] = {}
    corrected = corrections(read_reviews(args.source))
    for number, values in _readings(args.source):
        section, origin = kept.config.station, (values.get("site"), values.get("station"))
        if origin != (section.site, section.name):
            raise ConfigError(
                f"{args.source} holds readings of {origin[0]}/{origin[1]}; expected those of "
                f"{section.site}/{section.name}, the station of {args.config}"
            )
        quality = values["quality"]
        if (quality["passed"] or args.refused) and quality["um_per_px"] is not None:
            scale = quality["um_per_px"], quality["um_per_px_source"]
            made = (*scale, values["modality"], values["assay"], values["simulated"])
            found.pop(values["frame_sha256"], None)
            ranks = _rank(values, kept) | ({"corrected": 1.0} if values["seq"] in corrected else {})
            found[values["frame_sha256"]] = _Candidate(number, made, ranks)
    if not found:
        raise ConfigError(
            f"no {'' if args.refused else 'accepted '}reading of {args.source} has a kept frame and its list "
            "of cells; expected the journal of a station with keep = true in [frames]"
        )
    *_, newest = found.values()
    pool = [candidate for candidate in found.values() if candidate.made == newest.made]
    return pool, len(found) - len(pool)


def _readings(source: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield readings that have a kept frame and all their cells, with the numbers of their records."""
    from device.journal.read import is_complete, read_records

    for number, values in enumerate(read_records(source)):
        is_reading = values["schema"].startswith("reading/")
        if is_reading and values.get("frame_sha256") is not None and is_complete(values):
            yield number, values


def _rank(values: Mapping[str, Any], kept: KeptFrames) -> dict[str, float]:
    """Return why a reading is worth a label: how unsure its cells, how far apart two opinions, how odd.

    The field model has an opinion where the rule of the station lets it speak, as in a verdict.
    """
    rule, dead_min = kept.tools.rule, kept.tools.settings.dead_min
    ranks = {}
    doubts = [abs(cell["p_dead"] - dead_min) for cell in values["cells"]]
    if doubts:
        ranks["uncertain"] = -sum(doubts) / len(doubts)
    p_toxic, affected = values["p_toxic"], values["affected"]
    if p_toxic is not None and affected is not None:
        is_above = affected > rule.limit
        if p_toxic <= rule.p_toxic_low if is_above else p_toxic >= rule.p_toxic_high:
            ranks["disagreeing"] = abs(p_toxic - affected)
    is_flagged = not {"OOD_CELLS", "DRIFT"}.isdisjoint(values["quality"]["flags"])
    oddness = is_flagged + (values["quality"].get("odd_cells") or 0.0)
    if oddness:
        ranks["odd"] = oddness
    return ranks


def _choose(pool: list[_Candidate], count: int, seed: int) -> dict[int, str]:
    """Return the numbers of the chosen readings, at most `count`, each with its reason.

    The random part is drawn first and from all, so that it alone tells how the station does on average. The
    other reasons then take turns, each its highest reading that is left.
    """
    import numpy as np

    n_random = max(1, min(count, len(pool)) // _RANDOM)
    drawn = np.random.default_rng(seed).permutation(len(pool))[:n_random]
    chosen = {pool[index].number: "random" for index in drawn}
    left = {
        why: sorted((c.ranks[why], c.number) for c in pool if why in c.ranks)
        for why in _WHY
        if why != "random"
    }
    while len(chosen) < count and any(left.values()):
        for why, candidates in left.items():
            while candidates and candidates[-1][1] in chosen:
                candidates.pop()
            if candidates and len(chosen) < count:
                chosen[candidates.pop()[1]] = why
    return chosen


def _write_bundle(args: argparse.Namespace, kept: KeptFrames, chosen: Mapping[int, str]) -> Counter[str]:
    """Write the folder, SHA256SUMS last, and return how many readings came into it by reason."""
    from device.errors import ImageError
    from device.journal.reviews import read_reviews
    from device.plates import file_sha256, write_whole

    images = list(_copy_frames(args, kept, chosen))
    if not images:
        raise ImageError(
            f"none of {len(chosen)} chosen frames came into {args.out}; expected those in --frames"
        )
    sums = {image.file: image.values["frame_sha256"] for image in images}
    write_tables(args.out, images, read_reviews(args.source))
    for name in ("proposals.csv", "manifest.csv", "reviews.csv", "dataset.json"):
        sums[name] = file_sha256(args.out / name)
    write_whole(args.out / "SHA256SUMS", (f"{sha256}  {name}\n" for name, sha256 in sums.items()))
    return Counter(image.why for image in images)


def _copy_frames(
    args: argparse.Namespace, kept: KeptFrames, chosen: Mapping[int, str]
) -> Iterator[BundleImage]:
    """Yield each chosen reading once its frame is in the folder; one that cannot be is named and left out."""
    from device.errors import ImageError

    (args.out / "images").mkdir(parents=True, exist_ok=True)
    shrink = None
    for number, values in _readings(args.source):
        if number not in chosen:
            continue
        fault = None
        try:
            path, pixels = kept.find(values)
        except ImageError as error:
            fault = str(error)
        else:
            found = round(values["height_px"] / pixels.shape[0])
            shrink = found if shrink is None else shrink
            if found != shrink:
                fault = f"{path} holds 1 of {found} pixels a side; expected {shrink}, as those before it"
        if fault is None:
            image = BundleImage(f"images/{values['frame_sha256'][:16]}.png", values, chosen[number], found)
            shutil.copyfile(path, args.out / image.file)
            yield image
        else:
            print(
                f"reading of {values['source']}, seq {values['seq']}, is left out: {fault}", file=sys.stderr
            )
