"""Times imitation's own reward learning and its plain Stable-Baselines3. Runs under the peer's
Python: imports no prefgym.

Reads one JSON object from the command line, prints one JSON object as its last line.
"""

import contextlib
import io
import json
import sys
import tempfile
import time

import numpy as np
import torch
from imitation.algorithms import preference_comparisons as pc
from imitation.rewards.reward_nets import BasicRewardNet, RewardEnsemble
from imitation.util import logger as imitation_logger
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env


def main() -> None:
    work = json.loads(sys.argv[1])
    torch.set_num_threads(work["threads"])
    rng = np.random.default_rng(work["seed"])

    def agent() -> PPO:
        venv = make_vec_env("Pendulum-v1", work["envs"], seed=work["seed"])
        return PPO("MlpPolicy", venv, seed=work["seed"], **work["ppo"])

    plain, learner = agent(), agent()
    venv = learner.get_env()
    assert venv is not None
    members = [
        BasicRewardNet(venv.observation_space, venv.action_space, hid_sizes=tuple(work["hidden"]))
        for _ in range(work["members"])
    ]
    ensemble = RewardEnsemble(venv.observation_space, venv.action_space, members)
    trainer = pc.EnsembleTrainer(
        pc.PreferenceModel(ensemble), pc.CrossEntropyRewardLoss(), rng=rng, epochs=3
    )
    comparisons = pc.PreferenceComparisons(
        pc.AgentTrainer(learner, ensemble, venv, rng=rng),
        ensemble,
        num_iterations=work["sessions"],
        fragmenter=pc.RandomFragmenter(rng=rng, warning_threshold=0),
        preference_gatherer=pc.SyntheticGatherer(rng=rng),
        reward_trainer=trainer,
        fragment_length=work["segment_steps"],
        initial_epoch_multiplier=4.0,  # as in its documentation; 200 is the default
        custom_logger=imitation_logger.configure(tempfile.mkdtemp(), []),
    )
    seconds = {}
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        plain.learn(work["steps"])
        seconds["plain"] = time.perf_counter() - start
        start = time.perf_counter()
        comparisons.train(work["steps"], work["labels"])
        seconds["reward learning"] = time.perf_counter() - start
    print(json.dumps({**seconds, "steps": learner.num_timesteps}))


if __name__ == "__main__":
    main()
