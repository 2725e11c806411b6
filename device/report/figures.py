"""The two drawings of a report as SVG: the map of a plate and a dose-response."""

import math
import re
from collections.abc import Mapping, Sequence

from device.report.markup import Html, join, tag
from device.report.words import Payload, dose_text, name_of, outcome_name

COLORS = {"toxic": "#d55e00", "non_toxic": "#009e73", "inconclusive": "#e69f00", "invalid": "#666666"}
"""Okabe and Ito's palette, told apart by color-blind people; shape and word say the same without color."""
_INK, _LINE = "#1a1a1a", "#c8c8c8"
_PLATES = ((4, 6), (8, 12))
"""Rows and columns of plates with 24 and 96 wells."""
_WELL_NAME = re.compile(r"([A-H])0?([1-9]\d?)")
_CELL = (76, 62)  # width and height of a well on the map
_MARGIN = 22
_WIDTH, _HEIGHT = 720, 340
_PLOT = (60, 36, 700, 280)  # left, top, right and bottom of the dose-response


def mark(outcome: str, x: float, y: float, size: float) -> Html:
    """Return the shape of an outcome around a point: triangle, circle, diamond or cross."""
    color, s = COLORS.get(outcome, COLORS["invalid"]), size
    if outcome == "non_toxic":
        return tag("circle", cx=x, cy=y, r=s, fill=color)
    if outcome == "invalid":
        arms = f"M{x - s:g} {y - s:g}L{x + s:g} {y + s:g}M{x - s:g} {y + s:g}L{x + s:g} {y - s:g}"
        return tag("path", d=arms, stroke=color, stroke_width=2.5, fill="none")
    points = [(x, y - s), (x + s, y), (x, y + s), (x - s, y)]  # a diamond
    if outcome == "toxic":
        points = [(x, y - s), (x + s, y + 0.8 * s), (x - s, y + 0.8 * s)]
    return tag("polygon", points=" ".join(f"{px:.1f},{py:.1f}" for px, py in points), fill=color)


def plate_map(verdicts: Sequence[Payload]) -> Html:
    """Return the plate with a mark, a name and a word for each well.

    Laid out as a plate of 24 or 96 wells where all names fit one (`B03` or `B3`), else in rows of twelve.
    """
    (n_rows, n_cols), places, labeled = _lay_out([str(verdict["well"]) for verdict in verdicts])
    wide, high = _CELL
    width, height = n_cols * wide + _MARGIN + 4, n_rows * high + _MARGIN + 4
    drawn: list[Html] = []
    if labeled:
        drawn += [_text(_MARGIN + (i + 0.5) * wide, 14, i + 1, anchor="middle") for i in range(n_cols)]
        drawn += [_text(4, _MARGIN + (i + 0.5) * high + 4, "ABCDEFGH"[i]) for i in range(n_rows)]
    taken = dict(zip(places, verdicts, strict=True))
    for place in [(row, col) for row in range(n_rows) for col in range(n_cols)]:
        x, y = _MARGIN + place[1] * wide, _MARGIN + place[0] * high
        if place in taken:
            drawn.append(_draw_well(taken[place], x, y))
        elif labeled:
            drawn.append(tag("circle", cx=x + wide / 2, cy=y + high / 2, r=5, fill="none", stroke=_LINE))
    return _svg(width, height, "plate map: outcome of each well", *drawn)


def _lay_out(names: Sequence[str]) -> tuple[tuple[int, int], list[tuple[int, int]], bool]:
    """Return the size of a plate, the row and column of each name on it, and whether it is a real plate."""
    parsed = [_WELL_NAME.fullmatch(name) for name in names]
    places = [("ABCDEFGH".index(found[1]), int(found[2]) - 1) for found in parsed if found]
    if len(set(places)) == len(names):
        for n_rows, n_cols in _PLATES:
            if all(row < n_rows and col < n_cols for row, col in places):
                return (n_rows, n_cols), places, True
    n_cols = min(12, max(1, len(names)))
    return (math.ceil(len(names) / n_cols), n_cols), [divmod(i, n_cols) for i in range(len(names))], False


def _draw_well(verdict: Payload, x: float, y: float) -> Html:
    wide, high = _CELL
    outcome, middle = verdict["outcome"], x + wide / 2
    said = f"{verdict['well']}: {name_of(verdict)} ({verdict['role']}): {outcome_name(outcome)}"
    dashed = "3 2" if verdict["role"] != "test" else None
    return tag(
        "g",
        tag("title", said),
        tag(
            "rect",
            x=x + 2,
            y=y + 2,
            width=wide - 4,
            height=high - 4,
            rx=6,
            fill="#fff",
            stroke=_INK,
            stroke_dasharray=dashed,
        ),
        _text(middle, y + 14, _cut(verdict["well"], 11), anchor="middle", weight=600),
        mark(outcome, middle, y + 25, 6.5),
        _text(middle, y + 44, outcome_name(outcome), anchor="middle", size=10, weight=600),
        _text(
            middle,
            y + 55,
            _cut(dose_text(verdict) if verdict["role"] == "test" else verdict["role"], 13),
            anchor="middle",
            size=9,
        ),
    )


def dose_response(
    wells: Sequence[Payload], samples: Sequence[Payload], limit: float | None, lowest_toxic: float | None
) -> Html:
    """Return the affected share of one item against its doses, with the limit and the first toxic dose.

    Wells stand with their decision bounds and the mark of their outcome, all wells of a dose together as a
    black square, the growth inhibition of these as an open square. The axis is logarithmic for two or more
    doses above 0, where a dose of 0 stands left of the others.
    """
    left, top, right, bottom = _PLOT
    doses = sorted({float(sample["dose"]) for sample in samples})
    at = _dose_axis(doses)
    unit = samples[0]["dose_unit"] or ""
    drawn = [_text(left, 14, "affected cells after Abbott's correction", weight=600)]
    for percent in range(0, 101, 20):
        y = _height(percent / 100)
        drawn.append(tag("line", x1=left, x2=right, y1=y, y2=y, stroke="#e4e4e4"))
        drawn.append(_text(left - 8, y + 4, f"{percent} %", anchor="end"))
    drawn += [_text(at[dose], bottom + 18, f"{dose:g}", anchor="middle") for dose in doses]
    drawn.append(_text((left + right) / 2, bottom + 38, f"dose ({unit})", anchor="middle"))
    if limit is not None:
        y = _height(limit)
        line = {"x1": left, "x2": right, "y1": y, "y2": y, "stroke": _INK, "stroke_dasharray": "7 4"}
        drawn += [tag("line", **line), _text(right, y - 5, f"limit {100 * limit:g} %", anchor="end")]
    if lowest_toxic in at:
        x = at[lowest_toxic]
        drawn.append(tag("line", x1=x, x2=x, y1=top, y2=bottom, stroke=_INK, stroke_dasharray="2 3"))
        drawn.append(_text(x, top - 8, "first toxic dose", anchor="middle", size=11, weight=600))
    for dose in doses:
        here = [well for well in wells if well["dose"] == dose]
        for number, well in enumerate(here):
            offset = 14 + 11 * number
            drawn += _bar(at[dose] + offset, well["affected_corrected"], well["bounds"], well["outcome"])
    for sample in samples:
        x, growth = at[float(sample["dose"])], sample.get("growth_inhibition_bounds")
        drawn += _bar(x - 10, sample.get("growth_inhibition"), growth, "open")
        drawn += _bar(x, sample.get("affected_corrected"), sample.get("bounds"), "all")
    return _svg(_WIDTH, _HEIGHT, f"dose-response of {samples[0]['sample']}", *drawn)


def _dose_axis(doses: Sequence[float]) -> Mapping[float | None, float]:
    """Return where each dose stands: on a log axis for two or more above 0, evenly else."""
    left, _, right, _ = _PLOT
    positive = [dose for dose in doses if dose > 0]
    if len(positive) < 2:
        step = (right - left) / (len(doses) + 1)
        return {dose: left + (i + 1) * step for i, dose in enumerate(doses)}
    first = left + (130 if 0 in doses else 50)
    low, high = math.log10(positive[0]), math.log10(positive[-1])
    at: dict[float | None, float] = {
        d: first + (right - 60 - first) * (math.log10(d) - low) / (high - low) for d in positive
    }
    return at | ({0.0: left + 40.0} if 0 in doses else {})


def _bar(x: float, share: float | None, interval: Payload | None, look: str) -> list[Html]:
    """Return a share with its interval; nothing where it is not known."""
    if share is None:
        return []
    drawn, y = [], _height(share)
    color = _INK if look in ("all", "open") else COLORS.get(look, _INK)
    if interval is not None:
        ends = {"x1": x, "x2": x, "y1": _height(interval["low"]), "y2": _height(interval["high"])}
        dashed = "2 2" if look == "open" else None
        drawn.append(
            tag("line", **ends, stroke=color, stroke_width=2 if look == "all" else 1, stroke_dasharray=dashed)
        )
    if look in ("all", "open"):
        fill = _INK if look == "all" else "#fff"
        drawn.append(tag("rect", x=x - 4, y=y - 4, width=8, height=8, fill=fill, stroke=_INK))
    else:
        drawn.append(mark(look, x, y, 4.5))
    return drawn


def _height(share: float) -> float:
    _, top, _, bottom = _PLOT
    return bottom - (bottom - top) * min(1.0, max(0.0, share))


def _text(
    x: float, y: float, text: object, *, anchor: str = "start", size: int = 12, weight: int = 400
) -> Html:
    return tag(
        "text",
        text,
        x=float(x),
        y=float(y),
        text_anchor=anchor,
        font_size=size,
        font_weight=weight,
        fill=_INK,
    )


def _cut(text: str, n_characters: int) -> str:
    return text if len(text) <= n_characters else text[: n_characters - 1] + "…"


def _svg(width: float, height: float, label: str, *drawn: Html) -> Html:
    family = "Helvetica, Arial, sans-serif"
    return tag(
        "svg",
        join(*drawn),
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_label=label,
        font_family=family,
    )
