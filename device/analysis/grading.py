"""Rules and grades: from shares of affected cells to the reactivity of ISO 10993-5.

The extract table of ISO 10993-5 gives 20, 50 and 70 % of affected cells and 50 % of growth inhibition. The
other numbers are ours and part of the rule, whose identity and hash stand in every verdict.
"""

import dataclasses
import functools
import hashlib
import itertools
import re
from dataclasses import dataclass

from device.records import Assay, Policy

REACTIVITY = ("none", "slight", "mild", "moderate", "severe")
"""Grades 0 to 4 in the words of ISO 10993-5."""


def _ascends(steps: tuple[float, ...], n: int) -> bool:
    ordered = all(low <= high for low, high in itertools.pairwise((0.0, *steps, 1.0)))
    return len(steps) == n and ordered


@dataclass(frozen=True, slots=True)
class Rule:
    """What decides about a well. Shares are 0 to 1; a value on a boundary belongs to the lower grade.

    ValueError names every number that cannot be.
    """

    id: str
    needs_controls: bool = True
    """True: no final verdict without valid blank or negative and positive wells."""
    counts_growth: bool = True
    """True: growth inhibition and a destroyed layer decide as well."""
    counts_lysis: bool = True
    """True: extensive lysis decides as well."""
    decides: bool = True
    """False: wells are graded, and their outcome stays inconclusive (METHOD_UNVERIFIED)."""
    policy: Policy = "any"
    """How the wells of a sample decide together."""
    grade_limit: int = 2
    """Toxic above this grade, 0 to 3: ISO 10993-5 and USP <87> pass 2; a stricter house rule passes 1."""
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
    """Fewest fields of a well, at least 2: one field has no spread."""
    fields_max: int = 20
    """More fields than this in one well are not asked for."""
    looks: tuple[int, ...] = (5, 10, 15, 20)
    """Numbers of fields at which a well is judged whose number of fields was not fixed beforehand."""
    field_cells_min: int = 10
    """A field with fewer cells does not count toward the number of fields."""
    cells_min: int = 200
    """Fewest cells in a well."""
    wells_min: int = 3
    """Fewest wells of a test sample."""
    confidence: float = 0.95
    """Of each one-sided decision bound, 0.5 to below 1."""
    rho_min: float = 0.02
    """Floor of the correlation of cells within a field: guards against lucky small variances."""
    p_toxic_low: float = 0.10
    p_toxic_high: float = 0.90
    """The field model speaks for non-toxic up to the low and for toxic from the high value on."""
    negative_grade_max: int = 1
    """Highest grade of a valid blank or negative well."""
    positive_grade_min: int = 3
    """Lowest grade of a valid positive well."""

    def __post_init__(self) -> None:
        """Refuse a rule that cannot decide sensibly; all faults at once."""
        shares = ("background_max", "destroyed_below", "discordant_above", "rho_min")
        named = re.fullmatch(r"[A-Za-z0-9._-]{1,48}/[0-9]{1,6}", self.id) is not None
        checks = [(f"id is {self.id!r}; expected a name and a version such as our-lab/1", named)]
        checks += [
            (f"{name} is {getattr(self, name)}; expected 0 to less than 1", 0 <= getattr(self, name) < 1)
            for name in shares
        ]
        checks += [
            (f"{name} is {value}; expected {n} shares, 0 to 1, none below the one before", _ascends(value, n))
            for name, value, n in (
                ("affected_steps", self.affected_steps, 4),
                ("growth_steps", self.growth_steps, 4),
                ("lysis_steps", self.lysis_steps, 2),
                ("p_toxic_low and p_toxic_high", (self.p_toxic_low, self.p_toxic_high), 2),
            )
        ]
        checks += [
            (f"{name} is {value}; expected {low} to {high}", low <= value <= high)
            for name, value, low, high in (
                ("grade_limit", self.grade_limit, 0, 3),
                ("negative_grade_max", self.negative_grade_max, 0, 2),
                ("positive_grade_min", self.positive_grade_min, 1, 4),
                ("fields_min", self.fields_min, 2, self.fields_max),
                ("field_cells_min", self.field_cells_min, 2, 1000),
                ("cells_min", self.cells_min, 1, 100_000),
                ("wells_min", self.wells_min, 1, 100),
                ("confidence", self.confidence, 0.5, 0.9999),
            )
        ]
        looks = tuple(sorted(set(self.looks)))
        expected = f"looks is {self.looks}; expected ascending numbers of fields from {self.fields_min} on"
        checks.append((expected, bool(looks) and looks == self.looks and looks[0] >= self.fields_min))
        faults = [text for text, is_right in checks if not is_right]
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def limit(self) -> float:
        """Share of affected cells above which a well is toxic."""
        return self.affected_steps[self.grade_limit]

    @property
    def growth_limit(self) -> float:
        """Growth inhibition above which a well is toxic."""
        return self.growth_steps[self.grade_limit]

    @property
    def lysis_limit(self) -> float:
        """Share of lysed cells above which a well is toxic: lysis gives grade 3 or 4, never less."""
        return self.lysis_steps[max(0, self.grade_limit - 2)]


EXTRACT = Rule("iso10993-5-extract/1")
USP87 = Rule("usp87/1", negative_grade_max=0)
VIABILITY = Rule(
    "viability-70/1",
    needs_controls=False,
    counts_growth=False,
    counts_lysis=False,
    grade_limit=1,
    affected_steps=(0.30, 0.30, 0.50, 0.70),
)
PAPER = Rule("paper-2020/1", needs_controls=False, counts_growth=False, counts_lysis=False, decides=False)

RULES = {rule.id: rule for rule in (EXTRACT, USP87, VIABILITY, PAPER)}
"""Every rule that this version knows by name. A change of a number is a new version of the rule.

`usp87/1` has the numbers of ISO 10993-5 and asks more of the negative control. `viability-70/1` has the usual
bands of a viability assay: above 70 % none, to 50 % mild, to 30 % moderate, below severe. `paper-2020/1`
grades by dead cells alone, as Saini et al. (2020), who give no number; it takes those of the extract table.
"""


def default_rule(assay: Assay) -> Rule:
    """Return the rule of an assay where nobody names one."""
    return EXTRACT if assay == "adherent" else VIABILITY


@functools.cache  # a third of the time of a verdict else, and a station judges by one rule all day
def rule_text(rule: Rule) -> str:
    """Return `rule` as canonical JSON: sorted keys, no spaces."""
    values = sorted(dataclasses.asdict(rule).items())
    return "{" + ",".join(f'"{name}":{_canonical(value)}' for name, value in values) + "}"


def own_rule_text(rule: Rule) -> str | None:
    """Return `rule_text` of a lab's own rule, None for one that this version knows by name."""
    return None if RULES.get(rule.id) == rule else rule_text(rule)


def rule_sha256(rule: Rule) -> str:
    """Return the SHA-256 of `rule_text`, in lower case hexadecimal."""
    return hashlib.sha256(rule_text(rule).encode()).hexdigest()


def grade_share(share: float, steps: tuple[float, ...]) -> int:
    """Return how many of the ascending `steps` are strictly below `share`: a boundary is in the lower grade.

    Examples
    --------
    >>> [grade_share(x, EXTRACT.affected_steps) for x in (0.0, 0.05, 0.2, 0.5, 0.7, 1.0)]
    [0, 0, 1, 2, 3, 4]
    """
    return sum(share > step for step in steps)


def grade_well(affected: float, growth_inhibition: float | None, lysed: float, rule: Rule) -> int:
    """Return the reactivity, 0 to 4: the worst that any criterion of `rule` says of three shares, 0 to 1.

    `affected` is after Abbott's correction; `growth_inhibition` is None where there is no reference.
    Extensive lysis is grade 3, nearly complete lysis 4.
    """
    growth = growth_inhibition if rule.counts_growth and growth_inhibition is not None else 0.0
    return max(
        grade_share(affected, rule.affected_steps),
        grade_share(growth, rule.growth_steps),
        (0, 3, 4)[grade_share(lysed, rule.lysis_steps)] if rule.counts_lysis else 0,
    )


def correct_background(share: float, background: float) -> float:
    """Return `share` without the background of the controls (Abbott's correction), 0 to 1.

    ValueError unless `background` is in [0, 1); whether it is low enough is the rule's `background_max`.
    """
    if not 0 <= background < 1:
        raise ValueError(f"background is {background}; expected 0 to less than 1")
    return max(0.0, (share - background) / (1 - background))


def growth_inhibition(amount: float, reference: float) -> float:
    """Return 1 - `amount` / `reference`, 0 to 1; live cells per area or confluences, reference > 0."""
    return max(0.0, 1 - amount / reference)


def is_destroyed(n_cells: int, amount: float, reference: float, rule: Rule) -> bool:
    """Return whether a layer is destroyed: too few cells to grade, hardly any of the controls' live cells."""
    return n_cells < rule.cells_min and amount < rule.destroyed_below * reference


def _canonical(value: object) -> str:
    # by hand because `analysis` may not import json; numbers are written alike by both
    if isinstance(value, tuple):
        return "[" + ",".join(map(_canonical, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else repr(value).lower()
