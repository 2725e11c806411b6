"""Counts of a station over time as SVG."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from device.report.markup import Html, tag
from device.report.words import Payload

_SIZE = (720, 210)
_PLOT = (52, 14, 640, 178)  # left, top, right, bottom
_INK, _GRID = "#16202a", "#d7dce0"


def over_time(
    readings: Sequence[Payload],
    lines: Sequence[tuple[str, str, str | None, Callable[[Payload], float | None]]],
    *,
    unit: str,
    top: float | None = None,
) -> Html:
    """Return lines over the times of readings; a gap where a value is not known.

    `lines` are name, color, dashes, and what gives the value of a reading; `top` is the upper end of the
    axis, by default the largest value.
    """
    at = [datetime.fromisoformat(str(reading["taken_at"])).timestamp() for reading in readings]
    if at != sorted(at):
        at = [
            float(number) for number in range(len(at))
        ]  # the clock was set back: their order is known alone
    values = [[value(reading) for reading in readings] for *_, value in lines]
    highest = top or max((v for line in values for v in line if v is not None), default=1.0) or 1.0
    left, upper, right, lower = _PLOT
    span_s = max(at[-1] - at[0], 1.0)
    drawn: list[Html] = []
    for share in (0.0, 0.5, 1.0):
        y = lower - share * (lower - upper)
        drawn.append(tag("line", x1=left, x2=right, y1=y, y2=y, stroke=_GRID))
        drawn.append(_text(left - 6, y + 4, f"{share * highest:.3g}{unit}", "end"))
    for (name, color, dashes, _), line in zip(lines, values, strict=True):
        path, pen_up, last = [], True, None
        for moment, value in zip(at, line, strict=True):
            if value is None:
                pen_up = True
                continue
            x = left + (right - left) * (moment - at[0]) / span_s
            y = last = lower - (lower - upper) * min(1.0, value / highest)
            path.append(f"{'M' if pen_up else 'L'}{x:.1f} {y:.1f}")
            pen_up = False
        if last is not None:
            style: dict[str, Any] = {"stroke": color, "stroke_width": 2.2, "stroke_dasharray": dashes}
            drawn.append(tag("path", d="".join(path), fill="none", stroke_linejoin="round", **style))
            drawn.append(_text(right + 6, last + 4, name, "start", color))
    drawn.append(_text(left, lower + 18, _clock(readings[0]), "start"))
    drawn.append(_text(right, lower + 18, _clock(readings[-1]), "end"))
    label = (
        f"{', '.join(name for name, *_ in lines)} over time, {_clock(readings[0])} to {_clock(readings[-1])}"
    )
    return tag("svg", *drawn, viewBox=f"0 0 {_SIZE[0]} {_SIZE[1]}", role="img", aria_label=label)


def _clock(reading: Payload) -> str:
    return datetime.fromisoformat(str(reading["taken_at"])).strftime("%d %b %H:%M:%S UTC")


def _text(x: float, y: float, text: object, anchor: str, color: str = _INK) -> Html:
    return tag("text", text, x=x, y=y, text_anchor=anchor, font_size=13, fill=color, font_family="sans-serif")
