"""The policy as it was in the beginning, which a language model is held near to."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from prefgym_agents.language_policy import LanguagePolicy


class Reference:
    """A frozen copy of a policy; of one with adapters, the policy without them.

    The copy is made when it is first needed, so that who needs none pays for none.

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

    @contextmanager
    def acting(self) -> Iterator[LanguagePolicy]:
        """The policy to ask, for as long as the context lasts."""
        self.keep()
        if self.frozen is not None:
            yield self.frozen
        else:
            with self.adapters.disable_adapter():
                yield self.policy
