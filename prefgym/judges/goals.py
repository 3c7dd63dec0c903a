"""Words of captions and goals, and which deeds lead to which: the table behind the rules.

A goal or a caption is read as deeds: a verb, a thing and perhaps a colour. A deed of the caption is
worth something if it is a deed of the goal, or leads to one:

=================  ==========================================================
to ...             it helps to ...
=================  ==========================================================
open a door        unlock it, pick up a key
unlock a door      pick up a key
pick up a key      open or toggle a box, since keys may lie in boxes
pick up a ball     open or unlock a door that it may be behind, pick up a key
pick up a box      the same
reach the goal     the same
=================  ==========================================================

Everything else does not help unless the goal asks for it in words: dropping, closing, toggling,
bumping and seeing. Colours, where both sides name them, must be the same for one and the same
thing, and for a key and its door.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple


class Deed(NamedTuple):
    """Something done, or to be done."""

    verb: str
    """A key of :data:`VERBS`, or "" where a goal names a thing alone."""
    thing: str
    """A key of :data:`THINGS`."""
    colour: str = ""


VERBS: dict[str, tuple[str, ...]] = {
    "pick up": ("pick", "picks", "picked", "take", "takes", "took", "get", "gets", "got", "fetch",
                "fetches", "fetched", "grab", "grabs", "grabbed", "find", "collect", "collects"),
    "drop": ("drop", "drops", "dropped", "put", "puts"),
    "unlock": ("unlock", "unlocks", "unlocked"),
    "open": ("open", "opens", "opened"),
    "close": ("close", "closes", "closed", "shut", "shuts"),
    "toggle": ("toggle", "toggles", "toggled"),
    "reach": ("reach", "reaches", "reached", "enter", "enters", "leave", "escape", "go"),
    "see": ("see", "sees", "saw", "look", "looks", "looked", "watch"),
    "bump": ("bump", "bumps", "bumped"),
}  # fmt: skip
"""Verbs, and the words that say them."""

THINGS: dict[str, tuple[str, ...]] = {
    "door": ("door", "doors"),
    "key": ("key", "keys"),
    "ball": ("ball", "balls"),
    "box": ("box", "boxes"),
    "goal": ("goal", "exit", "square"),
    "wall": ("wall", "walls"),
}
"""Things, and the words that name them."""

COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")

_THROUGH_A_DOOR = (("open", "door"), ("unlock", "door"), ("pick up", "key"))
MEANS: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("open", "door"): (("unlock", "door"), ("pick up", "key")),
    ("unlock", "door"): (("pick up", "key"),),
    ("pick up", "key"): (("open", "box"), ("toggle", "box")),
    ("pick up", "ball"): _THROUGH_A_DOOR,
    ("pick up", "box"): _THROUGH_A_DOOR,
    ("reach", "goal"): _THROUGH_A_DOOR,
}
"""What helps to do what; the nearer to the end, the earlier in its row."""

PROGRESS = ("reach", "pick up", "open", "unlock")
"""Verbs that are meant where a goal names a thing alone."""

FILLERS = frozenset(
    (
        *("a", "an", "and", "are", "as", "at", "be", "by", "do", "for", "from", "i", "if", "in"),
        *("into", "is", "it", "its", "me", "my", "of", "off", "on", "or", "so", "that", "the"),
        *("then", "there", "this", "through", "to", "up", "with", "you", "your"),
    )
)
"""Words that say nothing about what a goal is."""

_VERB_OF = {word: verb for verb, words in VERBS.items() for word in words}
_THING_OF = {word: thing for thing, words in THINGS.items() for word in words}


def words(text: str) -> list[str]:
    """The words of a text in small letters, without punctuation."""
    return re.findall(r"[\w'-]+", text.lower())


def deeds(text: str) -> tuple[Deed, ...]:
    """What a goal or a caption speaks of; a verb holds until the next one.

    Example:
        >>> deeds("Open the red door and reach the goal.")
        (Deed(verb='open', thing='door', colour='red'), Deed(verb='reach', thing='goal', colour=''))
    """
    return tuple(_deeds(words(text)))


def _deeds(said: list[str]) -> Iterator[Deed]:
    verb = colour = ""
    for word in said:
        if word in _VERB_OF:
            verb = _VERB_OF[word]
        elif word in COLOURS:
            colour = word
        elif word in _THING_OF:
            thing = _THING_OF[word]
            to_goal = thing == "goal" and verb in ("", "pick up", "open")  # "get to the goal"
            yield Deed("reach" if to_goal else verb, thing, colour)
            colour = ""


def worth(goal: str, caption: str) -> float:
    """How great a step towards the goal a caption reports.

    Returns:
        1 for a deed of the goal; less, the farther a means is from it; 0 for what does not help.
        Of texts in which no deed is found: the share of the caption's telling words that the goal
        has.
    """
    wanted, done = deeds(goal), deeds(caption)
    if wanted and any(one.verb for one in done):
        return max(_step(aim, deed) for aim in wanted for deed in done)
    telling = [word for word in words(caption) if word not in FILLERS]
    asked = set(words(goal)) - FILLERS
    return sum(word in asked for word in telling) / len(telling) if telling else 0.0


def _step(aim: Deed, deed: Deed) -> float:
    alike = aim.thing == deed.thing or {aim.thing, deed.thing} == {"door", "key"}
    if alike and aim.colour and deed.colour and aim.colour != deed.colour:
        return 0.0
    if deed.thing == aim.thing and deed.verb == aim.verb:
        return 1.0
    if not aim.verb:
        return max(_step(aim._replace(verb=verb), deed) for verb in PROGRESS)
    means = MEANS.get((aim.verb, aim.thing), ())
    found = (deed.verb, deed.thing)
    return 0.9 - 0.2 * means.index(found) if found in means else 0.0
