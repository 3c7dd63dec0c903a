"""Raters: whoever compares two segments.

A rater is chosen by name, or is any callable of a user's own:

>>> make_rater("noisy", beta=5.0).meaning
'partial-return'
>>> make_rater(lambda a, b: (a.lengths > b.lengths) * 0.5 + 0.25 * (a.lengths == b.lengths) + 0.25)
... # doctest: +ELLIPSIS
ProbabilityRater(...)
"""

from prefgym.raters.hierarchies import HierarchyRater
from prefgym.raters.named import RATERS, make_rater
from prefgym.raters.own import LabelRater, ProbabilityRater
from prefgym.raters.panels import Panel
from prefgym.raters.populations import Population
from prefgym.raters.protocols import AdaptiveRater, Rater, RememberingRater, SkippingRater

__all__ = [
    "RATERS",
    "AdaptiveRater",
    "HierarchyRater",
    "LabelRater",
    "Panel",
    "Population",
    "ProbabilityRater",
    "Rater",
    "RememberingRater",
    "SkippingRater",
    "make_rater",
]
