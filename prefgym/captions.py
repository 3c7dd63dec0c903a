"""Captions as numbers: what segments carry of the sentences that say what changed in a step.

A captioned environment says at every step, in ``info["caption"]``, what changed; the empty text
says that nothing did. Stores keep numbers, so every text gets one when it is first met.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

CAPTION = "caption"
"""The key in ``info``, and the factor that holds the caption's number."""
NOTHING = ""
"""The caption of a step in which nothing changed; its number is 0."""


class Captions:
    """The table of captions: text <-> number, in the order in which texts were first met.

    Args:
        known: texts that have numbers from the beginning, from 1 on; number 0 is ``""``.

    Example:
        >>> table = Captions(["You see a key."])
        >>> table.number(["", "You open the door.", "You see a key."])
        array([0, 2, 1])
        >>> table.texts([2, 0]), len(table)
        (['You open the door.', ''], 3)
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._numbers = {NOTHING: 0}
        self._texts = [NOTHING]
        self.number(list(known))

    def __len__(self) -> int:
        """How many different captions there are, the empty one included."""
        return len(self._texts)

    def number(self, texts: Sequence[str] | np.ndarray) -> Int[np.ndarray, " texts"]:
        """The number of each text; texts that are new get the next ones.

        Raises:
            ValueError: one of them is no text.
        """
        numbers = self._numbers
        for text in texts:
            if text not in numbers:
                self._add(text)
        return np.array([numbers[text] for text in texts], np.int64)

    def texts(self, numbers: Iterable[Any]) -> list[str]:
        """The text of each number, which may be a float, as factors are.

        Raises:
            ValueError: there is no such caption.
        """
        wanted = [int(one) for one in numbers]
        for one in wanted:
            if not 0 <= one < len(self._texts):
                raise ValueError(
                    f"There is no caption {one}; this table has 0 to {len(self._texts) - 1}. Was"
                    " the number given by another environment?"
                )
        return [self._texts[one] for one in wanted]

    def get_state(self) -> dict[str, Any]:
        """All texts in the order of their numbers, plain."""
        return {"texts": list(self._texts)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`get_state`."""
        self._texts = [str(one) for one in state["texts"]]
        self._numbers = {text: number for number, text in enumerate(self._texts)}

    def _add(self, text: Any) -> None:
        if not isinstance(text, str):
            raise ValueError(
                f'info["caption"] is {text!r}; wanted a text, which is "" where nothing changed.'
            )
        self._numbers[text] = len(self._texts)
        self._texts.append(text)
