"""The outcome of one experiment: what was claimed, measured, required, and whether it holds.

A claim is a module of this package, named by its key, that holds::

    KEY = "knox2022"
    CLAIM = "The sentence of the paper."

    def run(seed: int, quick: bool) -> ClaimResult: ...
"""

import math
import operator
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

Comparison = Literal["<", "<=", "==", ">=", ">"]
_COMPARE: dict[Comparison, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    ">=": operator.ge,
    ">": operator.gt,
}
_FIGURE_NAME = re.compile(r"[A-Za-z][\w.+-]*")
_WIDTH = 96


@dataclass(frozen=True)
class Row:
    """One measurement and what it has to be."""

    name: str
    """What was measured, with its unit."""
    measured: float
    """NaN never holds."""
    comparison: Comparison
    threshold: float

    def __post_init__(self) -> None:
        """Refuse a comparison that does not exist."""
        if self.comparison not in get_args(Comparison):
            raise ValueError(
                f"Row {self.name!r}: comparison {self.comparison!r}; give one of "
                f"{' '.join(get_args(Comparison))}."
            )

    @property
    def holds(self) -> bool:
        """Whether the measurement is as required."""
        return bool(_COMPARE[self.comparison](self.measured, self.threshold))


@dataclass(frozen=True)
class ClaimResult:
    """What one seed showed. ``holds`` needs every row and every control."""

    key: str
    claim: str
    """The sentence of the paper."""
    seed: int
    rows: Sequence[Row]
    """Where the effect must show."""
    controls: Sequence[Row]
    """Where it must vanish."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the last line and the results file tell; names without blanks."""
    wall_s: float = 0.0
    """Seconds; written by the runner, as ``quick`` is."""
    quick: bool = False
    """Whether only the part was run that fits in a test suite."""

    def __post_init__(self) -> None:
        """Refuse a result without rows, without a control, or with figures that cannot be read."""
        if not self.rows or not self.controls:
            raise ValueError(
                f"{self.key}: got {len(self.rows)} rows and {len(self.controls)} controls; a claim "
                "needs a measurement and a condition under which the effect must vanish."
            )
        for name in self.figures:
            if not _FIGURE_NAME.fullmatch(name):
                raise ValueError(
                    f"{self.key}: figure {name!r}; begin with a letter, and use letters, digits "
                    "and . _ + - only."
                )

    @property
    def holds(self) -> bool:
        """Whether everything is as required."""
        return all(row.holds for row in (*self.rows, *self.controls))


def report(result: ClaimResult) -> str:
    """The table of a result, and as its last line ``closing_line``."""
    cells = [("", "measured", "wanted", "holds")]
    for kind, rows in (("claim", result.rows), ("control", result.controls)):
        cells += [
            (
                f"{kind:8} {row.name}",
                _written(row.measured),
                f"{row.comparison} {_written(row.threshold)}",
                "yes" if row.holds else "NO",
            )
            for row in rows
        ]
    widths = [max(len(row[at]) for row in cells) for at in range(4)]
    lines = [
        f"{name:{widths[0]}}  {measured:>{widths[1]}}  {wanted:{widths[2]}}  {holds}".rstrip()
        for name, measured, wanted, holds in cells
    ]
    note = f"seed {result.seed}" + (", quick: a part of the experiment" if result.quick else "")
    head = textwrap.wrap(f"{result.key} ({note}): {result.claim}", _WIDTH)
    return "\n".join([*head, "", *lines, "", closing_line(result)])


def closing_line(result: ClaimResult) -> str:
    """``<key> holds=true wall_s=41 <name>=<figure> ...``."""
    figures = "".join(f" {name}={_written(value)}" for name, value in result.figures.items())
    return f"{result.key} holds={str(result.holds).lower()} wall_s={result.wall_s:.0f}{figures}"


def _written(value: float) -> str:
    """Four digits; whole numbers whole."""
    if math.isfinite(value) and value == round(value) and abs(value) < 1e7:
        return str(int(value))
    return f"{value:.4g}"
