"""HalfCheetah and Hopper: self-play against learned rewards, with clean and with flipped labels.

    python -m benchmarks.control.spo                        # whatever is missing, then the plots
    python -m benchmarks.control.spo --seeds 1 --steps 20000 --out runs/try

PPO in all conditions, with the same settings, seeds and steps. Larger true return is preferred, and
in the flipped conditions one answer in four is turned round. Self-play compares segments of 50
steps with 4 recent ones each, and is held to 4 comparisons for every 50 steps; reward learning, by
one network, is given as many comparisons of such segments. Both are spread evenly over the run.
Every run is a file of its own under ``benchmarks/results/control_spo/``.
"""

from typing import Any

from benchmarks.control.curves import Curves

STEPS, OPPONENTS, SEGMENT = 200_000, 4, 50
LABELS = STEPS // SEGMENT * OPPONENTS
FLIPPED, FLIPS = 0.25, " flipped"
REWARD_MODEL: dict[str, Any] = {
    "members": 1, "hidden": (64, 64), "learning_rate": 1e-3, "batch_pairs": 256, "epochs": 2,
    "fit_steps": 1, "queries": "uniform", "recent_steps": 50_000,
}  # fmt: skip
CONDITIONS = ("SPO", "reward learning", "SPO flipped", "reward learning flipped")


def make(env_id: str, condition: str, seed: int) -> Any:
    """The learner of a condition."""
    import gymnasium as gym

    import prefgym  # noqa: F401
    from prefgym_agents.reward_learning import RewardLearning
    from prefgym_agents.sb3 import sb3_backend
    from prefgym_agents.spo import SPO
    from prefgym_agents.tuned import settings

    kind, flipped = condition.removesuffix(FLIPS), condition.endswith(FLIPS)
    env = gym.make_vec(
        env_id,
        num_envs=8,
        segment_steps=SEGMENT,
        rater="partial-return",
        rater_kwargs={"mistake": FLIPPED if flipped else 0.0},
    )
    backend = sb3_backend("PPO", env, seed=seed, **settings("PPO", env_id))
    if kind == "SPO":
        return SPO(
            backend, "segments", comparisons=OPPONENTS, labels=LABELS, snapshots=0, seed=seed
        )
    return RewardLearning(
        backend, labels=LABELS, sessions=20, ask_until=1.0, seed=seed, **REWARD_MODEL
    )


CURVES = Curves(
    "spo",
    ("HalfCheetah", "Hopper"),
    CONDITIONS,
    make,
    "PPO on win rates, and on learned rewards",
    {"win_rate_deviation": "spo/win_rate_deviation"},
    steps=STEPS,
)

if __name__ == "__main__":
    CURVES.main()
