"""The command line, ``prefgym``. The only file that knows all parts."""

import sys
from collections.abc import Callable, Sequence

from prefgym.names import lookup

USAGE = """prefgym: learn from preferences

  prefgym envs                            the environments, their raters and factors
  prefgym train reward-learning --env prefgym/Pendulum-v0 --rater partial-return --labels 200
  prefgym train spo --env prefgym/Pendulum-v0 --learner.queue 20
  prefgym train heron --env prefgym/Pendulum-v0 --factors "-angle2,-speed2,-torque2"
  prefgym train rlif --env prefgym/Pendulum-v0 --supervisor.expert 40
  prefgym train direct --env prefgym/TextSort-v0 --preset dpo --labels 1000
  prefgym train --resume RUN              go on with a run that was stopped or killed
  prefgym eval RUN                        true returns of a trained agent in fresh episodes
  prefgym text pretrain --env ID --out DIR   a tiny language model that responds as demonstrated
  prefgym oracle train --env ID --out FILE   a critic of the true reward, for raters of regret
  prefgym experts train --env ID          graded experts and their critic, for interventions
  prefgym bench models --quick            preference models compared over tasks and raters
  prefgym data inspect DIR                what a data set of preferences holds
  prefgym data convert SOURCE TARGET      to and from other libraries' formats

Every command explains itself: prefgym train reward-learning --help
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    from prefgym_agents import commands  # loads torch, which --help can do without

    table: dict[str, Callable[[list[str]], int]] = {
        "envs": commands.environments,
        "train": commands.train,
        "eval": commands.evaluate,
        "text": commands.text,
        "oracle": commands.oracle,
        "experts": commands.experts,
        "bench": commands.bench,
        "data": commands.data,
    }
    try:
        return lookup(words[0], table, "command")(words[1:])
    except (ValueError, ImportError, OSError) as error:
        print(f"prefgym: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
