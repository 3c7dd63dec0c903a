"""The command line: runs, what survives of them, and one clear sentence for every mistake."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from prefgym import checkpoints
from prefgym.__main__ import USAGE, main
from prefgym.comparisons import PreferenceDataset
from prefgym_agents import commands, runs

SMALL = [
    "train", "reward-learning", "--env", "prefgym/Pendulum-v0", "--labels", "24", "--envs", "4",
    "--steps", "6000", "--learner.sessions", "4", "--learner.epochs", "5", "--quiet",
    "--checkpoint-every", "1000",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main([*SMALL, "--out", str(folder)]) == 0
    return folder


def same(first: Path, second: Path) -> None:
    """Fail unless two runs ended with the same parameters and preferences, bit for bit."""
    trees = [checkpoints.load(latest(folder))["state"] for folder in (first, second)]
    for part in ("learner", "policy"):
        ours, theirs = (flat(tree[part]) for tree in trees)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            if not key.startswith("/random/python"):  # beartype draws from it, in tests only
                assert np.array_equal(value, theirs[key]), key
    answers = [
        PreferenceDataset.open(folder / "preferences").comparisons for folder in (first, second)
    ]
    assert np.array_equal(answers[0].query_id, answers[1].query_id)
    assert np.array_equal(answers[0].label, answers[1].label)
    for name, value in answers[0].a.arrays().items():
        assert np.array_equal(value, answers[1].a.arrays()[name]), name


def latest(folder: Path) -> Path:
    found = runs.latest_checkpoint(folder)
    assert found is not None
    return found


def flat(tree: object, path: str = "") -> dict[str, np.ndarray]:
    if isinstance(tree, dict):
        return {k: v for key, one in tree.items() for k, v in flat(one, f"{path}/{key}").items()}
    if isinstance(tree, list | tuple):
        return {k: v for i, one in enumerate(tree) for k, v in flat(one, f"{path}/{i}").items()}
    return {path: np.asarray(tree)}


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end with one episode instead of twenty, and without a drawing."""
    monkeypatch.setattr(commands, "true_returns", partial(commands.true_returns, episodes=1))
    monkeypatch.setattr(runs, "_draw", lambda folder: None)


def test_a_run_leaves_all_its_files(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"config.json", "metrics.csv", "summary.json", "learning_curve.png", "tb"} <= names
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["labels"] == 24
    assert summary["steps"] >= 6000
    assert any((finished / "tb").iterdir())
    assert len(list((finished / "checkpoints").iterdir())) == 2


@pytest.mark.usefixtures("quickly")
def test_factors_and_margins_reach_the_rater_of_any_learner(run_folder: Path) -> None:
    for learner, rater in (("heron", []), ("reward-learning", ["--rater", "heron"])):
        out = run_folder / learner
        words = [
            "train", learner, *rater, "--factors", "-speed2,-torque2", "--margins", "1", "0.25",
            "--envs", "2", "--steps", "1100", "--labels", "30", "--learner.start-steps", "500",
            "--quiet", "--out", str(out),
        ]  # fmt: skip
        assert main(words) == 0
        asked = PreferenceDataset.open(out / "preferences")
        assert asked.meaning == "hierarchy"
        assert 10 < len(asked) <= 30
        assert asked.comparisons.a.steps == (1 if learner == "heron" else 50)


@pytest.mark.parametrize("after_steps", [0, 2000])
def test_a_killed_run_resumes_to_the_same_bits(
    finished: Path, run_folder: Path, after_steps: int
) -> None:
    folder = run_folder / "killed"
    words = [sys.executable, "-m", "prefgym", *SMALL, "--out", str(folder)]
    process = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wait_for(folder, after_steps)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "summary.json").exists()
    assert main(["train", "--resume", str(folder), "--quiet"]) == 0
    same(finished, folder)
    ours, theirs = ((one / "metrics.csv").read_text().splitlines() for one in (finished, folder))
    assert [row.split(",")[0] for row in ours] == [row.split(",")[0] for row in theirs]


def test_a_killed_run_on_text_resumes_to_the_same_bits_from_the_model_it_made(
    run_folder: Path,
) -> None:
    pytest.importorskip("transformers")
    words = [
        "train", "direct", "--env", "prefgym/TextCopy-v0", "--labels", "60", "--steps", "2000",
        "--envs", "32", "--learner.rounds", "3", "--learner.epochs", "2", "--quiet",
        "--checkpoint-every", "300",
    ]  # fmt: skip
    whole, killed = run_folder / "whole", run_folder / "killed"
    command = [sys.executable, "-m", "prefgym", *words, "--out", str(killed)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wait_for(killed, 300)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "summary.json").exists()
    moved = killed.rename(run_folder / "moved")
    assert main(["train", "--resume", str(moved), "--quiet"]) == 0
    assert main([*words, "--out", str(whole)]) == 0
    same(whole, moved)
    assert main(["eval", str(moved), "--episodes", "16"]) == 0
    rows = run_folder / "rows.jsonl"
    convert = ["data", "convert", str(moved / "preferences"), str(rows), "--format", "trl"]
    assert main(convert) == 0
    row = json.loads(rows.read_text().splitlines()[0])
    assert set(row["prompt"]) <= set("abx ")


def test_a_tiny_language_model_is_pretrained_and_used(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    out = run_folder / "model"
    words = ["text", "pretrain", "--env", "prefgym/TextCopy-v0", "--out", str(out)]
    assert main([*words, "--demonstrations", "256", "--epochs", "1"]) == 0
    assert "256 demonstrations" in capsys.readouterr().out
    assert transformers.AutoModelForCausalLM.from_pretrained(out).num_parameters() < 1_000_000
    assert transformers.AutoTokenizer.from_pretrained(out).pad_token == "<pad>"
    assert main(words) == 2
    assert "is not empty" in capsys.readouterr().err
    few = run_folder / "few"
    assert main([*words[:-1], str(few), "--demonstrations", "5", "--epochs", "1"]) == 0


def wait_for(folder: Path, steps: int) -> None:
    """Until a run has logged a step (0), or written a checkpoint of at least ``steps``."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = runs.latest_checkpoint(folder)
        if steps == 0 and any((folder / "preferences").glob("*.parquet")):
            return
        if steps and found is not None and int(found.name.partition("-")[2]) >= steps:
            return
        time.sleep(0.005)
    raise AssertionError("the run did not get that far in two minutes")


def test_ctrl_c_saves_and_the_run_goes_on_to_the_same_bits(
    finished: Path, run_folder: Path
) -> None:
    folder = run_folder / "stopped"
    words = [sys.executable, "-m", "prefgym", *SMALL, "--out", str(folder)]
    process = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wait_for(folder, 0)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert latest(folder)
    assert main(["train", "--resume", str(folder), "--quiet"]) == 0
    same(finished, folder)


WATCHED = [
    "rlif --env prefgym/Pendulum-v0 --steps 560 --supervisor.steps 2",
    "rlif --env prefgym/Pendulum-v0 --steps 560 --supervisor.rule random --algorithm SAC",
    "rlif --env prefgym/PitGrid-v0 --steps 600 --supervisor.expert numpy:zeros_like",
    "rlif --env prefgym/TextCopy-v0 --steps 600 --supervisor.expert start",
    "imitation --env prefgym/Pendulum-v0 --steps 2500 --labels 300",
    "imitation --env prefgym/Pendulum-v0 --steps 2500 --preset dagger",
    "imitation --env prefgym/Pendulum-v0 --steps 2500 --preset hg_dagger",
    "intrinsic --env prefgym/DoorKey-5x5-v0 --goal door --steps 1100"
    " --env-args max_episode_steps 20",
    "intrinsic --env prefgym/TextPolite-v0 --goal thanks --steps 700",
]


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("words", WATCHED)
def test_who_watches_or_judges_can_be_said_on_the_command_line(
    words: str, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["train", *words.split(), "--envs", "8", "--out", str(run_folder)]
    assert main(asked) == 0
    assert json.loads((run_folder / "summary.json").read_text())["steps"] >= 560
    assert main(["train", "--resume", str(run_folder), "--quiet"]) == 0
    assert main(["eval", str(run_folder), "--episodes", "2"]) == 0
    assert "mean true return" in capsys.readouterr().out


def test_a_finished_run_resumed_changes_nothing(finished: Path, run_folder: Path) -> None:
    copy = run_folder / "copy"
    shutil.copytree(finished, copy)
    assert main(["train", "--resume", str(copy), "--quiet"]) == 0
    same(finished, copy)


def test_eval_says_the_same_twice(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for _ in range(2):
        assert main(["eval", str(finished), "--episodes", "5"]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert "5 fresh episodes" in told[0]


def test_envs_lists_every_id(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs"]) == 0
    shown = capsys.readouterr().out
    assert "Hopper" in shown
    assert "partial-return" in shown


def test_data_inspect_reads_what_a_run_kept(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "inspect", str(finished / "preferences")]) == 0
    assert "24" in capsys.readouterr().out


def test_data_convert_writes_another_format(finished: Path, run_folder: Path) -> None:
    target = run_folder / "out.npz"
    words = ["data", "convert", str(finished / "preferences"), str(target), "--format", "cpl"]
    assert main(words) == 0
    assert np.load(target, allow_pickle=False)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "train"),
        (["train"], "needs a learner"),
        (["train", "reward-lerning"], "reward-learning"),
        ([*SMALL[:2], "--env", "prefgym/Pendulun-v0"], "Pendulum"),
        ([*SMALL[:2], "--rater", "partial-retrun"], "partial-return"),
        ([*SMALL[:2], "--env", "prefgym/Reacher-v0", "--rater", "regret"], "value source"),
        (["train", "heron", "--factors", "-angel2,-speed2"], "angle2"),
        (["train", "heron", "--margins", "1", "0.5"], "there are 3 factors"),
        (["train", "heron", "--rater", "noisy"], "rater='heron'"),
        ([*SMALL[:2], "--factors", "-angle2"], "add --rater heron"),
        (["oracle"], "train --env"),
        (["oracle", "train", "--env", "prefgym/Delivery-v0"], "continuous"),
        (["bench"], "models"),
        (["bench", "models", "--models", "btt"], "bt"),
        ([*SMALL[:2], "--rater", "game"], "Condorcet"),
        ([*SMALL[:2], "--rater-args", "bta", "1"], "beta"),
        ([*SMALL[:2], "--preset", "pebbel"], "pebble"),
        ([*SMALL[:2], "--algorithm", "PPP"], "PPO"),
        ([*SMALL[:2], "--segment-steps", "500"], "longer than an episode"),
        (["train", "--resume", "nowhere"], "holds no run"),
        (["eval", "nowhere"], "holds no run"),
        (["data", "inspect", "nowhere"], "nowhere"),
        (["data"], "inspect DIR"),
        (["text"], "pretrain --env"),
        (["text", "pretrain", "--env", "prefgym/TextCopy-v0", "--out", "x", "--width", "30"], "30"),
        (["text", "pretrain", "--env", "prefgym/Hopper-v0", "--out", "x"], "writes no text"),
        (
            ["train", "direct", "--env", "prefgym/TextCopy-v0", "--language-model", "x"],
            "no language model",
        ),
        (["train", "direct", "--env", "prefgym/TextCopy-v0", "--algorithm", "SAC"], "GRPO"),
        (
            ["train", "direct", "--env", "prefgym/Hopper-v0", "--language-model", "x"],
            "writes no text",
        ),
        (["train", "direct", "--preset", "cpl"], "reads a label as 'regret'"),
        (["envs", "please"], "takes no arguments"),
        (["train", "rlif", "--env", "prefgym/Reacher-v0"], "Pendulum"),
        (["train", "rlif", "--supervisor.expert", "forty"], "is no grade"),
        (["train", "rlif", "--supervisor.expert", "41"], "has no expert of grade 41"),
        (["train", "rlif", "--algorithm", "PPO"], "cannot leave out"),
        (["train", "intrinsic"], "The goal is ''"),
        (["train", "intrinsic", "--goal", "x", "--judge", "me"], "Unknown judge 'me'"),
        (["train", "intrinsic", "--goal", "x", "--judge", "path:none"], "holds no language model"),
        (
            ["train", "intrinsic", "--goal", "x", "--judge", "openai:m@http://127.0.0.1:9/v1"],
            "127.0.0.1:9",
        ),
        (
            ["train", "intrinsic", "--env", "prefgym/Pendulum-v0", "--goal", "x"],
            "tells no captions",
        ),
    ],
)
def test_mistakes_get_one_sentence_and_status_two(
    words: list[str], sentence: str, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("prefgym: ")
    assert sentence in told
    assert "Traceback" not in told
    assert not list(run_folder.iterdir())


def test_the_usage_lists_every_command_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {line.split()[1] for line in USAGE.splitlines() if line.startswith("  prefgym ")}
    assert main(["nothing-like-any"]) == 2
    listed = capsys.readouterr().err.partition("There are: ")[2].strip().rstrip(".")
    assert shown == set(listed.split(", "))


def test_a_run_folder_is_not_written_over(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--out", str(finished)]) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_a_run_of_another_version_is_refused(
    finished: Path, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = run_folder / "copy"
    shutil.copytree(finished, copy)
    document = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**document, "format": 99}))
    assert main(["train", "--resume", str(copy)]) == 2
    assert "format 99" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_named(
    finished: Path, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = run_folder / "copy"
    shutil.copytree(finished, copy)
    arrays = latest(copy) / checkpoints.ARRAYS
    arrays.write_bytes(arrays.read_bytes()[:100])
    assert main(["train", "--resume", str(copy), "--quiet"]) == 2
    assert "damaged" in capsys.readouterr().err
