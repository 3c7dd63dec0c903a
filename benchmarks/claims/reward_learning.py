"""Control learned from 200 comparisons, without ever reading the reward.

Source: Christiano et al. (2017), "Deep reinforcement learning from human preferences",
arXiv:1706.03741; the algorithm here is PrefPPO's (Lee et al., 2021, arXiv:2111.03026).

On Pendulum, PPO trains on the true reward, on a reward learned from 200 labels of partial return,
and on one "learned" from a coin's 200 answers; same steps, updates and seeds. What is reported is
the share of the gap between random actions and the true-reward agent that was closed.
"""

import numpy as np

from benchmarks.claims.claim import ClaimResult, Row
from benchmarks.claims.training import Job, random_return, side_by_side, train

KEY = "reward_learning"
CLAIM = "An agent learns a control task from a few hundred comparisons of segments, no reward seen."

ENV = "prefgym/Pendulum-v0"
STEPS, LABELS, SEEDS = 60_000, 200, 5
CLOSE = 0.8
"""Within 20 % of the gap."""
UNLEARNT = 0.5
"""A coin must stay below this share of the gap, in every seed."""


def run(seed: int, quick: bool) -> ClaimResult:
    """Five seeds (two when quick) of three agents."""
    seeds = [SEEDS * seed + k for k in range(2 if quick else SEEDS)]
    jobs = [
        Job(ENV, one, STEPS, rater, LABELS)
        for rater in (None, "partial-return", "random")
        for one in seeds
    ]
    truth, learned, coin = np.array(side_by_side(train, jobs)).reshape(3, len(seeds))
    floor = random_return(ENV)
    gap = truth - floor
    close = (learned - floor) / gap
    unlearnt = (coin - floor) / gap
    reached, wanted = int((close >= CLOSE).sum()), len(seeds) - 1
    taught = int((unlearnt > UNLEARNT).sum())
    return ClaimResult(
        KEY,
        CLAIM,
        seed,
        rows=[
            Row("seeds within 20 % of the true reward's gap", reached, ">=", wanted),
        ],
        controls=[
            Row("seeds in which a coin's answers teach half of it", taught, "<=", 0),
            Row("the true reward's agent learns (return)", float(truth.min()), ">=", floor / 2),
        ],
        figures={
            "true_return": float(truth.mean()),
            "learned_return": float(learned.mean()),
            "coin_return": float(coin.mean()),
            "random_return": floor,
            "share_of_gap": float(close.mean()),
            "share_of_gap_min": float(close.min()),
            "coin_share_of_gap": float(unlearnt.mean()),
            "coin_share_of_gap_max": float(unlearnt.max()),
            "seeds": float(len(seeds)),
        },
    )
