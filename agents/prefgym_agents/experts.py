"""Experts of graded quality, and a critic who knows what actions are worth.

    grade = 100 · (return − random) / (good − random)

A grade below the best is an early checkpoint of the same training, with random actions in as many
states as it takes to meet the grade. Luo et al. (2023), arXiv:2311.12996, name experts so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import torch

import prefgym
from prefgym.interventions import ValueBased
from prefgym.interventions.stored import GradedExpert
from prefgym.values import Critic, Layer
from prefgym_agents.evaluation import RandomPolicy, evaluate
from prefgym_agents.expert_training import CHOICE_SEED, Tell, returns_of
from prefgym_agents.fitted_values import explored, fitted_critic

CANDIDATES = 5
"""Best checkpoints that are measured again, before one of them is called the best."""
CHOICE_EPISODES, FINAL_EPISODES = 30, 100
"""Of what is said of a candidate, and, fresh ones, of the grade that a file tells."""
FINAL_SEED = 4_000_000
CLOSE = 2.0
"""Points of grade by which a candidate may miss the one that was asked for."""
BISECTIONS = 10
EXPLORED, HELD_OUT = 200_000, 10_000
"""Steps to fit values to, and to see whether they tell good actions from bad ones."""
NOISE = 0.3
"""Of half the range of actions: of the noisy actions that are compared with the expert's."""


class Good(NamedTuple):
    """The return that counts as grade 100."""

    mean_return: float
    source: str


_D4RL = "Fu et al. (2020), D4RL, arXiv:2004.07219, reference score of the task"
GOOD: Final[dict[str, Good]] = {
    "prefgym/Pendulum-v0": Good(-142.0, "planning on a grid of its states"),
    "prefgym/Hopper-v0": Good(3234.3, _D4RL),
    "prefgym/Walker2d-v0": Good(4592.3, _D4RL),
    "prefgym/HalfCheetah-v0": Good(12135.0, _D4RL),
}
"""Elsewhere the best checkpoint is grade 100."""


@dataclass(frozen=True)
class Scale:
    """From returns to grades."""

    random: float
    good: float
    source: str

    def __call__(self, mean_return: float) -> float:
        """The grade of a return."""
        return 100.0 * (mean_return - self.random) / (self.good - self.random)


def check_grades(grades: Sequence[float]) -> None:
    """Refuse what no expert can have.

    Raises:
        ValueError: no grades, the same twice, or one out of range.
    """
    shown = ",".join(f"{one:g}" for one in grades)
    if not grades or not np.isfinite(grades).all() or min(grades) <= 0.0 or max(grades) > 200.0:
        raise ValueError(
            f"grades={shown}; wanted one or more above 0 (random actions) and up to 200, such as"
            " 110,70,40,20."
        )
    if len(set(grades)) < len(grades):
        raise ValueError(f"grades={shown}; one is there twice.")


def scale_of(env_id: str, trained: Sequence[GradedExpert]) -> Scale:
    """Grades of an environment: random actions are 0, a good agent is 100.

    Raises:
        ValueError: training found nothing better than random actions.
    """
    acting = RandomPolicy(trained[0].action_space)
    drawn = evaluate(acting, env_id, episodes=FINAL_EPISODES, seed=FINAL_SEED)
    random = round(float(drawn.mean()), 1)
    best = max(one.about["mean_return"] for one in trained)
    if best <= random:
        raise ValueError(
            f"The best return of the training is {best:.1f}, and random actions have {random};"
            " train longer, with more --steps."
        )
    good = GOOD.get(env_id, Good(round(best, 1), "the best checkpoint of this training"))
    return Scale(random, good.mean_return, good.source)


def best_of(
    trained: Sequence[GradedExpert], measure: Callable[[GradedExpert], float]
) -> GradedExpert:
    """The best of the checkpoints that looked best, measured again."""
    told = sorted(trained, key=lambda one: -float(one.about["mean_return"]))
    return max(told[:CANDIDATES], key=measure)


def meeting(
    wanted: float,
    trained: Sequence[GradedExpert],
    best: GradedExpert,
    measure: Callable[[GradedExpert], float],
    scale: Scale,
) -> GradedExpert:
    """An expert of a grade, by episodes for choosing: a checkpoint, with noise where it is better.

    Args:
        wanted: the grade.
        trained: checkpoints of one training.
        best: of them; returned if nothing is as good as wanted.
        measure: the grade of an expert.
        scale: of the returns in ``about`` of the checkpoints.
    """
    if measure(best) <= wanted + CLOSE:
        return best
    nearest = min(trained, key=lambda one: abs(scale(one.about["mean_return"]) - wanted))
    found = measure(nearest)
    if abs(found - wanted) <= CLOSE:
        return nearest
    start = nearest if found > wanted else best
    low, high = 0.0, 1.0
    candidate = start
    for _ in range(BISECTIONS):
        candidate = replace(start, share=(low + high) / 2.0)
        found = measure(candidate)
        if abs(found - wanted) <= CLOSE / 2.0:
            break
        low, high = (candidate.share, high) if found > wanted else (low, candidate.share)
    return candidate


def graded(
    env_id: str,
    trained: Sequence[GradedExpert],
    grades: Sequence[float],
    seed: int = 0,
    tell: Tell = lambda what, share: None,
) -> list[GradedExpert]:
    """One expert for every grade, and as ``about`` the grade measured over fresh episodes.

    A grade beyond the best checkpoint gives the best checkpoint.
    """
    scale = scale_of(env_id, trained)
    known: dict[tuple[int, float], float] = {}

    def measure(expert: GradedExpert) -> float:
        key = (int(expert.about["steps"]), expert.share)
        if key not in known:
            returns = returns_of(expert, env_id, CHOICE_EPISODES, CHOICE_SEED)
            known[key] = scale(float(returns.mean()))
        return known[key]

    best = best_of(trained, measure)
    made = []
    for number, wanted in enumerate(sorted(grades, reverse=True)):
        tell(f"grade {wanted:g}", number / len(grades))
        chosen = replace(meeting(wanted, trained, best, measure, scale), seed=seed)
        kept = {name: chosen.about[name] for name in ("env", "training_steps", "seed")}
        kept["trained_steps"] = int(trained[-1].about["steps"])
        told = {"asked": float(wanted), "checkpoint": chosen.about["steps"], **kept}
        made.append(replace(chosen, about=told | measured(chosen, env_id, scale)))
    tell("grades", 1.0)
    return made


def measured(expert: GradedExpert, env_id: str, scale: Scale) -> dict[str, Any]:
    """What is said of an expert: over fresh episodes that nothing was chosen by."""
    returns = returns_of(expert, env_id, FINAL_EPISODES, FINAL_SEED)
    error = float(returns.std(ddof=1)) / np.sqrt(len(returns))
    return {
        "grade": round(scale(float(returns.mean())), 1),
        "grade_error": round(100.0 * error / (scale.good - scale.random), 1),
        "mean_return": round(float(returns.mean()), 1),
        "return_std": round(float(returns.std()), 1),
        "episodes": FINAL_EPISODES,
        "random": scale.random,
        "good": scale.good,
        "good_is": scale.source,
        "prefgym": prefgym.__version__,
    }


def reference(
    env_id: str,
    made: Sequence[GradedExpert],
    trained: Sequence[GradedExpert],
    *,
    seed: int = 0,
    discount: float = 0.99,
    updates: int = 30_000,
    tell: Tell = lambda what, share: None,
) -> Critic:
    """What actions are worth if the best expert acts ever after.

    Fitted to steps of the best expert and of all checkpoints, with and without noise: a learner
    who is supervised sees states of all kinds.

    Args:
        env_id: a prefgym id.
        made: experts of several grades.
        trained: checkpoints of their training.
        seed: of everything.
        discount: of the values.
        updates: of the fit.
        tell: told how far it is.

    Returns:
        The critic; ``about`` has what :func:`told_apart` measures in held-out states.
    """
    rng = np.random.default_rng(seed)
    best = max(made, key=lambda one: one.grade)
    lanes = [trained[k] for k in np.linspace(0, len(trained) - 1, 15).astype(int)]
    behaviours = [*lanes, *([best] * 15)]
    tell("trying actions", 0.0)
    steps = explored(env_id, behaviours, EXPLORED, rng)
    held_out = explored(env_id, behaviours, HELD_OUT, rng)
    layers = tuple(
        Layer(torch.as_tensor(weight)[None], torch.as_tensor(bias)[None, None])
        for weight, bias in zip(best.weights, best.biases, strict=True)
    )
    critic = fitted_critic(
        steps,
        layers,
        best,
        best.action_space,
        discount=discount,
        updates=updates,
        seed=seed,
        tell=lambda done: tell("fitting values", done / updates),
    )
    about = {
        "env": env_id,
        "policy_grade": best.about.get("grade"),
        "algorithm": "fitted Q evaluation",
        "discount": discount,
        "updates": updates,
        "seed": seed,
        **told_apart(critic, made, held_out.observations, rng),
        "prefgym": prefgym.__version__,
    }
    return replace(critic, about=about)


def told_apart(
    critic: Critic, made: Sequence[GradedExpert], observations: np.ndarray, rng: np.random.Generator
) -> dict[str, Any]:
    """How well a critic tells the best expert's actions from others, in given states.

    Returns:
        ``better_than_random`` and ``better_than_noisy``: in which share of the states the best
        expert's action is worth more than a uniformly random one, and than its own with Gaussian
        noise; ``refused_random`` and ``refused_noisy``: which share of those loses more than
        :class:`~prefgym.interventions.ValueBased` lets pass; ``mean_loss``: by the grade that was
        asked for, the mean loss of each expert's own actions, relative to the mean |V|.
    """
    best = max(made, key=lambda one: one.grade)
    space, wanted = best.action_space, best(observations)
    noise = NOISE * (space.high - space.low) / 2.0 * rng.standard_normal(wanted.shape)
    tried = {
        "random": rng.uniform(space.low, space.high, wanted.shape),
        "noisy": np.clip(wanted + noise, space.low, space.high),
    }
    size = np.abs(critic.state_values(observations))
    own = critic(observations, wanted)
    told: dict[str, Any] = {}
    for name, actions in tried.items():
        lost = own - critic(observations, actions)
        told[f"better_than_{name}"] = round(float(np.mean(lost > 0.0)), 3)
        told[f"refused_{name}"] = round(float(np.mean(lost > ValueBased.margin * size)), 3)
    losses = {
        f"{one.about.get('asked', one.grade):g}": float(
            -np.mean(critic(observations, one(observations))) / size.mean()
        )
        for one in made
    }
    return told | {"mean_loss": {name: round(lost, 5) for name, lost in losses.items()}}
