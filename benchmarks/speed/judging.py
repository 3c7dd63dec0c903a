"""What asking costs: 10,000 distinct captions at an endpoint that answers each in 20 ms.

    python -m benchmarks.speed.judging                       # a minute

32 questions are with the endpoint at once, so that it cannot give 10,000 answers in less than
10,000 / 32 · 20 ms = 6.25 s; the ratio is the time that it took over this limit. Everything that
comes before a label is in it: the prompts, the client, the cache on disk, the parser. The endpoint
is a process of its own that does next to nothing. The second time every answer is in the cache.

What limits ours: the processor time of one question, nearly all of which the package openai spends
on building the request. openai's standard connections would more than double it, and the limit
could not be kept by one process: the benchmark measures them too. Seconds of processor time do not
depend on what else the machine does; the ratio does, and wants two free cores.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.provenance import ROOT, provenance, write_result
from prefgym.judges import Cached, EndpointJudge
from prefgym.judges import client as client_of_openai
from prefgym.raters.language import LanguageRater

CONCURRENCY, DELAY_S, WANTED = 32, 0.020, 1.10
WARM_UP = 64


@contextmanager
def endpoint() -> Iterator[str]:
    """The URL of a server in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.speed.judging_server", str(DELAY_S)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


def measure(captions: int, standard: bool = False) -> dict[str, float]:
    """Seconds for a rater's labels of distinct captions, anew and from the cache.

    Args:
        captions: how many.
        standard: whether through openai's standard connections.
    """
    asked = [f"You see {number} doors." for number in range(captions)]
    ours = mock.patch.object(client_of_openai, "suits", return_value=not standard)
    with ours, endpoint() as url, tempfile.TemporaryDirectory() as folder:
        judge = EndpointJudge(url, "m", key_variable=None)
        rater = LanguageRater(Cached(judge, Path(folder) / "answers.db"), "open the door")
        rater.helpful([f"You see {number} keys." for number in range(WARM_UP)])
        seconds: dict[str, float] = {}
        for which in ("anew", "cached"):
            begun, busy = time.perf_counter(), time.process_time()
            labels = rater.helpful(asked)
            seconds[which] = time.perf_counter() - begun
            seconds[f"{which}, processor"] = time.process_time() - busy
            assert labels.sum() == captions
        assert judge.counts["requests"] == captions + WARM_UP
        judge.close()
    return seconds


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    limit_s = arguments.captions / CONCURRENCY * DELAY_S
    rounds = [measure(arguments.captions) for _ in range(arguments.rounds)]
    content: dict[str, Any] = {
        **provenance("benchmarks.speed.judging", ("openai", "httpx2")),
        "captions": arguments.captions,
        "concurrency": CONCURRENCY,
        "delay_s": DELAY_S,
        "limit_s": limit_s,
        "ratio": statistics.median(one["anew"] for one in rounds) / limit_s,
        "rounds": rounds,
        "standard_connections": measure(arguments.captions, standard=True),
    }
    path = write_result("speed_judging", content)
    busy_ms = statistics.median(one["anew, processor"] for one in rounds) / arguments.captions * 1e3
    print(f"written to {path.relative_to(ROOT)}")
    print(f"a question takes {busy_ms:.2f} ms of one processor")
    print(
        f"judging ratio={content['ratio']:.3f} wanted<={WANTED} holds={content['ratio'] <= WANTED}"
    )


if __name__ == "__main__":
    main()
