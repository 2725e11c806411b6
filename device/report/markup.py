"""HTML and SVG from nested elements, escaped by construction: only an element is ever taken as markup."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape


class Html(str):
    """Text that is markup already; made by `tag` and `join` alone."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """Return an element; children that are no `Html` are escaped, those that are None left out.

    `_` in the name of an attribute stands for `-`, one at its end is dropped (`class_`); an attribute that is
    None is left out.

    Examples
    --------
    >>> tag("b", "1 < 2", class_="x")
    '<b class="x">1 &lt; 2</b>'
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    body = join(*children)
    return Html(f"<{name}{said}>{body}</{name}>" if body or name not in _VOID else f"<{name}{said}>")


def join(*children: object) -> Html:
    """Return children one after the other, those that are no `Html` escaped."""
    return Html(
        "".join(
            child if isinstance(child, Html) else escape(str(child))
            for child in children
            if child is not None
        )
    )


def fact_table(facts: Mapping[str, object]) -> Html:
    """Return names with their values, one under the other."""
    rows = [tag("tr", tag("th", name), tag("td", value)) for name, value in facts.items()]
    return tag("table", tag("tbody", *rows), class_="plain")


def section(title: str, *parts: object) -> Html:
    """Return a section under its title."""
    return tag("section", tag("h2", title), *parts)


def table(
    titles: Sequence[str], rows: Iterable[tuple[Sequence[object], str]], *, numbers: bool = False
) -> Html:
    """Return a table; each row with its explanation, if any, in a line of its own that stays with it.

    In a table of `numbers` only the second column is broken into lines.
    """
    head = tag("thead", tag("tr", *(tag("th", title) for title in titles)))
    bodies = [
        tag(
            "tbody",
            tag("tr", *(tag("td", cell) for cell in cells)),
            tag("tr", tag("td", why, colspan=len(titles), class_="why")) if why else None,
        )
        for cells, why in rows
    ]
    return tag("table", head, *bodies, class_="numbers" if numbers else None)


_VOID = {"meta", "img", "br"}


def _number(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
