"""Supervisors who watch what a policy does, and take over for a while.

``experts.py`` acts, ``stored.py`` reads experts from files, ``rules.py`` decides when (or, with
``keyboard.py``, a person),
``supervision.py`` puts both into the steps of an environment. The wrappers are
``prefgym.wrappers.InterventionEnv`` and ``InterventionVectorEnv``.
"""

from prefgym.interventions.experts import Expert, as_expert, noisy, with_mistakes
from prefgym.interventions.keyboard import Keyboard
from prefgym.interventions.rules import Distance, Person, Random, Rule, ValueBased
from prefgym.interventions.stored import GradedExpert, load_expert, load_experts, reference_critic
from prefgym.interventions.supervision import Supervision

__all__ = [
    "Distance",
    "Expert",
    "GradedExpert",
    "Keyboard",
    "Person",
    "Random",
    "Rule",
    "Supervision",
    "ValueBased",
    "as_expert",
    "load_expert",
    "load_experts",
    "noisy",
    "reference_critic",
    "with_mistakes",
]
