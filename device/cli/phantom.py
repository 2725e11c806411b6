"""`nanotox phantom`: write rendered fields with their truth as a dataset folder."""

import argparse
import hashlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from device.analysis.phantom import Phantom, TrueObject
    from device.options import Commands
    from device.records import PlateWell

_MANIFEST = "file,label,group,split,mask,well,field,n_live,n_dead,dead_fraction,confluence,seed"
_CELLS = "file,label,xmin,ymin,xmax,ymax,row,col,cell_class,kind,region,visible_fraction,touches_edge"
_OURS = ("images", "masks", "manifest.csv", "cells.csv", "plate.csv", "dataset.json")
_CLEARLY_VISIBLE = 0.5  # a cell that shows less of itself has an empty label: neither found nor missed
_TOXIC_ABOVE = 0.5  # affected share of a field, as ISO 10993-5 limits it for a culture


def add_parser(commands: "Commands") -> None:
    """Add `nanotox phantom` to the commands."""
    parser = commands.add_parser(
        "phantom",
        help="render fields of cells with exact truth",
        description="Render fields of adherent cells and write them as a dataset folder: images, masks, "
        "manifest.csv, cells.csv, dataset.json, and plate.csv for a plate. Same seed, same fields.",
        epilog="Example: nanotox phantom --fields 20 --dead-fraction 0.3 --seed 1 --out phantoms; "
        "then: nanotox count phantoms/images --um-per-px 0.65",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--wells", type=Path, metavar="PLATE.CSV", help="plate with a column dead_fraction")
    source.add_argument("--fields", type=int, metavar="N", help="number of fields, without a plate")
    parser.add_argument("--dead-fraction", type=float, metavar="P", help="share of dead cells, for --fields")
    parser.add_argument("--seed", type=int, required=True, metavar="S", help="0 or more")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder")
    parser.add_argument("--modality", choices=("phase", "brightfield"), default="phase")
    parser.add_argument("--n-cells", type=int, default=60, metavar="N", help="mean number in a field (60)")
    parser.add_argument("--um-per-px", type=float, default=0.65, metavar="X", help="scale (0.65)")
    parser.add_argument("--varied", action="store_true", help="another microscope and dish for each field")
    parser.add_argument("--force", action="store_true", help="replace rendered fields that are in DIR")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Render, write, and say on stderr how far it is."""
    from device.errors import ConfigError, ImageError
    from device.plates import read_plate

    try:
        if args.wells is None:
            wells = _loose_wells(args.fields, args.dead_fraction)
        elif args.dead_fraction is None:
            wells = read_plate(args.wells).wells
        else:
            raise ConfigError("--dead-fraction is given with --wells; expected it in the plate's column only")
        n_written = _write_dataset(args, wells)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ImageError(
            f"{args.out} cannot be written ({error.strerror}); expected a folder with space"
        ) from error
    print(f"{n_written} fields in {args.out}", file=sys.stderr)
    return 0


def _loose_wells(n_fields: int, dead_fraction: float | None) -> "tuple[PlateWell, ...]":
    """Return fields without a plate as wells of one field each, so that both are rendered alike."""
    from device.errors import ConfigError
    from device.records import PlateWell

    if not 1 <= n_fields <= 100_000:
        raise ConfigError(f"--fields is {n_fields}; expected 1 to 100000")
    if dead_fraction is None:
        raise ConfigError("--dead-fraction is missing; expected 0 to 1 with --fields")
    if not 0 <= dead_fraction <= 1:
        raise ConfigError(f"--dead-fraction is {dead_fraction}; expected 0 to 1")
    return tuple(
        PlateWell(f"field{i:05d}", "rendered", "test", None, None, i + 1, (), (), dead_fraction, 1)
        for i in range(n_fields)
    )


def _write_dataset(args: argparse.Namespace, wells: "Sequence[PlateWell]") -> int:
    """Render `wells` into the folder and return the number of fields; manifest.csv is written last."""
    from device.analysis.phantom import render_plate
    from device.images import write_png
    from device.plates import DatasetInfo, Plate, write_dataset_info, write_plate, write_table
    from device.records import Scale

    folder, seed, um_per_px, is_plate = args.out, args.seed, args.um_per_px, args.wells is not None
    origin = f"rendered by nanotox phantom, seed {seed}"
    info = DatasetInfo(
        Scale(um_per_px, "measured"), args.modality, origin, "Apache-2.0", assay="adherent", simulated=True
    )
    fields = render_plate(
        wells,
        seed=seed,
        modality=args.modality,
        n_cells=args.n_cells,
        um_per_px=um_per_px,
        varied=args.varied,
    )
    _clear(folder, force=args.force)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    write_dataset_info(folder, info)  # first: it marks the folder as ours if this is cut short
    splits = draw_splits([well.well for well in wells], seed)
    total = sum(10 if well.fields is None else well.fields for well in wells)
    files: dict[str, list[str]] = {well.well: [] for well in wells}
    manifest: list[list[object]] = []
    cells: list[list[object]] = []
    for well, field, phantom in fields:
        name = f"{well.well}_{field:02d}.png" if is_plate else f"{well.well}.png"
        write_png(folder / "images" / name, phantom.image)
        write_png(folder / "masks" / name, phantom.labels)
        file, place = f"images/{name}", [well.well, field] if is_plate else ["", ""]
        files[well.well].append(file)
        label, *truth = _truth(phantom)
        manifest.append([file, label, well.well, splits[well.well], f"masks/{name}", *place, *truth])
        cells += [[file, *_cell_row(cell, um_per_px)] for cell in phantom.objects if cell.region]
        _show_progress(len(manifest), total)
    write_table(folder / "cells.csv", [_CELLS.split(","), *cells])
    if is_plate:
        found = (replace(well, files=tuple(files[well.well]), positions=()) for well in wells)
        write_plate(folder / "plate.csv", Plate(folder.name, tuple(found)))
    write_table(folder / "manifest.csv", [_MANIFEST.split(","), *manifest])
    return len(manifest)


def draw_splits(groups: Sequence[str], seed: int) -> dict[str, str]:
    """Return train, val or test for each group, 70/15/15; from three groups on each split has one."""
    order = sorted(set(groups), key=lambda group: hashlib.sha256(f"{seed}/{group}".encode()).digest())
    n_held = max(1, round(0.15 * len(order))) if len(order) >= 3 else 0
    names = ["test"] * n_held + ["val"] * n_held
    return dict(zip(order, names + ["train"] * (len(order) - len(names)), strict=True))


def _clear(folder: Path, *, force: bool) -> None:
    """Make sure that the folder is empty, removing an earlier rendered dataset if `force`."""
    from device.errors import ConfigError
    from device.plates import read_dataset_info

    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file; expected a new or empty folder for --out")
    found = sorted(path.name for path in folder.iterdir())
    if not found:
        return
    if not force:
        raise ConfigError(f"{folder} is not empty; expected a new or empty folder, or --force to replace it")
    foreign = [name for name in found if name.removesuffix(".partial") not in _OURS]
    if foreign or not read_dataset_info(folder).simulated:
        raise ConfigError(
            f"{folder} holds {foreign[0] if foreign else 'images that were not rendered'}; expected a folder "
            "of nanotox phantom to replace with --force; choose another folder"
        )
    for name in found:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def _truth(phantom: "Phantom") -> list[object]:
    """Return the label of a field, then what else is known."""
    fraction = phantom.dead_fraction
    label, share = "", ""
    if fraction is not None:
        label, share = "toxic" if fraction > _TOXIC_ABOVE else "non_toxic", f"{fraction:.6g}"
    confluence = f"{phantom.parameters['confluence']:.6g}"
    return [label, phantom.n_live, phantom.n_dead, share, confluence, phantom.seed]


def _cell_row(cell: "TrueObject", um_per_px: float) -> list[object]:
    """Return label, the box of a disk as large as the cell around its center, and what else is known."""
    label = "" if cell.visible_fraction < _CLEARLY_VISIBLE else "live" if cell.kind == "live" else "dead"
    reach = cell.radius_um / um_per_px
    box = (cell.col - reach, cell.row - reach, cell.col + reach, cell.row + reach)
    numbers = [f"{value:.2f}" for value in (*box, cell.row, cell.col)]
    seen = f"{cell.visible_fraction:.3f}"
    return [label, *numbers, cell.cell_class, cell.kind, cell.region, seen, int(cell.touches_edge)]


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {total} fields", end="\n" if done == total else "", file=sys.stderr, flush=True)
    elif done % 10 == 0 and done < total:
        print(f"{done} of {total} fields", file=sys.stderr, flush=True)
