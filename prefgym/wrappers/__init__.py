"""The Gymnasium layer: environments that hide their reward and emit preferences instead.

``info`` of every step holds the truth under one key, ``true_reward``, for scores; ``factors``
where the task names parts of its reward; ``caption`` where it says in words what changed; and, only
on the step at which a comparison was answered, ``preference`` with plain numbers (which two
segments, the label, who answered). The segments themselves stay in the store.
"""

from prefgym.wrappers.captioned import CaptionedEnv, CaptionedVectorEnv
from prefgym.wrappers.intervention import InterventionEnv, InterventionVectorEnv
from prefgym.wrappers.learned_reward import LearnedReward
from prefgym.wrappers.single import PreferenceEnv
from prefgym.wrappers.vector import PreferenceVectorEnv, preference_layer

__all__ = [
    "CaptionedEnv",
    "CaptionedVectorEnv",
    "InterventionEnv",
    "InterventionVectorEnv",
    "LearnedReward",
    "PreferenceEnv",
    "PreferenceVectorEnv",
    "preference_layer",
]
