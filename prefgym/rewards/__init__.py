"""Plain functions of rewards: transforms, aggregates of an ensemble, win rates, novelty, counts."""

from prefgym.rewards.aggregates import (
    Aggregator,
    cautious_reward,
    directed_reward,
    group_weights,
    log_sigmoid_sum,
    mean_reward,
    soft_worst_reward,
    worst_group,
    worst_reward,
)
from prefgym.rewards.counts import count_discount, counts_after, episode_counts
from prefgym.rewards.novelty import state_entropy
from prefgym.rewards.transforms import (
    CONSTANT,
    at_last_step,
    centred,
    centred_by_context,
    clipped,
    log_sigmoid,
    preference_as_reward,
    reference_level,
    references_by_context,
    standardised,
)
from prefgym.rewards.win_rates import beats, win_rates, win_rates_in_group

__all__ = [
    "CONSTANT",
    "Aggregator",
    "at_last_step",
    "beats",
    "cautious_reward",
    "centred",
    "centred_by_context",
    "clipped",
    "count_discount",
    "counts_after",
    "directed_reward",
    "episode_counts",
    "group_weights",
    "log_sigmoid",
    "log_sigmoid_sum",
    "mean_reward",
    "preference_as_reward",
    "reference_level",
    "references_by_context",
    "soft_worst_reward",
    "standardised",
    "state_entropy",
    "win_rates",
    "win_rates_in_group",
    "worst_group",
    "worst_reward",
]
