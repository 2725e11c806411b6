"""Rules and grades: from shares of affected cells to the reactivity of ISO 10993-5.

The extract table of ISO 10993-5 gives 20, 50 and 70 % of affected cells and 50 % of growth inhibition. The
other numbers are ours and part of the rule, whose identity and hash stand in every verdict.
"""

import dataclasses
import hashlib
from dataclasses import dataclass

from device.records import Assay

REACTIVITY = ("none", "slight", "mild", "moderate", "severe")
"""Grades 0 to 4 in the words of ISO 10993-5."""

TOXIC_ABOVE_GRADE = 2
"""ISO 10993-5 and USP <87>: an extract is cytotoxic if its grade is greater than 2."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What decides about a well. Shares are 0 to 1; a value on a boundary belongs to the lower grade."""

    id: str
    limit: float
    """Share of affected cells (and growth inhibition) above which a well is toxic."""
    needs_controls: bool
    """True: no final verdict without valid blank or negative and positive wells."""
    counts_growth: bool
    """True: growth inhibition and a destroyed layer decide as well."""
    counts_lysis: bool
    """True: extensive lysis decides as well."""
    affected_steps: tuple[float, float, float, float] = (0.05, 0.20, 0.50, 0.70)
    """Largest share of affected cells in grades 0 to 3."""
    growth_steps: tuple[float, float, float, float] = (0.10, 0.20, 0.50, 0.90)
    """Largest growth inhibition in grades 0 to 3."""
    lysis_steps: tuple[float, float] = (0.20, 0.70)
    """Above the first share of lysed cells the grade is at least 3, above the second 4."""
    background_max: float = 0.10
    """Largest affected share of blank and negative wells; more makes the plate invalid."""
    destroyed_below: float = 0.10
    """A layer is destroyed below this share of the controls' live cells."""
    discordant_above: float = 0.30
    """Affected share or growth inhibition that a viability assay calls cytotoxic (viability < 70 %)."""
    fields_min: int = 5
    fields_max: int = 20
    """More fields than this in one well are not asked for."""
    field_cells_min: int = 10
    """A field with fewer cells does not count toward the number of fields."""
    cells_min: int = 200
    """Fewest cells in a well."""
    wells_min: int = 3
    """Fewest wells of a test sample."""
    confidence: float = 0.95
    """Of each one-sided decision bound."""
    rho_min: float = 0.02
    """Floor of the correlation of cells within a field: guards against lucky small variances."""
    background_cells_min: int = 300
    """Below this number of control cells the uncertainty of the background widens the bounds."""
    p_toxic_low: float = 0.10
    p_toxic_high: float = 0.90
    """The field model speaks for non-toxic up to the low and for toxic from the high value on."""
    negative_grade_max: int = 1
    positive_grade_min: int = 3


EXTRACT = Rule("iso10993-5-extract/1", limit=0.50, needs_controls=True, counts_growth=True, counts_lysis=True)
VIABILITY = Rule("viability-70/1", limit=0.30, needs_controls=False, counts_growth=False, counts_lysis=False)

RULES = {rule.id: rule for rule in (EXTRACT, VIABILITY)}


def default_rule(assay: Assay) -> Rule:
    """Return the rule of an assay where nobody names one."""
    return EXTRACT if assay == "adherent" else VIABILITY


def rule_sha256(rule: Rule) -> str:
    """Return the SHA-256 of `rule` as canonical JSON (sorted keys, no spaces), in lower case hexadecimal."""
    values = sorted(dataclasses.asdict(rule).items())
    text = "{" + ",".join(f'"{name}":{_canonical(value)}' for name, value in values) + "}"
    return hashlib.sha256(text.encode()).hexdigest()


def grade_share(share: float, steps: tuple[float, ...]) -> int:
    """Return how many of the ascending `steps` are strictly below `share`: a boundary is in the lower grade.

    Examples
    --------
    >>> [grade_share(x, EXTRACT.affected_steps) for x in (0.0, 0.05, 0.2, 0.5, 0.7, 1.0)]
    [0, 0, 1, 2, 3, 4]
    """
    return sum(share > step for step in steps)


def grade_lysis(lysed: float, rule: Rule) -> int:
    """Return 0, or 3 for extensive and 4 for nearly complete lysis, of a share of lysed cells, 0 to 1."""
    return (0, 3, 4)[grade_share(lysed, rule.lysis_steps)] if rule.counts_lysis else 0


def grade_well(affected: float, growth_inhibition: float | None, lysed: float, rule: Rule) -> int:
    """Return the reactivity, 0 to 4: the worst that any criterion of `rule` says of three shares, 0 to 1.

    `affected` is after Abbott's correction; `growth_inhibition` is None where there is no reference.
    """
    growth = growth_inhibition if rule.counts_growth and growth_inhibition is not None else 0.0
    grades = grade_share(affected, rule.affected_steps), grade_share(growth, rule.growth_steps)
    return max(*grades, grade_lysis(lysed, rule))


def correct_background(share: float, background: float) -> float:
    """Return `share` without the background of the controls (Abbott's correction), 0 to 1.

    ValueError unless `background` is in [0, 1); whether it is low enough is the rule's `background_max`.
    """
    if not 0 <= background < 1:
        raise ValueError(f"background is {background}; expected 0 to less than 1")
    return min(1.0, max(0.0, (share - background) / (1 - background)))


def growth_inhibition(amount: float, reference: float) -> float:
    """Return 1 - `amount` / `reference`, 0 to 1; live cells per area or confluences, reference > 0."""
    return min(1.0, max(0.0, 1 - amount / reference))


def is_destroyed(n_cells: int, amount: float, reference: float, rule: Rule) -> bool:
    """Return whether a layer is destroyed: too few cells to grade, hardly any of the controls' live cells."""
    return n_cells < rule.cells_min and amount < rule.destroyed_below * reference


def _canonical(value: object) -> str:
    # by hand because `analysis` may not import json; numbers are written alike by both
    if isinstance(value, tuple):
        return "[" + ",".join(map(_canonical, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else repr(value).lower()
