"""Somebody who watches a response being written, and takes over some of its tokens."""

import numpy as np
from jaxtyping import Bool, Int

from prefgym.interventions.supervision import Running
from prefgym.text import Layout


class Takeovers:
    """The supervisor of a text environment, asked token by token while a model writes.

    What stepping an environment with ``supervision=`` does, for a response that is written at once
    and played afterwards: the same questions to the same rule and expert, in the same order where
    all responses are written side by side.

    Args:
        running: of the environment, one lane for each response.
        layout: where prompts and responses stand.
        prompts: ``[lanes, P]``.
        person: ``[lanes]``, for whom they write; None: for nobody in particular.
    """

    def __init__(
        self,
        running: Running,
        layout: Layout,
        prompts: Int[np.ndarray, " lanes prompt"],
        person: Int[np.ndarray, " lanes"] | None = None,
    ) -> None:
        self.running, self.layout, self.prompts, self.person = running, layout, prompts, person
        shape = (len(prompts), layout.response_tokens)
        self.tokens = np.full(shape, layout.codec.pad, np.int64)
        self.factors = {name: np.zeros(shape) for name in running.factor_names}
        """Name -> ``[lanes, T]``: what the supervisor did at every token."""

    def __call__(
        self,
        lanes: Int[np.ndarray, " n"],
        step: int,
        chosen: Int[np.ndarray, " n"],
        going_on: Bool[np.ndarray, " n"],
    ) -> Int[np.ndarray, " n"]:
        """The tokens that are written in place of those that a policy chose.

        Args:
            lanes: which responses.
            step: their tokens so far.
            chosen: by the policy.
            going_on: which of them have not ended.
        """
        count, layout = len(self.tokens), self.layout
        acting = np.zeros(count, np.bool_)
        acting[lanes] = going_on
        proposed = np.zeros(count, np.int64)
        proposed[lanes] = chosen
        lengths = np.full(count, step)
        seen = layout.observations(self.prompts, self.tokens, lengths, self.person)
        decided = self.running.before(seen, proposed, acting)
        ended = acting & (
            (decided.actions == layout.codec.eos) | (step == layout.response_tokens - 1)
        )
        refused = self.running.after(seen, decided, acting, ended)
        self.tokens[acting, step] = decided.actions[acting]
        for name, told in self.running.factors(decided, refused, proposed).items():
            self.factors[name][acting, step] = told[acting]
        written: np.ndarray = decided.actions[lanes]
        return written
