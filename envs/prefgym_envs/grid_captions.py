"""What changed between two states of a gridworld with doors, keys and boxes, in one sentence.

Everything here is a pure function of what an agent knows before and after a step. One step has at
most one event: the first of :data:`EVENTS` that happened.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

EVENTS = (
    *("reached", "unlocked", "opened", "closed", "picked_up", "dropped", "toggled", "saw"),
    "bumped",
)
"""What a step can be remembered for; where two happen at once, the earlier one is told."""
KINDS = ("goal", "key", "ball", "box", "door")
"""What comes into view; of several kinds at once, the earlier one is told."""
CARRIED = ("key", "ball", "box")
"""What can be picked up."""
DOOR_STATES = ("open", "closed", "locked")


class Thing(NamedTuple):
    """What stands in a cell."""

    kind: str
    """"wall", or one of :data:`KINDS`."""
    colour: str
    state: str = ""
    """Of doors: one of :data:`DOOR_STATES`."""


class Scene(NamedTuple):
    """What the agent knows at one moment."""

    place: tuple[int, int]
    """Column and row."""
    direction: int
    """0 right, 1 down, 2 left, 3 up."""
    below: Thing | None
    """In the agent's own cell."""
    ahead: Thing | None
    """In the cell in front of it."""
    carried: Thing | None
    seen: frozenset[Thing]
    """Things in view, walls left out, doors without their state."""
    forward: bool = False
    """Whether the agent just tried to go forward: that is how it feels a bump."""


class Event(NamedTuple):
    """One of :data:`EVENTS`, and the thing that it happened to."""

    name: str
    thing: Thing


def event(before: Scene, after: Scene, colours: bool = False) -> Event | None:
    """What happened between two states: the first of :data:`EVENTS`, or None.

    Args:
        before: the step.
        after: the step.
        colours: whether a red door is news after a blue one.
    """
    if after.below is not None and after.below.kind == "goal" != _kind(before.below):
        return Event("reached", after.below)
    same_cell = (before.place, before.direction) == (after.place, after.direction)
    return (
        (_at_a_door(before.ahead, after.ahead) if same_cell else None)
        or _in_the_hand(before.carried, after.carried)
        or (_opened_up(before, after) if same_cell else None)
        or _came_into_view(before, after, colours)
        or (_in_the_way(after) if same_cell else None)
    )


def caption(before: Scene, after: Scene, colours: bool = False) -> str:
    """The sentence that tells what happened between two states; "" if nothing did."""
    return sentence(event(before, after, colours), colours)


def sentence(what: Event | None, colours: bool = False) -> str:
    """An event in words.

    Example:
        >>> sentence(Event("opened", Thing("door", "yellow")), colours=True)
        'You open the yellow door.'
    """
    return "" if what is None else _sentence(what.name, what.thing.kind, what.thing.colour, colours)


def possible_captions(
    kinds: Sequence[str],
    door_colours: Sequence[str],
    thing_colours: Sequence[str],
    *,
    colours: bool = False,
    locked: bool = False,
    target: str | None = None,
    sees: bool = True,
) -> tuple[str, ...]:
    """Every caption that a task can bring, in a fixed order, each once.

    Args:
        kinds: of :data:`KINDS`, those that the task has.
        door_colours: that doors can have.
        thing_colours: that keys, balls and boxes can have.
        colours: whether captions tell them.
        locked: whether doors can be locked.
        target: what ends the episode when it is picked up, and so is never dropped.
        sees: whether things can come into view.
    """
    carried = [one for one in CARRIED if one in kinds]
    doors = ["door"] if "door" in kinds else []
    subjects = {
        "reached": [one for one in kinds if one == "goal"],
        "unlocked": doors if locked else [],
        "opened": doors,
        "closed": doors,
        "picked_up": carried,
        "dropped": [one for one in carried if one != target],
        "toggled": [one for one in carried if one == "box"],
        "saw": [one for one in KINDS if one in kinds] if sees else [],
        "bumped": ["wall", *doors, *carried],
    }
    found = dict[str, None]()
    for name in EVENTS:
        for kind in subjects[name]:
            shades: Iterable[str] = {"wall": [""], "goal": [""], "door": door_colours}.get(
                kind, thing_colours
            )
            for colour in shades:
                found[_sentence(name, kind, colour, colours)] = None
    return tuple(found)


_FORMS = {
    "reached": "You reach the {}.",
    "unlocked": "You unlock the {}.",
    "opened": "You open the {}.",
    "closed": "You close the {}.",
    "picked_up": "You pick up the {}.",
    "dropped": "You drop the {}.",
    "toggled": "You toggle the {}.",
    "bumped": "You bump into the {}.",
}


def _sentence(name: str, kind: str, colour: str, colours: bool) -> str:
    told = f"{colour} {kind}" if colours and kind not in ("wall", "goal") else kind
    if name == "saw":
        return f"You see {'the' if kind == 'goal' else 'a'} {told}."
    return _FORMS[name].format(told)


def _kind(thing: Thing | None) -> str:
    return "" if thing is None else thing.kind


def _at_a_door(before: Thing | None, after: Thing | None) -> Event | None:
    if after is None or before is None or after.kind != "door" or before.state == after.state:
        return None
    if after.state == "open":
        return Event("unlocked" if before.state == "locked" else "opened", after)
    return Event("closed", after)


def _in_the_hand(before: Thing | None, after: Thing | None) -> Event | None:
    if before is None and after is not None:
        return Event("picked_up", after)
    return Event("dropped", before) if before is not None and after is None else None


def _opened_up(before: Scene, after: Scene) -> Event | None:
    """A box that was opened shows what is inside, and is no more."""
    gone = before.ahead is not None and before.ahead.kind == "box" != _kind(after.ahead)
    return Event("toggled", before.ahead) if gone and before.ahead is not None else None


def _came_into_view(before: Scene, after: Scene, colours: bool) -> Event | None:
    if after.seen == before.seen:
        return None
    known = before.seen if colours else {one.kind for one in before.seen}
    news = [one for one in after.seen if (one if colours else one.kind) not in known]
    if not news:
        return None
    return Event("saw", min(news, key=lambda one: (KINDS.index(one.kind), one.colour)))


def _in_the_way(after: Scene) -> Event | None:
    return Event("bumped", after.ahead) if after.forward and after.ahead is not None else None
