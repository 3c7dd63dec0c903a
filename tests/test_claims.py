"""The runner of claims, over a package of fake ones; the quick parts of those of seconds."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.claims.__main__ import main
from benchmarks.claims.claim import ClaimResult, Comparison, Row, closing_line, report

PACKAGE = "fake_claims"

GOOD = """
from benchmarks.claims.claim import ClaimResult, Row
KEY = "{key}"
CLAIM = "{claim}"
def run(seed, quick):
    rows = [Row("share of seeds", {measured} + 0.01 * seed, ">=", 0.9)]
    controls = [Row("random rater", 0.2, "<=", 0.5)]
    return ClaimResult(KEY, CLAIM, seed, rows, controls, {{"share": {measured}, "runs": 4.0}})
"""

MODULES = {
    "alpha": GOOD.format(key="alpha", claim="Alpha learns.", measured=0.95),
    "beta": GOOD.format(key="beta", claim="Beta learns.", measured=0.5),
    "gamma": """
KEY, CLAIM = "gamma", "Gamma learns."
def run(seed, quick):
    raise ValueError("the bottom fell out")
""",
    "delta": """
import a_package_that_is_missing
""",
    "helper": "NOTHING = 1",
    "claim": "raise RuntimeError('not a claim, never imported')",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of claims: one holds, one does not, one breaks, one cannot be imported."""
    folder = tmp_path / PACKAGE
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


def run(*arguments: str) -> int:
    """The exit status over the fake claims."""
    return main(arguments, PACKAGE)


def refused(*arguments: str) -> int | str | None:
    """The exit status where argparse ends the program."""
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    return end.value.code


def result(measured: float = 1.0, control: float = 0.0) -> ClaimResult:
    """A result by hand."""
    rows, controls = [Row("gain", measured, ">", 0.5)], [Row("without", control, "<=", 0.1)]
    return ClaimResult("key", "It works.", 3, rows, controls, {"gain": measured}, wall_s=41.2)


@pytest.mark.parametrize(
    ("measured", "comparison", "threshold", "holds"),
    [
        (1.0, ">", 1.0, False),
        (1.0, ">=", 1.0, True),
        (1.0, "<", 1.0, False),
        (1.0, "<=", 1.0, True),
        (0.0, "==", 0.0, True),
        (float("nan"), "<=", 1.0, False),
        (float("nan"), ">=", 1.0, False),
    ],
)
def test_a_row_holds_as_its_comparison_says(
    measured: float, comparison: Comparison, threshold: float, holds: bool
) -> None:
    assert Row("gain", measured, comparison, threshold).holds is holds


def test_a_result_holds_if_rows_and_controls_do() -> None:
    assert result().holds
    assert not result(measured=0.4).holds
    assert not result(control=0.4).holds


def test_the_last_line_is_for_machines() -> None:
    assert closing_line(result(measured=0.87654)) == "key holds=true wall_s=41 gain=0.8765"
    assert report(result(control=2.0)).splitlines()[-1] == "key holds=false wall_s=41 gain=1"


def test_the_table_shows_claim_measurement_and_threshold() -> None:
    lines = report(result(measured=0.4)).splitlines()
    assert lines[0] == "key (seed 3): It works."
    assert lines[3].split() == ["claim", "gain", "0.4", ">", "0.5", "NO"]
    assert lines[4].split() == ["control", "without", "0", "<=", "0.1", "yes"]


def test_results_that_say_too_little_are_refused() -> None:
    row = Row("gain", 1.0, ">", 0.5)
    with pytest.raises(ValueError, match="1 rows and 0 controls"):
        ClaimResult("key", "It works.", 0, [row], [])
    with pytest.raises(ValueError, match="'a gain'; begin with a letter"):
        ClaimResult("key", "It works.", 0, [row], [row], {"a gain": 1.0})
    with pytest.raises(ValueError, match="give one of < <= == >= >"):
        Row("gain", 1.0, "≥", 0.5)  # type: ignore[arg-type]


@pytest.mark.usefixtures("package")
def test_one_claim_that_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("alpha", "--seed", "2") == 0
    out = capsys.readouterr().out
    assert "alpha (seed 2): Alpha learns." in out
    assert out.splitlines()[-1] == "alpha holds=true wall_s=0 share=0.95 runs=4"


@pytest.mark.usefixtures("package")
def test_one_claim_that_does_not_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("beta", "--seeds", "2", "--quick") == 1
    out = capsys.readouterr().out
    assert "(seed 0, quick: a part of the experiment)" in out
    assert "(seed 1, quick: a part of the experiment)" in out
    assert out.splitlines()[-1] == "beta holds=false wall_s=0 share=0.5 runs=4"


@pytest.mark.usefixtures("package")
def test_an_error_inside_a_claim_is_not_taken_for_a_wrong_command() -> None:
    with pytest.raises(ValueError, match="the bottom fell out"):
        run("gamma")
    with pytest.raises(ImportError, match="a_package_that_is_missing"):
        run("delta")


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["alpa"], "did you mean 'alpha'"),
        (["helper"], "helper is no claim"),
        ([], "Give a KEY, --list or --all"),
        (["alpha", "--all"], "one of these only"),
        (["alpha", "--seeds", "0"], "--seeds 0; give 1 or more"),
        (["alpha", "--speed"], "--speed"),
    ],
)
def test_wrong_usage_exits_with_two_and_says_why(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(*arguments) == 2
    assert sentence in capsys.readouterr().err


def test_a_file_of_another_name_than_its_key_is_refused(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / "omega.py").write_text(MODULES["alpha"])
    assert refused("omega") == 2
    assert "KEY 'alpha'; a claim's file is named by its key" in capsys.readouterr().err


@pytest.mark.usefixtures("package")
def test_the_list_names_every_claim(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list") == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["alpha", "beta", "delta", "gamma"]
    assert lines[0][1] == "Alpha learns."
    assert "a_package_that_is_missing" in lines[2][1]


@pytest.mark.usefixtures("package")
def test_all_writes_every_run_and_keeps_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results" / "claims.json"
    assert run("--all", "--seeds", "2", "--results", str(path)) == 1
    assert "2 of 8 runs hold; see" in capsys.readouterr().out
    assert run("--all", "--seed", "1", "--quick", "--results", str(path)) == 1
    assert "1 of 4 runs hold (quick); see" in capsys.readouterr().out
    claims = json.loads(path.read_text())["claims"]
    assert sorted(claims) == ["alpha", "beta", "delta", "gamma"]
    runs = claims["alpha"]["runs"]
    assert [(one["seed"], one["quick"]) for one in runs] == [(0, False), (1, False), (1, True)]
    assert runs[0]["holds"]
    assert runs[0]["rows"][0] == {
        "name": "share of seeds",
        "measured": 0.95,
        "comparison": ">=",
        "threshold": 0.9,
        "holds": True,
    }
    assert runs[0]["figures"] == {"share": 0.95, "runs": 4.0}
    assert {"commit", "python", "numpy", "torch"} <= runs[0]["made_by"].keys()
    assert claims["alpha"]["claim"] == "Alpha learns."
    assert claims["gamma"]["runs"][0]["error"] == "ValueError: the bottom fell out"
    assert not claims["delta"]["runs"][0]["holds"]
    assert [one.name for one in path.parent.iterdir()] == ["claims.json"]


def test_ctrl_c_keeps_what_had_finished(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / "beta.py").write_text(
        'KEY, CLAIM = "beta", "Beta."\ndef run(seed, quick):\n    raise KeyboardInterrupt\n'
    )
    path = tmp_path / "claims.json"
    assert run("--all", "--results", str(path)) == 130
    assert list(json.loads(path.read_text())["claims"]) == ["alpha"]
    assert "Stopped." in capsys.readouterr().err


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("content", "sentence"),
    [("{", "cannot be read"), ("[]", "cannot be read"), ('{"schema_version": 9}', "version 9")],
)
def test_a_results_file_that_cannot_be_added_to_is_left_alone(
    content: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "claims.json"
    path.write_text(content)
    assert refused("--all", "--results", str(path)) == 2
    assert sentence in capsys.readouterr().err
    assert path.read_text() == content


@pytest.mark.usefixtures("package")
def test_numbers_that_json_lacks_are_written_as_words(package: Path, tmp_path: Path) -> None:
    (package / "alpha.py").write_text(MODULES["alpha"].replace("0.95", "float('nan')"))
    path = tmp_path / "claims.json"
    run("--all", "--results", str(path))
    first = json.loads(path.read_text())["claims"]["alpha"]["runs"][0]
    assert first["rows"][0]["measured"] == "nan"
    assert not first["holds"]


def test_every_claim_of_this_repository_can_be_run() -> None:
    """In a process of its own, as a user starts it."""
    command = [sys.executable, "-m", "benchmarks.claims", "--list"]
    root = Path(__file__).parents[1]
    paths = os.pathsep.join(str(root / folder) for folder in (".", "agents", "envs"))
    done = subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be run here" not in done.stdout


@pytest.mark.parametrize("key", ["heron", "p3o", "pref_grpo", "ranking_accuracy", "spo"])
def test_the_quick_part_of_a_claim_holds(key: str) -> None:
    found = importlib.import_module(f"benchmarks.claims.{key}").run(seed=0, quick=True)
    assert found.holds, report(found)
