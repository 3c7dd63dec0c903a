"""Times imitation's own gatherer of labels. Runs under the peer's Python: imports no prefgym.

Reads one JSON object from the command line, prints one JSON object as its last line.
"""

import json
import sys
import tempfile
import time

import numpy as np
from imitation.algorithms import preference_comparisons as pc
from imitation.data.types import TrajectoryWithRew
from imitation.util import logger as imitation_logger


def main() -> None:
    work = json.loads(sys.argv[1])
    rng = np.random.default_rng(work["seed"])
    gatherer = pc.SyntheticGatherer(
        rng=rng, custom_logger=imitation_logger.configure(tempfile.mkdtemp(), [])
    )

    def fragment() -> TrajectoryWithRew:
        return TrajectoryWithRew(
            obs=rng.standard_normal((work["steps"] + 1, work["observations"])),
            acts=rng.uniform(-1.0, 1.0, (work["steps"], work["actions"])),
            rews=rng.standard_normal(work["steps"]),
            infos=None,
            terminal=False,
        )

    pairs = [(fragment(), fragment()) for _ in range(work["pairs"])]
    gatherer(pairs)
    start = time.perf_counter()
    gatherer(pairs)
    print(json.dumps({"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
