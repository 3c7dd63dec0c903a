"""The policy that a fitted model leads to, and its return in the eyes of who answered.

    plan        exact, with the learned reward in the place of the true one;
                0 is what random actions earn, 1 the best that there is
    best-of-n   of the responses to a prompt, or of the episodes from a start, the one that the
                learned reward likes best; 0 is the mean of them, 1 the best
    learn       reward learning with a model of this kind, from questions of its own;
                0 is what random actions earn, 1 a reference

A rater of one mind wants the true reward, whether it judges by the return of a segment or by its
regret. The groups of a population each want their own sum of factors; a model that tells raters
apart leads to a policy for each group, one that does not serves all of them with one.
"""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Float

from prefgym.models.presets import MODELS
from prefgym.raters import Rater
from prefgym.raters.own import LabelRater, ProbabilityRater
from prefgym.raters.panels import Panel
from prefgym.raters.scores import (
    DeterministicRegret,
    StepAdvantages,
    StepSum,
    partial_return,
)
from prefgym.raters.scripted import ScriptedRater
from prefgym.segments import Segments
from prefgym_agents.backends import make_backend
from prefgym_agents.bench.candidates import Candidates, candidates
from prefgym_agents.bench.clock import tensors
from prefgym_agents.bench.data import Answered, Played
from prefgym_agents.bench.fitting import Fitted, made_model
from prefgym_agents.bench.own import OwnModel, is_own, own_model
from prefgym_agents.bench.suite import Cell, Size, Task
from prefgym_agents.evaluation import RandomPolicy, evaluate
from prefgym_agents.reward_learning import RewardLearning
from prefgym_agents.tuned import environment_settings

EPISODES = 20
"""Fresh ones, in which a learned policy and random actions are measured."""
EVALUATION_SEED = 1_000_000


def wishes(answered: Answered) -> list[StepSum] | None:
    """What each group would have a policy earn; None where no reward stands behind its answers."""
    found = [_worth(one) for one in answered.members]
    known = [one for one in found if one is not None]
    return known if len(known) == len(found) else None


def _worth(rater: Rater) -> StepSum | None:
    if isinstance(rater, Panel):
        return _worth(rater.rater)
    if isinstance(rater, ProbabilityRater | LabelRater):
        return partial_return  # a user's function: nobody knows what it is about
    if not isinstance(rater, ScriptedRater):
        return None
    statistic = rater.statistic
    if isinstance(statistic, DeterministicRegret):
        return partial_return
    if not isinstance(statistic, StepSum):
        return None
    if isinstance(statistic.step_scores, StepAdvantages):
        return partial_return
    return StepSum(statistic.step_scores)


def led_to(
    fitted: Fitted, cell: Cell, task: Task, played: Played, answered: Answered, size: Size
) -> dict[str, float]:
    """``true_return``: mean over the groups by their shares; ``worst_group_return``.

    Both are NaN where nothing can be said: no reward stands behind the answers, the model gives
    none, or several groups disagree where a policy would have to be learned.
    """
    wanted = wishes(answered)
    each = np.full(answered.groups, np.nan)
    if wanted is None or not fitted.is_pointwise:
        pass
    elif task.improve == "plan":
        each = _planned(fitted, wanted, played, answered)
    elif task.improve == "best-of-n":
        each = _best_of_n(fitted, wanted, candidates(task, size, cell.seed), answered)
    elif len(wanted) == 1:
        each[0] = _learned(cell, task, played, answered, size)
    return {
        "true_return": float(each @ answered.shares),
        "worst_group_return": float(each.min()),
    }


def _rewards(
    fitted: Fitted, segments: Segments, answered: Answered
) -> Float[np.ndarray, " groups batch steps"]:
    """What steps are worth to each group, as the model knows it: to all the same, or to each."""
    each = fitted.model.rewards_by_group(segments).double().cpu().numpy()
    if len(each) != answered.raters:
        return np.broadcast_to(each.mean(0), (answered.groups, *each.shape[1:]))
    members = np.eye(answered.groups)[answered.group_of].T
    rewards: np.ndarray = np.einsum("gr,rbt->gbt", members / members.sum(1, keepdims=True), each)
    return rewards


def _planned(
    fitted: Fitted, wanted: list[StepSum], played: Played, answered: Answered
) -> Float[np.ndarray, " groups"]:
    """Scaled returns of whole episodes, exact."""
    assert played.limit is not None
    with tensors():
        rules = played.rules
        learned = _rewards(fitted, _choices(rules), answered)[..., 0]
        outcomes = _outcomes(rules)
        worths = [one(outcomes) for one in wanted]
        policies = np.stack([_task(rules, one).optimal_policy for one in learned])
        best = np.stack([_task(rules, one).optimal_policy for one in worths])
        floor = np.full_like(best, 1.0 / rules.mdps.actions)
        earned, random, most = (
            _episode_returns(rules, one, np.stack(worths), played.limit)
            for one in (policies, floor, best)
        )
        span = most - random
        return np.where(span > 0.0, (earned - random) / np.where(span > 0.0, span, 1.0), 1.0)


def _episode_returns(
    rules: Any,
    policies: Float[np.ndarray, " groups states actions"],
    worths: Float[np.ndarray, " groups outcomes"],
    limit: int,
) -> Float[np.ndarray, " groups"]:
    """What each policy earns in an episode of so many steps at most, on average over the starts."""
    mdps = rules.mdps
    chance = policies[..., None] * mdps.probability
    reward = (chance * worths.reshape(chance.shape)).sum((2, 3)) * ~rules.absorbing
    ahead = np.eye(mdps.states)[mdps.next_state[0]]
    moves = np.einsum("gsao,saot->gst", chance, ahead)
    values = np.zeros_like(reward)
    for _ in range(limit):
        values = reward + np.einsum("gst,gt->gs", moves, values)
    returns: np.ndarray = values @ mdps.start[0]
    return returns


def _choices(rules: Any) -> Segments:
    """Every action in every state, a segment of one step each."""
    states, actions = np.divmod(
        np.arange(rules.mdps.states * rules.mdps.actions), rules.mdps.actions
    )
    return _steps(rules, states, actions)


def _outcomes(rules: Any) -> Segments:
    """Every outcome of every action in every state, with its reward and factors."""
    shape = rules.mdps.next_state.shape[1:]
    states, actions, _ = np.unravel_index(np.arange(np.prod(shape)), shape)
    features = rules.mdps.features[0].reshape(len(states), -1)
    return _steps(rules, states, actions).replace(
        rewards=rules.mdps.outcome_rewards[0].reshape(-1, 1),
        factors={name: features[:, [k]] for k, name in enumerate(rules.factor_names)},
    )


def _steps(rules: Any, states: np.ndarray, actions: np.ndarray) -> Segments:
    seen = rules.observations[states]
    return Segments(
        actions=actions[:, None],
        mask=np.ones((len(states), 1), bool),
        context=seen,
        context_id=states,
        observations=seen[:, None],
    )


def _task(rules: Any, worth: Float[np.ndarray, " entries"]) -> Any:
    """The same rules with another reward, of each choice or of each of its outcomes."""
    shape = rules.mdps.next_state.shape
    reward = np.broadcast_to(worth.reshape(*shape[:3], -1), shape).copy()
    reward[:, rules.absorbing] = 0.0
    mdps = replace(rules.mdps, features=reward[..., None], weights=np.ones((1, 1)))
    return replace(rules, mdps=mdps, factor_names=("worth",))


def _best_of_n(
    fitted: Fitted, wanted: list[StepSum], among: Candidates, answered: Answered
) -> Float[np.ndarray, " groups"]:
    """Scaled worths of the candidates that the learned reward likes best; ties share."""
    by_start = (-1, among.starts, among.each)
    with tensors():
        liked = _rewards(fitted, among.segments, answered).sum(-1).reshape(by_start)
        earned = np.stack([one(among.segments) for one in wanted]).reshape(by_start)
        chosen = np.mean(earned, -1, where=liked == liked.max(-1, keepdims=True)).mean(1)
        floor, best = earned.mean((1, 2)), earned.max(-1).mean(1)
        span = best - floor
        return np.where(span > 0.0, (chosen - floor) / np.where(span > 0.0, span, 1.0), 1.0)


def _learned(cell: Cell, task: Task, played: Played, answered: Answered, size: Size) -> float:
    """The scaled true return of reward learning with a new model of this kind."""
    own = own_model(cell.model) if is_own(cell.model) else OwnModel(MODELS[cell.model], None)
    assert task.reference is not None
    arguments: dict[str, Any] = environment_settings(task.env)
    if task.segment_steps is not None:
        arguments["segment_steps"] = task.segment_steps
    env = gym.make_vec(task.env, rater=answered.numbered, budget=task.policy_labels, **arguments)
    learner = RewardLearning(
        make_backend(env, task.env, seed=cell.seed),
        model=made_model(own, played, answered, size, cell.seed),
        loss=own.preset.loss,
        labels=task.policy_labels,
        seed=cell.seed,
    )
    learner.learn(task.policy_steps)
    env.close()
    spent = learner.clock.seconds
    tensors.seconds += spent["rater"] + spent["reward_model"] + spent["policy"]
    policies = learner, RandomPolicy(played.action_space, cell.seed)
    earned, floor = (
        evaluate(one, task.env, episodes=EPISODES, seed=EVALUATION_SEED + cell.seed).mean()
        for one in policies
    )
    return float((earned - floor) / (task.reference - floor))
