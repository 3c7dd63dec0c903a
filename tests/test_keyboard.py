"""A person at a terminal, played by a pseudo-terminal."""

import os
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import prefgym  # noqa: F401
from prefgym.interventions import Keyboard, Person, Supervision

pty = pytest.importorskip("pty")
NOBODY = np.zeros((2, 3))


@pytest.fixture
def terminal() -> Iterator[tuple[Any, int]]:
    person, program = pty.openpty()
    with open(program) as stream:
        yield stream, person
    os.close(person)


def test_keys_are_heard_once_and_in_their_time(terminal: tuple[Any, int]) -> None:
    stream, person = terminal
    with Keyboard(actions={"a": [-2.0], "d": [2.0]}, otherwise=[0.0], stream=stream) as keys:
        assert not keys.takes_over(NOBODY, NOBODY)
        os.write(person, b" ")
        assert keys.takes_over(NOBODY, NOBODY)
        assert not keys.takes_over(NOBODY, NOBODY)
        os.write(person, b"ad")
        np.testing.assert_array_equal(keys.acts(NOBODY), [[2.0], [2.0]])
        np.testing.assert_array_equal(keys.acts(NOBODY), [[0.0], [0.0]])
        os.write(person, b"a x")
        np.testing.assert_array_equal(keys.acts(NOBODY), [[-2.0], [-2.0]])
        assert keys.takes_over(NOBODY, NOBODY)  # heard while it was asked how to act


def test_the_last_action_is_repeated_where_nothing_else_is_said(terminal: tuple[Any, int]) -> None:
    stream, person = terminal
    with Keyboard(actions={"l": 0, "r": 1}, stream=stream) as keys:
        np.testing.assert_array_equal(keys.acts(NOBODY), [0, 0])
        os.write(person, b"r")
        for _ in range(2):
            np.testing.assert_array_equal(keys.acts(NOBODY), [1, 1])


def test_a_person_supervises_an_environment(terminal: tuple[Any, int]) -> None:
    stream, person = terminal
    with Keyboard(actions={"d": [2.0]}, otherwise=[0.0], stream=stream) as keys:
        supervision = Supervision(keys.acts, Person(keys.takes_over), steps=2)
        env = gym.make("prefgym/Pendulum-v0", supervision=supervision, query_every=None)
        env.reset(seed=0)
        one = np.ones(1, np.float32)
        seen = []
        for typed in (b"", b" ", b"d", b"", b""):
            os.write(person, typed)
            info = env.step(one)[4]
            seen.append((info["refused"], info["intervened"], float(info["executed_action"][0])))
    assert seen == [
        (False, False, 1.0),
        (True, False, 1.0),
        (False, True, 2.0),
        (False, True, 0.0),
        (False, False, 1.0),
    ]


def test_the_terminal_is_left_as_it_was(terminal: tuple[Any, int]) -> None:
    termios = pytest.importorskip("termios")
    stream, _ = terminal
    before = termios.tcgetattr(stream)

    def stopped() -> None:
        with Keyboard(stream=stream):
            assert termios.tcgetattr(stream) != before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert termios.tcgetattr(stream) == before


def test_mistakes_are_said(terminal: tuple[Any, int], tmp_path: Any) -> None:
    stream, _ = terminal
    for asked, message in (
        ({"key": "enter"}, "'enter' is no single key"),
        ({"actions": {" ": 1}}, "takes over and acts"),
    ):
        with pytest.raises(ValueError, match=message):
            Keyboard(stream=stream, **asked)
    with pytest.raises(ValueError, match="no key means an action"):
        Keyboard(stream=stream).acts(NOBODY)
    file = tmp_path / "no_terminal"
    file.touch()
    with (
        file.open() as nobody,
        pytest.raises(ValueError, match="keys are read from a terminal"),
        Keyboard(stream=nobody),
    ):
        pass
