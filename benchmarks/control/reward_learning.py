"""HalfCheetah and Hopper: the true reward, rewards learned from 500 and 2,000 labels, and a coin.

    python -m benchmarks.control.reward_learning            # whatever is missing, then the plots
    python -m benchmarks.control.reward_learning --seeds 1 --steps 20000 --out runs/try

PPO in all conditions, with the same settings and seeds. Every run is a file of its own under
``benchmarks/results/control_reward_learning/``; runs that are there are not made again, so that
the command can be stopped and repeated. Then one CSV, one JSON and one PNG per environment.
"""

from typing import Any

from benchmarks.control.curves import Curves

LABELS = {"2000 labels": 2_000, "500 labels": 500, "random rater": 500}
REWARD_MODEL = {
    "hidden": (64, 64), "learning_rate": 1e-3, "batch_pairs": 64, "epochs": 20, "fit_steps": 1,
}  # fmt: skip
"""Settings of the reward model, fixed here so that a change of the defaults leaves curves whole."""


def make(env_id: str, condition: str, seed: int) -> Any:
    """The learner of a condition."""
    import gymnasium as gym

    import prefgym  # noqa: F401
    from prefgym_agents.oracle import TrueReward
    from prefgym_agents.reward_learning import RewardLearning
    from prefgym_agents.sb3 import sb3_backend
    from prefgym_agents.tuned import settings

    labels = LABELS.get(condition)
    rater = "random" if condition == "random rater" else "partial-return"
    env = gym.make_vec(env_id, num_envs=8, rater=rater, budget=labels)
    backend = sb3_backend("PPO", env, seed=seed, **settings("PPO", env_id))
    if labels is None:
        return TrueReward(backend)
    sessions = max(10, labels // 100)
    return RewardLearning(backend, labels=labels, sessions=sessions, seed=seed, **REWARD_MODEL)


CURVES = Curves(
    "reward_learning",
    ("HalfCheetah", "Hopper"),
    ("true reward", "2000 labels", "500 labels", "random rater"),
    make,
    "PPO on rewards learned from preferences",
    {"reward_correlation": "reward_model/true_return_corr"},
)

if __name__ == "__main__":
    CURVES.main()
