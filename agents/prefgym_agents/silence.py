"""The warning, given once, that nobody has taught a learner anything so far."""

import warnings


def check_share(silence: float) -> None:
    """Refuse a share of the training that is none.

    Raises:
        ValueError: it is none.
    """
    if not 0.0 < silence <= 1.0:
        raise ValueError(f"silence={silence}; wanted a share in (0, 1].")


class Silence:
    """Warns when so much of a training is over and nobody has taught.

    Args:
        share: of the training steps.
        sentence: what is said, ``{steps}`` for the steps so far.
    """

    def __init__(self, share: float, sentence: str) -> None:
        self.share, self.sentence = share, sentence
        self.warned = False
        """Whether it was said."""

    def look(self, taught: bool, steps: int, total_timesteps: int) -> None:
        """Warn if it is time to."""
        if self.warned or taught or steps < self.share * total_timesteps:
            return
        self.warned = True
        warnings.warn(self.sentence.format(steps=steps), stacklevel=3)
