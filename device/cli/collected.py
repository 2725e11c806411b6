"""`nanotox collect export` and `nanotox collect history`: what a collector has kept."""

import argparse
import sys
from datetime import datetime
from pathlib import Path

from device.cli.broker import add_db_option
from device.cli.export import KINDS, write_records
from device.options import Commands, positive_whole


def add_parsers(commands: Commands) -> None:
    """Add `export` and `history` to `nanotox collect`."""
    parser = commands.add_parser(
        "export",
        help="write what was kept: tables for a LIMS, or a chain that anybody can verify",
        description="Write records of a collector's file as `nanotox export` writes those of a journal. "
        "chain holds every record of the station as published, in its order, and puts verify_chain.py "
        "beside it, which a bare Python runs to check it.",
        epilog="Example: nanotox collect export --db lab.db --what verdicts --form csv/1 --out verdicts.csv",
    )
    parser.add_argument(
        *("--form", "--schema"), choices=("csv/1", "jsonl/1"), help="default: csv/1, of a chain jsonl/1"
    )
    parser.add_argument("--what", choices=(*KINDS, "chain"), default="verdicts", help="default: verdicts")
    _add_filters(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="file, whole or not (default: stdout)")
    parser.set_defaults(run=run_export)
    parser = commands.add_parser(
        "history",
        help="show stations, finished plates, or the newest verdicts of a station or plate",
        epilog="Example: nanotox collect history --db lab.db --station bench-1 --last 20",
    )
    _add_filters(parser)
    parser.add_argument(
        "--last", type=positive_whole, default=20, metavar="N", help="how many lines (default: 20)"
    )
    parser.set_defaults(run=run_history)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    # without a default, that of `nanotox collect` stands, which may be given before the word too
    add_db_option(parser, default=argparse.SUPPRESS)
    parser.add_argument("--station", metavar="[SITE/]NAME", help="of this station only")
    parser.add_argument("--plate", metavar="NAME", help="of this plate only")
    parser.add_argument(
        "--since", type=_time, metavar="T", help="made since then: 2026-03-04, or with T05:06:07Z behind it"
    )


def run_export(args: argparse.Namespace) -> int:
    """Write the records."""
    from device.cli import DONE
    from device.collector import History, verify_chain
    from device.errors import ConfigError
    from device.plates import write_whole

    is_chain = args.what == "chain"
    if is_chain and (args.plate is not None or args.since is not None or args.form == "csv/1"):
        expected = "expected --form jsonl/1, and neither --plate nor --since"
        raise ConfigError(f"a chain has every record as it was published; {expected}")
    history = History(args.db)
    kind = None if is_chain else KINDS[args.what]
    found = history.export(kind, *_station(args), plate=args.plate, since=args.since)
    write_records(args.what, args.form or ("jsonl/1" if is_chain else "csv/1"), found, args.out)
    if is_chain and args.out is not None:
        script = Path(verify_chain.__file__).read_text("utf-8")
        write_whole(args.out.with_name("verify_chain.py"), [script])
    return DONE


def run_history(args: argparse.Namespace) -> int:
    """Print the newest verdicts that were asked for, else stations and plates."""
    from device.cli import DONE
    from device.collector import History

    history = History(args.db)
    site, station = _station(args)
    where = [key for key in history.stations() if site in (None, key[0]) and station in (None, key[1])]
    if args.station is None and args.plate is None:
        rows = [(f"{site}/{name}", "newest record", ts) for (site, name), ts in history.stations().items()]
        rows += [(f"{p.site}/{p.station}", f"plate {p.plate}", p.ts) for p in history.plates(args.last)]
    else:
        found = [
            values
            for key in where
            for values in history.select("verdict", *key, plate=args.plate, since=args.since, limit=args.last)
        ]
        found = sorted(found, key=lambda values: values["ts"])[-args.last :]
        rows = [
            (
                f"{v['site']}/{v['station']}",
                f"{v['plate'] or '-'} {v['well']} {v['stage']} {v['outcome']}",
                v["ts"],
            )
            for v in found
        ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    for name, said, ts in rows:
        print(f"{name:{widths[0]}}  {said:{widths[1]}}  {ts}")
    if not rows:
        print(f"nothing of that is in {args.db}", file=sys.stderr)
    return DONE


def _station(args: argparse.Namespace) -> tuple[str | None, str | None]:
    if args.station is None:
        return None, None
    site, _, name = args.station.rpartition("/")
    return site or None, name


def _time(text: str) -> datetime:
    """Return a time for argparse; one without a zone is in that of this machine."""
    return datetime.fromisoformat(text).astimezone()
