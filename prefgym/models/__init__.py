"""Models of preferences: encoder × head, as an ensemble in one batched computation.

The names used most stand here; the rest is in the files of this folder.
"""

from prefgym.models.fit import adam, fit
from prefgym.models.reward_models import RewardModel, reward_model

__all__ = ["RewardModel", "adam", "fit", "reward_model"]
