"""The policy as it was in the beginning, which a language model is held near to."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from prefgym_agents.language.people import for_nobody
from prefgym_agents.language.policy import LanguagePolicy
from prefgym_agents.language.weights import load_weights


class Reference:
    """A frozen copy of a policy; of one with adapters, the policy without them.

    The copy is made when it is first needed, so that who needs none pays for none. Weights in
    shards (FSDP) cannot be copied any more, so that there it is made beforehand, always, and every
    process holds the whole of it.

    Args:
        policy: as it is in the beginning.
        adapters: the policy's, where it has some.
    """

    def __init__(self, policy: LanguagePolicy, adapters: Any = None) -> None:
        self.policy = policy
        self.adapters = adapters
        self.frozen: LanguagePolicy | None = None
        self.moved = False
        """Whether the policy is not what it was in the beginning."""

    def keep(self) -> None:
        """Make the copy now.

        Raises:
            RuntimeError: the policy is not what it was any more.
        """
        if self.adapters is not None or self.frozen is not None:
            return
        if self.moved:
            raise RuntimeError(
                "The reference is asked for, but the policy has learned since it was made and no"
                " copy was kept; make the backend with kl above 0, or call"
                " backend.keep_reference() before it learns."
            )
        self.frozen = deepcopy(self.policy).requires_grad_(False)

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to what was kept; a copy that is here is overwritten and not made anew.

        Args:
            state: ``reference``, the weights of the copy or None; ``moved``; and the policy's own
                weights, which it has already.
        """
        self.moved = False
        if state["reference"] is not None:
            self.keep()
            assert self.frozen is not None
            load_weights(self.frozen, state["reference"])
        elif state["moved"]:
            self.frozen = None  # what the policy began as is not in the state
        elif self.frozen is not None:
            load_weights(self.frozen, state["parameters"]["policy"])
        self.moved = state["moved"]

    @contextmanager
    def acting(self) -> Iterator[LanguagePolicy]:
        """The policy to ask, for as long as the context lasts."""
        self.keep()
        if self.frozen is not None:
            yield self.frozen
        else:
            with self.adapters.disable_adapter(), for_nobody(self.policy.model):
                yield self.policy
