"""Annotation: captions are labelled by a rater while others act, newest first, each asked once.

:class:`Annotator` asks in a process of its own and never keeps anybody waiting; :class:`Inline`
has the same face and answers at once, so that a run can be repeated exactly.
"""

from prefgym.annotation.annotator import CAPACITY, Annotator
from prefgym.annotation.asking import CaptionRater
from prefgym.annotation.inline import Inline
from prefgym.annotation.labels import CaptionLabels, Labels, PairLabels

__all__ = [
    "CAPACITY",
    "Annotator",
    "CaptionLabels",
    "CaptionRater",
    "Inline",
    "Labels",
    "PairLabels",
]
