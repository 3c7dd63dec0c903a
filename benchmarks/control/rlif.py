"""Hopper and Walker2d: interventions as the only reward, by experts of three grades.

    python -m benchmarks.control.rlif                        # whatever is missing, then the plots
    python -m benchmarks.control.rlif --seeds 1 --steps 20000 --out runs/try

Experts and the critics that decide about takeovers are those that come with the package
(``prefgym.interventions.load_expert``). "RLIF value": somebody who knows what actions are worth
takes over for four steps (with probability 0.95 after an action that loses more than 2 % of |V|,
0.05 after others); "RLIF random": somebody takes over after half of the steps. The baselines act as
long: DAgger is told the expert's action in every state, HG-DAgger wherever the same supervisor
takes over, and behaviour cloning watches the expert. Their labels are counted, and are more than
RLIF is given, except for HG-DAgger's.

Departures from Luo et al. (2023), arXiv:2311.12996: far fewer steps than their million, two layers
of 128, four critics, updated once for every four steps (once for every step changed nothing in a
run of 30,000 and took four times as long), no demonstrations, and textbook forms of the baselines.
Returns are normalised as grades are (0: random actions, 100: the reference score of D4RL), and the
table (in ``docs/experts.md``, by ``python -m benchmarks.tables``) stands beside the paper's. Every
run is a file of its own under ``benchmarks/results/control_rlif/``.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.control.curves import Curves

STEPS, LANES = 30_000, 4
MARGIN, RATE = 0.02, 0.5
GRADES = ("best", "middle", "worst")
EXPERTS = {"Hopper": (110, 70, 20), "Walker2d": (110, 40, 15)}
"""What was asked for when they were made, as in the paper; ``load_expert`` says what came of it."""
METHODS = ("RLIF value", "RLIF random", "HG-DAgger", "DAgger", "BC")
CONDITIONS = tuple(f"{method} {grade}" for grade in GRADES for method in METHODS)
PAPER = {
    "Hopper": {
        "RLIF value": (108.99, 99.66, 102.85),
        "RLIF random": (106.51, 75.62, 19.11),
        "HG-DAgger": (53.55, 44.75, 11.94),
        "DAgger": (57.94, 20.49, 12.37),
        "BC": (None, None, None),
    },
    "Walker2d": {
        "RLIF value": (109.17, 108.42, 108.01),
        "RLIF random": (93.76, 103.9, 75.12),
        "HG-DAgger": (80.3, 40.66, 25.2),
        "DAgger": (70.58, 38.7, 19.54),
        "BC": (None, None, None),
    },
}
"""Table 1 of the paper, after a million steps: experts of grade 110, 70, 20 and 110, 40, 15."""


def make(env_id: str, condition: str, seed: int) -> Any:
    """The learner of a condition."""
    import gymnasium as gym

    import prefgym  # noqa: F401
    from prefgym.interventions import (
        Random,
        Supervision,
        ValueBased,
        load_expert,
        reference_critic,
    )
    from prefgym_agents.imitation import Imitation, whole_episodes
    from prefgym_agents.rlif import RLIF
    from prefgym_agents.sb3 import sb3_backend

    method, _, grade = condition.rpartition(" ")
    task = env_id.removeprefix("prefgym/").removesuffix("-v0")
    expert = load_expert(task, EXPERTS[task][GRADES.index(grade)])
    watching = ValueBased(reference_critic(env_id), MARGIN)
    supervisions: dict[str, Callable[[], Any]] = {
        "RLIF value": lambda: Supervision(expert, watching),
        "RLIF random": lambda: Supervision(expert, Random(RATE)),
        "HG-DAgger": lambda: Supervision(expert, watching),
        "DAgger": lambda: Supervision(expert, Random(0.0)),
        "BC": lambda: whole_episodes(expert),
    }
    env = gym.make_vec(env_id, num_envs=LANES, query_every=None, supervision=supervisions[method]())
    if method.startswith("RLIF"):
        small = {"net_arch": [128, 128], "critics": 4}
        seldom = {"gradient_steps": 2, "updates_per_step": 4}  # after every 8 steps of 4 lanes
        return RLIF(
            sb3_backend(
                "RLPD", env, seed=seed, learning_starts=1_000, policy_kwargs=small, **seldom
            )
        )
    networks = {"net_arch": [128, 128]}
    backend = sb3_backend("PPO", env, seed=seed, n_steps=250, batch_size=1_000, learning_rate=1e-3,
                          normalise_observations=True, policy_kwargs=networks)  # fmt: skip
    preset = {"HG-DAgger": "hg_dagger", "DAgger": "dagger", "BC": "bc"}[method]
    return Imitation(backend, preset, seed=seed, gradient_steps=200, batch_size=256)


CURVES = Curves(
    "rlif",
    ("Hopper", "Walker2d"),
    CONDITIONS,
    make,
    "experts of three grades",
    {"intervened": "rlif/intervened"},
    steps=STEPS,
)

if __name__ == "__main__":
    CURVES.main()
