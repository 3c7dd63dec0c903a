"""Judges behind an endpoint: a real server on loopback that fails in every way that servers do."""

import logging
import os
import pickle
import platform
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefgym.judges import Cached, EndpointJudge, Patience, RuleJudge
from prefgym.judges.connections import read_message
from prefgym.judges.prompts import judge_prompt
from tests.endpoint_server import MODEL, Said, endpoint

KEY = "sk-test-4f9c2a71"
OF_OPENAI = ("OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS")
CAPTIONS = ["You pick up the key.", "You drop the key.", "You open the door.", "You see a ball."]
PROMPTS = [judge_prompt("open the door", one) for one in CAPTIONS]
RIGHT = RuleJudge().answers(PROMPTS)
QUICK = Patience(timeout_s=20.0, attempts=3, backoff_s=0.01, longest_wait_s=1.0)
IMPATIENT = replace(QUICK, timeout_s=0.3)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", *OF_OPENAI, "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def judges() -> Iterator[Any]:
    """Make judges, and hang up at the end."""
    made: list[EndpointJudge] = []

    def make(url: str, model: str | None = MODEL, **settings: Any) -> EndpointJudge:
        made.append(EndpointJudge(url, model, **{"patience": QUICK, **settings}))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_answers_come_in_order_and_the_model_and_sampling_are_asked_for(judges: Any) -> None:
    with endpoint(lambda n, _: Said(delay_s=0.05 * (n == 0))) as server:
        judge = judges(server.url, sampling={"temperature": 0.5, "seed": 3})
        assert judge.answers(PROMPTS) == RIGHT
        assert judge.answers([]) == []
    asked = server.asked[0]
    assert (asked["model"], asked["temperature"], asked["seed"]) == (MODEL, 0.5, 3)
    assert sorted(one["messages"][0]["content"] for one in server.asked) == sorted(PROMPTS)
    assert {"requests": 4, "retries": 0, "given_up": 0}.items() <= judge.counts.items()
    assert judge.name == f'{MODEL} {{"seed": 3, "temperature": 0.5}}'


def test_the_endpoint_is_not_told_about_the_machine(judges: Any) -> None:
    with endpoint() as server:
        judges(server.url).answers(PROMPTS[:1])
        assert server.headers
        told = {name for one in server.headers for name in one if name.startswith("x-stainless-")}
        said = " ".join(one.lower() for each in server.headers for one in each.values())
    assert told <= {"x-stainless-retry-count", "x-stainless-read-timeout"}
    assert all(one["user-agent"].startswith("AsyncOpenAI/Python ") for one in server.headers)
    assert platform.system().lower() not in said
    assert platform.machine().lower() not in said
    assert platform.python_version() not in said


def test_no_more_questions_at_once_than_allowed(judges: Any) -> None:
    patience = Patience(concurrency=3, timeout_s=20.0, attempts=1)
    with endpoint(lambda *_: Said(delay_s=0.02)) as server:
        judges(server.url, patience=patience).answers(PROMPTS * 4)
    assert server.most == 3


FAULTS = {
    "a time-out": (Said(delay_s=0.5), "timeouts"),
    "too many questions": (Said(status=429, body=b"slow down"), "rate_limits"),
    "an error of the server": (
        Said(status=500, body=b'{"error": {"message": "oh"}}'),
        "server_errors",
    ),
    "an overloaded server": (Said(status=503), "server_errors"),
    "no JSON": (Said(body=b"<html>"), "malformed"),
    "JSON of something else": (Said(body=b'{"choices": []}'), "malformed"),
    "no text": (Said(body=b'{"choices": [{"message": {"content": null}}]}'), "malformed"),
    "a cut connection": (Said(cut=True), "cut_off"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_passing_fault_is_counted_and_asked_about_again(name: str, judges: Any) -> None:
    said, count = FAULTS[name]
    with endpoint(lambda n, _: said if n == 0 else Said()) as server:
        judge = judges(server.url, patience=IMPATIENT if said.delay_s else QUICK)
        assert judge.answers(PROMPTS) == RIGHT
    seen = {one: number for one, number in judge.counts.items() if number}
    assert seen == {"requests": len(PROMPTS) + 1, "retries": 1, count: 1}


@pytest.mark.parametrize("name", FAULTS)
def test_a_lasting_fault_is_no_answer_and_no_exception(name: str, judges: Any) -> None:
    said, count = FAULTS[name]
    with endpoint(lambda _, prompt: said if prompt == PROMPTS[1] else Said()) as server:
        judge = judges(server.url, patience=IMPATIENT if said.delay_s else QUICK)
        assert judge.answers(PROMPTS) == [RIGHT[0], None, *RIGHT[2:]]
    assert judge.counts[count] == QUICK.attempts
    assert judge.counts["given_up"] == 1


@pytest.mark.parametrize("attempts", [1, 2])
def test_the_server_is_left_alone_for_as_long_as_it_wishes(attempts: int, judges: Any) -> None:
    full = Said(status=429, headers={"Retry-After": "0.15"})
    patience = Patience(concurrency=1, timeout_s=20.0, attempts=attempts, backoff_s=0.0)
    with endpoint(lambda n, _: full if n == 0 else Said()) as server:
        judge = judges(server.url, patience=patience)
        answers = judge.answers(PROMPTS[:1]) + judge.answers(PROMPTS[1:])
    assert answers == [RIGHT[0] if attempts > 1 else None, *RIGHT[1:]]
    assert server.times[1] - server.times[0] >= 0.14


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_pause_that_is_too_long_holds_for_later_calls_and_ends_no_training(
    attempts: int, judges: Any
) -> None:
    full = Said(status=429, headers={"Retry-After": "3600"})
    patience = Patience(concurrency=1, timeout_s=20.0, attempts=attempts, longest_wait_s=1.0)
    with endpoint(lambda n, _: full if n == 0 else Said()) as server:
        judge = judges(server.url, patience=patience)
        with pytest.warns(UserWarning, match=r"wishes not to be asked for 3600 s"):
            assert judge.answers(PROMPTS) == [None] * len(PROMPTS)
        for _ in range(2):
            assert judge.answers(PROMPTS) == [None] * len(PROMPTS)
        assert len(server.asked) == judge.counts["requests"] == 1
        assert judge.counts["given_up"] == 3 * len(PROMPTS)
        copied = pickle.loads(pickle.dumps(judge))
        assert copied.answers(PROMPTS) == RIGHT
        copied.close()


@pytest.mark.filterwarnings("ignore:.* wishes not to be asked")
def test_after_a_pause_that_is_too_long_the_server_is_asked_again(judges: Any) -> None:
    full = Said(status=429, headers={"Retry-After": "0.5"})
    with endpoint(lambda n, _: full if n == 0 else Said()) as server:
        judge = judges(server.url, patience=replace(QUICK, concurrency=1, longest_wait_s=0.1))
        calls = 1
        while (answers := judge.answers(PROMPTS)) == [None] * len(PROMPTS):
            time.sleep(0.01)
            calls += 1
            assert calls < 1_000
    assert answers == RIGHT
    assert server.times[1] - server.times[0] >= 0.49
    assert judge.counts["given_up"] == (calls - 1) * len(PROMPTS)


def test_pauses_grow_and_repeat_themselves() -> None:
    patience = Patience(backoff_s=1.0, longest_wait_s=100.0, seed=1)
    pauses = [patience.pause_s("prompt", attempt) for attempt in range(5)]
    assert pauses == [patience.pause_s("prompt", attempt) for attempt in range(5)]
    assert all(0.5 * 2**n <= pause <= 1.5 * 2**n for n, pause in enumerate(pauses))
    assert len({patience.pause_s(str(one), 0) for one in range(20)}) == 20
    assert patience.pause_s("prompt", 30) == 100.0


def test_a_server_that_dies_and_returns(judges: Any) -> None:
    with endpoint() as server:
        judge = judges(
            server.url, patience=Patience(concurrency=2, timeout_s=20.0, backoff_s=0.001)
        )
        assert judge.answers(PROMPTS) == RIGHT
        port = server.server_port
    begun = time.monotonic()
    many = [judge_prompt("open the door", f"You see {n} balls.") for n in range(500)]
    assert judge.answers(many) == [None] * 500
    assert time.monotonic() - begun < 10.0
    assert judge.counts["unreachable"] < 20  # the rest was not asked
    with endpoint(port=port):
        assert judge.answers(PROMPTS) == RIGHT


def test_a_server_that_dies_in_the_middle_leaves_the_rest_without_an_answer(judges: Any) -> None:
    with endpoint(lambda n, _: Said(cut=n >= 2, status=200)) as server:
        judge = judges(server.url, patience=Patience(concurrency=1, attempts=2, backoff_s=0.0))
        answers = judge.answers(PROMPTS)
    assert answers == [*RIGHT[:2], None, None]


def test_answers_come_one_by_one(judges: Any) -> None:
    with endpoint(lambda n, _: Said(delay_s=0.4 * (n == 3))) as server:
        judge = judges(server.url, patience=Patience(concurrency=1, timeout_s=20.0))
        came = [(number, time.monotonic()) for number, _ in judge.stream(PROMPTS)]
    assert [number for number, _ in came] == [0, 1, 2, 3]
    assert came[3][1] - came[2][1] > 0.2


def test_chunked_answers_are_read(judges: Any) -> None:
    with endpoint(lambda *_: Said(chunked=True)) as server:
        assert judges(server.url).answers(PROMPTS) == RIGHT


def test_an_endpoint_that_has_moved_is_an_error(judges: Any) -> None:
    moved = Said(status=308, headers={"Location": "https://new.example/v1/models"})
    with (
        endpoint(lambda *_: moved, listing=moved) as server,
        pytest.raises(ValueError, match=r"it said 308: go to https://new\.example"),
    ):
        judges(server.url).answers(PROMPTS)


def test_a_prompt_longer_than_the_context_is_counted_and_said_once(judges: Any) -> None:
    body = b'{"error": {"message": "This model\'s maximum context length is 512 tokens."}}'
    with endpoint(
        lambda _, p: Said(status=400, body=body) if p in PROMPTS[:2] else Said()
    ) as server:
        judge = judges(server.url)
        with pytest.warns(UserWarning, match=r"longer than what 'tiny' reads .*512") as seen:
            assert judge.answers(PROMPTS) == [None, None, *RIGHT[2:]]
    assert len(seen) == 1
    assert judge.counts["too_long"] == judge.counts["given_up"] == 2


def test_a_refused_question_is_counted_and_said_once(judges: Any) -> None:
    with endpoint(lambda *_: Said(status=422, body=b'{"detail": "no max_tokens"}')) as server:
        judge = judges(server.url)
        with pytest.warns(UserWarning, match="refuses a question .422: no max_tokens"):
            assert judge.answers(PROMPTS) == [None] * len(PROMPTS)
    assert judge.counts["refused"] == judge.counts["requests"] == len(PROMPTS)


@pytest.mark.parametrize(
    ("sampling", "advice"),
    [
        ({"max_tokens": 64}, r"greater max_tokens in sampling= \(now 64\)"),
        ({"max_completion_tokens": 9}, r"greater max_completion_tokens in sampling= \(now 9\)"),
        ({}, r"greater max_tokens in sampling= \(now the endpoint's own\)"),
    ],
)
def test_an_unfinished_answer_is_not_asked_for_again_and_said_once(
    sampling: dict[str, int], advice: str, judges: Any
) -> None:
    half = Said(text="The key opens", finish="length")
    with endpoint(lambda _, prompt: half if prompt in PROMPTS[:2] else Said()) as server:
        judge = judges(server.url, sampling=sampling)
        with pytest.warns(UserWarning, match=rf"'tiny' did not finish.*{advice}") as seen:
            assert judge.answers(PROMPTS) == [None, None, *RIGHT[2:]]
        assert judge.answers(PROMPTS[:1]) == [None]
    assert len(seen) == 1
    counts = {one: number for one, number in judge.counts.items() if number}
    assert counts == {"requests": len(PROMPTS) + 1, "given_up": 3, "unfinished": 3}


# --- what can never work ----------------------------------------------------------------------


def test_nobody_at_the_first_contact_is_an_error(judges: Any) -> None:
    with endpoint() as server:
        url = server.url
    with pytest.raises(ValueError, match=r"Nobody answers at http.*ConnectError.*start the server"):
        judges(url).answers(PROMPTS)


def test_somebody_else_at_the_first_contact_is_an_error(judges: Any) -> None:
    with (
        endpoint(listing=Said(cut=True)) as server,
        pytest.raises(ValueError, match=r"Nobody answers at .*closed before the response"),
    ):
        judges(server.url).check()


@pytest.mark.parametrize("status", [404, 405, 429, 503])
def test_an_endpoint_without_a_list_of_models_is_asked(status: int, judges: Any) -> None:
    with endpoint(listing=Said(status=status)) as server:
        assert judges(server.url).answers(PROMPTS) == RIGHT


def test_nobody_waits_behind_the_last_attempt(judges: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    monkeypatch.setattr(Patience, "pause_s", lambda self, prompt, n: waited.append(n) or 0.0)
    with endpoint(lambda *_: Said(status=503), listing=Said(status=503)) as server:
        judge = judges(server.url)
        judge.check()
        assert waited == [0, 1]
        assert judge.answers(PROMPTS[:1]) == [None]
    assert waited == [0, 1, 0, 1]


def test_a_key_can_be_set_after_the_error(judges: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with endpoint() as server:
        judge = judges(server.url)
        server.listing = Said(status=401)
        with pytest.raises(ValueError, match="holds none; set it"):
            judge.answers(PROMPTS)
        server.listing = Said()
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        assert judge.answers(PROMPTS) == RIGHT
    assert {one["authorization"] for one in server.headers[1:]} == {f"Bearer {KEY}"}


def test_a_wrong_model_is_an_error(judges: Any) -> None:
    with (
        endpoint(models=("llama-8b", "qwen")) as server,
        pytest.raises(
            ValueError, match=r"Unknown model of http.* 'lama-8b'; did you mean 'llama-8b'"
        ),
    ):
        judges(server.url, "lama-8b").check()
    unknown = Said(status=404, body=b'{"error": {"message": "no such model"}}')
    with (
        endpoint(lambda *_: unknown, listing=Said(status=404)) as server,
        pytest.raises(ValueError, match=r"knows no model 'tiny'.*404: no such model"),
    ):
        judges(server.url).answers(PROMPTS)


def test_a_missing_or_refused_key_is_an_error(judges: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    denied = Said(status=401, body=f"wrong key {KEY}".encode())
    for server_says in ({"listing": denied}, {"script": lambda *_: denied}):
        with endpoint(**server_says) as server:
            with pytest.raises(ValueError, match="variable MY_KEY holds none; set it"):
                judges(server.url, key_variable="MY_KEY").answers(PROMPTS)
            with pytest.raises(ValueError, match="and none is sent"):
                judges(server.url, key_variable=None).answers(PROMPTS)
            monkeypatch.setenv("MY_KEY", KEY)
            with pytest.raises(ValueError, match="refuses the one in") as error:
                judges(server.url, key_variable="MY_KEY").answers(PROMPTS)
            monkeypatch.delenv("MY_KEY")
            assert KEY not in str(error.value)


def test_the_same_faults_later_on_do_not_stop_a_training(judges: Any) -> None:
    with endpoint(lambda n, _: Said(status=(200, 401, 404, 200)[n % 4])) as server:
        judge = judges(server.url, patience=Patience(concurrency=1))
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            assert judge.answers(PROMPTS) == [RIGHT[0], None, None, RIGHT[3]]
    assert len(seen) == 2


def test_the_only_model_need_not_be_named(judges: Any) -> None:
    with endpoint() as server:
        assert judges(server.url, None).answers(PROMPTS) == RIGHT
        assert judges(server.url, None).name.startswith(MODEL)
    with (
        endpoint(models=("a", "b")) as server,
        pytest.raises(ValueError, match=r"2 models \(a, b\)"),
    ):
        judges(server.url, None).check()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://there/v1", "http://", "http://x:9x/v1"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is no URL; wanted one such as"):
        EndpointJudge(url)


def test_a_url_with_a_secret_is_refused_without_showing_it() -> None:
    for url in (f"http://user:{KEY}@there/v1", f"http://there/v1?key={KEY}"):
        with pytest.raises(ValueError, match="keys come from the environment only") as error:
            EndpointJudge(url)
        assert KEY not in str(error.value)


def test_impatience_is_refused() -> None:
    with pytest.raises(ValueError, match="concurrency is 0; wanted 1 or more"):
        Patience(concurrency=0)
    with pytest.raises(ValueError, match="wanted a time above 0"):
        Patience(timeout_s=0.0)


# --- the key ----------------------------------------------------------------------------------


def test_the_key_is_sent_and_is_found_nowhere_else(
    judges: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    echo = Said(status=422, body=f"you sent {KEY}".encode())

    def script(number: int, prompt: str) -> Said:
        return echo if prompt == PROMPTS[3] else Said(text=f"{KEY}\nANSWER: yes")

    with endpoint(script) as server:
        judge = judges(server.url)
        cached = Cached(judge, tmp_path / "answers.db")
        with pytest.warns(UserWarning, match="refuses a question") as seen:
            answers = cached.answers(PROMPTS)
        copied = pickle.loads(pickle.dumps(cached))
        assert copied.answers(PROMPTS[:1]) == answers[:1]
        copied.judge.close()
    assert {one["authorization"] for one in server.headers} == {f"Bearer {KEY}"}
    pieces = [pickle.dumps(cached), repr(cached), repr(vars(judge)), judge.name, answers]
    pieces += [judge.counts, [str(one.message) for one in seen], caplog.text, capfd.readouterr()]
    pieces += [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert len(pieces) == 10
    assert not [one for one in pieces if KEY in repr(one)]


@pytest.mark.parametrize("key", ["es", "s", "ANSWER", "1234567", "12345678"])
def test_a_dummy_key_does_not_blot_answers(
    key: str, judges: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with endpoint(lambda *_: Said(text=f"The key is {key}.\nANSWER: yes")) as server:
        (answer,) = judges(server.url).answers(PROMPTS[:1])
    assert answer == f"The key is {key if len(key) < 8 else '***'}.\nANSWER: yes"
    assert server.headers[-1]["authorization"] == f"Bearer {key}"


def test_a_key_that_can_be_none_is_not_shown(judges: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY} ümlaut\n")
    with endpoint() as server, pytest.raises(ValueError, match="OPENAI_API_KEY holds") as error:
        judges(server.url).check()
    assert KEY not in str(error.value)


@pytest.mark.parametrize(("variable", "sent"), [(None, "none"), ("MY_KEY", "mine")])
def test_only_the_named_key_is_sent(
    variable: str | None, sent: str, judges: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "mine")
    for name in ("OPENAI_API_KEY", *OF_OPENAI[:3]):
        monkeypatch.setenv(name, KEY)
    custom = f"X-Team: {KEY}\nauthorization: Bearer {KEY}\nUser-Agent: {KEY}\nOpenAI-Beta: {KEY}"
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", custom)
    with endpoint() as server:
        assert judges(server.url, key_variable=variable).answers(PROMPTS) == RIGHT
    assert len(server.headers) == 1 + len(PROMPTS)
    assert KEY not in str(server.headers)
    assert {one["authorization"] for one in server.headers} == {f"Bearer {sent}"}
    names = {name for one in server.headers for name in one}
    assert not names & {"openai-organization", "openai-project", "openai-beta", "x-team"}
    assert os.environ["OPENAI_CUSTOM_HEADERS"] == custom


# --- processes --------------------------------------------------------------------------------


def test_a_copy_knows_that_the_endpoint_works(judges: Any) -> None:
    with endpoint() as server:
        judge = judges(server.url)
        judge.answers(PROMPTS)
        port = server.server_port
    copied = pickle.loads(pickle.dumps(judge))
    assert copied.counts["requests"] == 0
    assert copied.answers(PROMPTS) == [None] * len(PROMPTS)  # gone just now: no error
    with endpoint(port=port):
        assert copied.answers(PROMPTS) == RIGHT
    copied.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_asks_by_itself(judges: Any) -> None:
    with endpoint() as server:
        judge = judges(server.url)
        judge.answers(PROMPTS)
        child = os.fork()
        if child == 0:
            os._exit(0 if judge.answers(PROMPTS) == RIGHT else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert judge.answers(PROMPTS) == RIGHT


# --- the wire ---------------------------------------------------------------------------------

MESSAGES = {
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi": (200, b"hi", True),
    b"HTTP/1.1 200 OK\r\ncontent-length:2\r\nConnection: close\r\n\r\nhi": (200, b"hi", False),
    b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n": (200, b"", False),
    b"HTTP/1.1 204 No Content\r\n\r\n": (204, b"", True),
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 E\r\nContent-Length: 0\r\n\r\n": (500, b"", True),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\nA\r\n0123456789\r\n0\r\n"
    b"Trailer: t\r\n\r\n": (200, b"hi0123456789", True),
}


@pytest.mark.parametrize("message", MESSAGES)
def test_a_response_is_read_when_its_last_byte_is_there(message: bytes) -> None:
    status, body, stays = MESSAGES[message]
    assert all(read_message(message[:end]) is None for end in range(len(message)))
    read = read_message(message)
    assert read is not None
    assert (read.status, read.body, read.stays) == (status, body, stays)


def test_a_response_without_a_length_ends_with_the_connection() -> None:
    message = b"HTTP/1.1 200 OK\r\n\r\nhi"
    assert read_message(message) is None
    read = read_message(message, ended=True)
    assert read is not None
    assert (read.body, read.stays) == (b"hi", False)


@pytest.mark.parametrize(
    "message", [b"SSH-2.0", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 x\r\n\r\n", b"\x16\x03\x01"]
)
def test_what_is_no_response_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"no response|invalid literal"):
        read_message(message)
