"""Supervisors who watch what a policy does, and take over for a while.

``experts.py`` acts, ``rules.py`` decides when, ``supervision.py`` puts both into the steps of an
environment. The wrappers are ``prefgym.wrappers.InterventionEnv`` and ``InterventionVectorEnv``.
"""

from prefgym.interventions.experts import Expert, as_expert, noisy, with_mistakes
from prefgym.interventions.rules import Distance, Person, Random, Rule, ValueBased
from prefgym.interventions.supervision import Supervision

__all__ = [
    "Distance",
    "Expert",
    "Person",
    "Random",
    "Rule",
    "Supervision",
    "ValueBased",
    "as_expert",
    "noisy",
    "with_mistakes",
]
