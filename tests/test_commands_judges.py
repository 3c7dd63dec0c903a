"""Runs whose judge is an endpoint or a folder, on the command line: what they need it for."""

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from prefgym.__main__ import main
from prefgym.annotation.labels import ABOUT
from prefgym.checkpoints import write_json
from prefgym_agents import commands, runs
from tests.endpoint_server import MODEL, endpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore:You have specified a mini-batch size"),
    pytest.mark.filterwarnings("ignore:Intrinsic. no label has come"),
    pytest.mark.filterwarnings("ignore:The annotator's judge fails"),
]
WORDS = [
    "train", "intrinsic", "--env", "prefgym/DoorKey-5x5-v0", "--env-args", "max_episode_steps",
    "20", "--goal", "open the door", "--envs", "1", "--quiet",
]  # fmt: skip
TURN = 128
"""Steps between two updates."""


@pytest.fixture(autouse=True, scope="module")
def quickly() -> Iterator[None]:
    """Runs end with one episode instead of twenty, and without a drawing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        patch.setattr(commands, "true_returns", partial(commands.true_returns, episodes=1))
        patch.setattr(runs, "_draw", lambda folder: None)
        yield


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Return a run that an endpoint judged, which is away now, and that endpoint's port."""
    folder = tmp_path_factory.mktemp("runs") / "judged"
    with endpoint() as server:
        asked = [*WORDS, "--judge", f"openai:{server.url}", "--steps", str(TURN)]
        assert main([*asked, "--out", str(folder)]) == 0
    return folder, server.server_port


def changed(run: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a run that was asked to be something else."""
    shutil.copytree(run, folder)
    document = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**document, "config": document["config"] | changes})
    return folder


def test_a_run_remembers_which_model_judges(judged: tuple[Path, int]) -> None:
    folder, port = judged
    word = f"openai:{MODEL}@http://127.0.0.1:{port}/v1"
    assert runs.read_config(folder)["judge"] == word
    assert json.loads((folder / "summary.json").read_text())["rater"] == word
    about = json.loads((folder / "annotations" / ABOUT).read_text())["about"]
    assert about.startswith(f"{MODEL} ")


@pytest.mark.parametrize("judge", ["openai:http://127.0.0.1:9", "openai:m@there.invalid", "path:x"])
def test_a_policy_is_evaluated_without_its_judge(
    judged: tuple[Path, int], judge: str, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for folder in (judged[0], changed(judged[0], run_folder / "run", judge=judge)):
        assert main(["eval", str(folder), "--episodes", "2"]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert "mean true return" in told[0]


@pytest.mark.parametrize("models", [(), ("other", MODEL)])
def test_a_run_goes_on_without_its_judge_and_asks_no_other(
    judged: tuple[Path, int], models: tuple[str, ...], run_folder: Path
) -> None:
    folder = changed(judged[0], run_folder / "run", steps=2 * TURN)
    words = ["train", "--resume", str(folder), "--quiet"]
    if not models:
        assert main(words) == 0
    else:
        with endpoint(port=judged[1], models=models) as server:
            assert main(words) == 0
        assert {asked["model"] for asked in server.asked} <= {MODEL}
    assert json.loads((folder / "summary.json").read_text())["steps"] == 2 * TURN


@pytest.mark.parametrize(
    ("models", "model", "sentence"),
    [((MODEL,), "other@", f"There are: {MODEL}"), ((MODEL, "other"), "", "name the one to ask")],
)
def test_no_run_begins_with_a_model_that_is_not_there(
    models: tuple[str, ...],
    model: str,
    sentence: str,
    run_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with endpoint(models=models) as server:
        assert main([*WORDS, "--judge", f"openai:{model}{server.url}"]) == 2
        assert not server.asked
    assert sentence in capsys.readouterr().err
    assert not list(run_folder.iterdir())
