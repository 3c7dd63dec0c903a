"""Times imitation's own ensemble training. Runs under the peer's Python: imports no prefgym.

Reads one JSON object from the command line, prints one JSON object as its last line.
"""

import json
import sys
import tempfile
import time

import gymnasium as gym
import numpy as np
import torch
from imitation.algorithms import preference_comparisons as pc
from imitation.data.types import Trajectory
from imitation.rewards.reward_nets import BasicRewardNet, RewardEnsemble
from imitation.util import logger as imitation_logger


def main() -> None:
    work = json.loads(sys.argv[1])
    torch.set_num_threads(work["threads"])
    torch.manual_seed(work["seed"])
    rng = np.random.default_rng(work["seed"])
    observation_space = gym.spaces.Box(-np.inf, np.inf, (work["observations"],), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (work["actions"],), np.float32)
    members = [
        BasicRewardNet(observation_space, action_space, hid_sizes=tuple(work["hidden"]))
        for _ in range(work["members"])
    ]
    ensemble = RewardEnsemble(observation_space, action_space, members)
    model = pc.PreferenceModel(ensemble)
    trainer = pc.EnsembleTrainer(
        model,
        pc.CrossEntropyRewardLoss(),
        rng=rng,
        batch_size=work["batch_pairs"],
        epochs=work["epochs"],
        custom_logger=imitation_logger.configure(tempfile.mkdtemp(), []),
    )

    def fragment() -> Trajectory:
        shape = (work["steps"] + 1, work["observations"])
        actions = rng.uniform(-1.0, 1.0, (work["steps"], work["actions"]))
        return Trajectory(
            obs=rng.standard_normal(shape).astype(np.float32),
            acts=actions.astype(np.float32),
            infos=None,
            terminal=False,
        )

    def dataset(pairs: int) -> pc.PreferenceDataset:
        made = pc.PreferenceDataset()
        made.push(
            [(fragment(), fragment()) for _ in range(pairs)],
            rng.integers(2, size=pairs).astype(np.float32),
        )
        return made

    trainer.train(dataset(work["batch_pairs"]))
    data = dataset(work["pairs"])
    start = time.perf_counter()
    trainer.train(data)
    print(json.dumps({"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
