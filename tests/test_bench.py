"""The benchmark of preference models: its laws, and what it says to mistakes."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from prefgym.losses import hinge, logistic, ties
from prefgym.metrics import accuracy, sigmoid
from prefgym.models.presets import MODELS
from prefgym_agents import commands
from prefgym_agents.bench import cells, command, data, policies, report, running, scores
from prefgym_agents.bench.cells import SCORES, Row
from prefgym_agents.bench.fitting import expected_label, fitted
from prefgym_agents.bench.policies import led_to
from prefgym_agents.bench.suite import FULL, QUICK, TASKS, Cell, Size, Suite, Task, selected
from prefgym_agents.reward_learning import RewardLearning

SIZE = Size(
    train_pairs=300, test_pairs=200, members=1, hidden=(8,), gradient_steps=8, batch_pairs=100,
    options=4, pools=2, best_of=16, starts=3, candidates=14, candidate_steps=20,
)  # fmt: skip
SHORT = Task(
    "prefgym/Pendulum-v0", "learn", 10, lanes=10, steps=1_000, policy_steps=2_500,
    policy_labels=40, reference=-119.0,
)  # fmt: skip


def small(
    tasks: tuple[str, ...] = ("random-mdps",),
    raters: tuple[str, ...] = ("partial-return",),
    models: tuple[str, ...] = ("bt",),
    seeds: int = 1,
) -> Suite:
    suite = selected(QUICK, tasks, raters, models, seeds, policy_steps=0)
    short = {name: replace(one, steps=1_000, fit=()) for name, one in suite.tasks.items()}
    return replace(suite, tasks=short, size=SIZE)


def done(suite: Suite, folder: Path, **how: object) -> dict[str, bytes]:
    """Run a suite to its end; returns the bytes of every file."""
    running.prepare(folder, suite)
    running.run(suite, folder, quiet=True, **how)  # type: ignore[arg-type]
    report.write(suite, running.rows(suite, folder), folder)
    return {
        str(one.relative_to(folder)): one.read_bytes()
        for one in sorted(folder.rglob("*"))
        if one.is_file()
    }


@pytest.fixture
def own_module(run_folder: Path) -> Iterator[str]:
    """Write a module of a user's own into the working directory, and return its name."""
    (run_folder / "my_bench_parts.py").write_text(
        """
import numpy as np
from prefgym.models.heads import ScalarHead
from prefgym.models.presets import MODELS
from prefgym.models.reward_models import reward_model

def whole(observation_space, action_space, seed):
    return reward_model(observation_space, action_space, 1, (4,), seed=seed)

def head(members, reads, generator):
    return ScalarHead()

preset = MODELS["ties"]
number = 7

def nothing(observation_space):
    return None

def idle(observation_space, action_space, seed):
    return object()

def broken(observation_space, action_space, seed):
    return {}["width"]

def lengthy(a, b):
    return 1 / (1 + np.exp(b.lengths - a.lengths))

def terse(a, b, rng):
    label = (a.lengths < b.lengths).astype(float)
    return label, np.ones(len(a), bool), np.full(len(a), 7)
"""
    )
    yield "my_bench_parts"
    sys.modules.pop("my_bench_parts", None)
    if str(run_folder) in sys.path:
        sys.path.remove(str(run_folder))


# --- running -------------------------------------------------------------------------------------


def test_processes_write_the_bytes_of_a_serial_run(own_module: str) -> None:
    suite = small(models=("vpl", f"{own_module}:head"), raters=("two-groups",))
    serial = done(suite, Path("serial"))
    assert len([name for name in serial if name.startswith("cells")]) == 2
    assert done(suite, Path("processes"), workers=2) == serial


def test_ray_writes_the_bytes_of_a_serial_run(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    suite = small(models=("bt", "gpm"))
    serial = done(suite, tmp_path / "serial")
    assert done(suite, tmp_path / "ray", ray="local", workers=1) == serial


def test_without_ray_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    running.prepare(tmp_path / "out", small())
    with pytest.raises(ImportError, match=r'pip install "prefgym\[ray\]"'):
        running.run(small(), tmp_path / "out", ray="local", quiet=True)


def test_only_what_is_missing_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = small(models=("bt", "gpm"), seeds=2)
    before = done(suite, tmp_path / "out")
    lost = suite.cells()[1]
    running.path_of(tmp_path / "out", lost).unlink()
    asked: list[Cell] = []
    compute = running.compute
    monkeypatch.setattr(
        running, "compute", lambda cell, suite: asked.append(cell) or compute(cell, suite)
    )
    assert done(suite, tmp_path / "out") == before
    assert asked == [lost]


def test_a_half_written_row_counts_as_missing(tmp_path: Path) -> None:
    suite = small()
    before = done(suite, tmp_path / "out")
    running.path_of(tmp_path / "out", suite.cells()[0]).write_text('{"task": "rand')
    assert done(suite, tmp_path / "out") == before


def test_ctrl_c_leaves_a_folder_that_goes_on(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = small(models=("bt", "gpm", "pal"))
    monkeypatch.setattr(command, "suite_of", lambda asked: suite)
    compute = running.compute

    def stopped(cell: Cell, suite: Suite) -> running.Computed:
        if cell.model == "pal":
            raise KeyboardInterrupt
        return compute(cell, suite)

    monkeypatch.setattr(running, "compute", stopped)
    words = ["models", "--out", "half", "--workers", "1"]
    assert commands.bench(words) == command.INTERRUPTED
    assert "2 of 3 cells are kept in half" in capsys.readouterr().out
    assert not Path("half/results.parquet").exists()
    monkeypatch.setattr(running, "compute", compute)
    assert commands.bench(words) == 0
    assert "1 cells in" in capsys.readouterr().out
    del monkeypatch
    assert (
        Path("half/results.parquet").read_bytes() == done(suite, Path("whole"))["results.parquet"]
    )


# --- what is written -----------------------------------------------------------------------------


def test_the_command_writes_and_prints_all(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = small(raters=("partial-return", "cyclic"), models=("bt", "gpm"))
    monkeypatch.setattr(command, "suite_of", lambda asked: suite)
    assert commands.bench(["models", "--quick", "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "inside tensor operations: " in printed
    assert "gpm" in printed
    folder = Path("runs/bench-models-quick")
    table = pq.read_table(folder / "results.parquet")
    assert table.column_names == [*Cell._fields, *SCORES]
    assert table.num_rows == 4
    assert table["true_return"].null_count == 2  # nobody knows what a cyclic rater wants
    assert (folder / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((folder / "summary.json").read_text())
    figure = found["by_model_and_rater"]["bt"]["partial-return"]["accuracy"]
    assert figure["low"] <= figure["value"] <= figure["high"]
    assert figure["value"] == table["accuracy"][0].as_py()


def test_tables_show_what_does_not_apply_as_a_dash(
    capsys: pytest.CaptureFixture[str],
) -> None:
    suite = small(models=("bt",))
    row: Row = {**suite.cells()[0]._asdict(), **dict.fromkeys(SCORES)}
    report.show(Console(width=200), suite, [{**row, "accuracy": 0.75}])
    printed = capsys.readouterr().out
    assert printed.count("0.75") == 2
    assert printed.count(" - ") == len(SCORES) - 2  # all but that one and the last


def test_the_suites_are_what_was_promised() -> None:
    assert set(FULL.tasks) == {
        "delivery", "random-mdps", "pendulum", "hopper", "half-cheetah", "text-style"
    }  # fmt: skip
    assert len(FULL.raters) == 7
    assert FULL.seeds >= 5
    assert len(FULL.cells()) == 6 * 7 * len(FULL.models) * FULL.seeds
    tasks = [*FULL.tasks.values(), *QUICK.tasks.values()]
    assert not any(one.improve == "learn" for one in tasks)


def test_a_policy_is_learned_where_one_can_be_and_only_if_steps_are_asked_for() -> None:
    assert selected(FULL, policy_steps=0) == selected(FULL) == FULL
    for name, task in selected(FULL, policy_steps=2_000).tasks.items():
        learns = name in ("pendulum", "hopper", "half-cheetah")
        assert (task.improve == "learn") == learns
        assert task.policy_steps == 2_000 * learns
        assert (task.reference is not None and task.policy_labels > 0) == learns


# --- data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["random-mdps", "pendulum", "text-style"])
def test_what_is_played_follows_from_the_seed(name: str) -> None:
    task = replace(TASKS[name], steps=1_000)
    one, same = (data.played.__wrapped__(task, SIZE, 3) for _ in range(2))
    other = data.played.__wrapped__(task, SIZE, 4)
    for side, again in zip((*one.train, *one.test), (*same.train, *same.test), strict=True):
        assert all(np.array_equal(v, again.arrays()[k]) for k, v in side.arrays().items())
    assert not np.array_equal(one.train[0].actions, one.test[0].actions[: SIZE.train_pairs])
    if name != "random-mdps":  # whose board is another one
        assert not np.array_equal(one.train[0].actions, other.train[0].actions)


def test_cut_segments_are_beginnings(rng: np.random.Generator) -> None:
    whole = data.played(replace(TASKS["pendulum"], steps=1_000), SIZE, 0).train[0]
    short = data.cut(whole, rng)
    assert (short.lengths >= 1).all()
    assert (short.lengths <= whole.lengths).all()
    assert len(np.unique(short.lengths)) > 10
    for name, values in short.arrays().items():
        if name in ("actions", "rewards", "observations") or name.startswith("factors/"):
            assert np.array_equal(values[short.mask], whole.arrays()[name][short.mask])
            assert not values[~short.mask].any()


def test_rationality_is_the_log_odds_of_the_median_difference() -> None:
    task = replace(TASKS["pendulum"], steps=1_000)
    told = data.answered(task, FULL.raters["partial-return"], SIZE, 0)
    gap = np.abs(np.subtract(*(side.rewards.sum(1) for side in (told.train.a, told.train.b))))
    sure = np.abs(scores.log_odds(told.rater.probability(told.train.a, told.train.b)))
    assert sure[np.argsort(gap)[len(gap) // 2]] == pytest.approx(3.0, rel=0.05)


def test_groups_are_told_apart_and_asked_for_themselves() -> None:
    task = replace(TASKS["random-mdps"], steps=2_000)
    told = data.answered(task, FULL.raters["five-groups"], SIZE, 0)
    assert told.raters == 20
    assert told.groups == 5
    assert told.group_of.tolist() == np.repeat(np.arange(5), 4).tolist()
    assert told.shares.sum() == pytest.approx(1.0)
    for group in range(5):
        rows = told.group_of[told.test.rater_id] == group
        sides = told.test.a.take(rows), told.test.b.take(rows)
        assert np.array_equal(told.chance[rows], told.members[group].probability(*sides))
    assert accuracy(told.test.label - 0.5, told.chance) > 0.8


# --- scores --------------------------------------------------------------------------------------


def test_a_group_without_comparisons_is_named() -> None:
    with pytest.raises(ValueError, match="Group 1 of 3 has none of the 2 comparisons"):
        scores.group_accuracies(np.ones(2), np.ones(2), np.array([0, 2]), 3)


def test_groups_are_scored_on_their_own_comparisons() -> None:
    each = scores.group_accuracies(
        np.array([1.0, 1.0, -1.0]), np.array([1.0, 0.0, 0.0]), np.array([0, 1, 0]), 2
    )
    assert each.tolist() == [1.0, 0.0]


def test_the_expected_label_is_that_of_the_likelihood() -> None:
    margins = torch.linspace(-4.0, 4.0, 9)
    plain = margins.double().numpy()
    assert expected_label(logistic, margins) == pytest.approx(sigmoid(plain), abs=1e-6)
    assert expected_label(hinge, margins) == pytest.approx(sigmoid(plain), abs=1e-6)
    win, lose = sigmoid(plain - np.log(5.0)), sigmoid(-plain - np.log(5.0))
    assert expected_label(ties, margins) == pytest.approx(win + 0.5 * (1 - win - lose), abs=1e-6)


# --- what models are good for --------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned() -> dict[tuple[str, str], Row]:
    """Return scores of quick fits on a random board."""
    suite = selected(QUICK, ("random-mdps",), ("regret", "cyclic", "two-groups"), ("bt", "gpm"), 1)
    wanted = (("regret", "bt"), ("cyclic", "bt"), ("cyclic", "gpm"), ("two-groups", "bt"))
    return {names: cells.run(Cell("random-mdps", *names, 0), suite) for names in wanted}


def number(row: Row, score: str) -> float:
    value = row[score]
    assert isinstance(value, float)
    return value


def test_bradley_terry_learns_a_reward_and_its_policy(learned: dict[tuple[str, str], Row]) -> None:
    row = learned["regret", "bt"]
    assert number(row, "accuracy") > 0.9
    assert 0.5 < number(row, "strength_slope") < 1.5
    assert number(row, "true_return") > 0.0  # random actions
    assert number(row, "exploitability") < 0.1


def test_only_a_general_preference_follows_a_cycle(learned: dict[tuple[str, str], Row]) -> None:
    assert number(learned["cyclic", "bt"], "accuracy") < 0.6
    assert number(learned["cyclic", "gpm"], "accuracy") > 0.85
    gap = [number(learned["cyclic", one], "exploitability") for one in ("bt", "gpm")]
    assert gap[0] > gap[1] + 0.1


def test_one_reward_cannot_serve_two_opposed_groups(learned: dict[tuple[str, str], Row]) -> None:
    row = learned["two-groups", "bt"]
    assert number(row, "worst_group_accuracy") < 0.6
    assert number(row, "worst_group_return") < 0.5


def test_the_true_reward_leads_to_the_best_policy() -> None:
    suite = selected(QUICK, ("random-mdps",), ("partial-return",), ("bt",), 1)
    cell, task = suite.cells()[0], suite.tasks["random-mdps"]
    sides = data.played(task, SIZE, 0)
    told = data.answered(task, suite.raters["partial-return"], SIZE, 0)
    model = fitted("bt", sides, told, SIZE, 0)
    rules = sides.rules

    def truth(segments: object) -> torch.Tensor:
        worth = rules.mdps.rewards[0][segments.context, segments.actions[:, 0]]  # type: ignore[attr-defined]
        return torch.as_tensor(worth)[None, :, None]

    model.model.rewards_by_group = truth
    assert led_to(model, cell, task, sides, told, SIZE)["true_return"] == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "rater"), [("text-style", "regret"), ("pendulum", "regret")])
def test_other_domains_give_rows_too(name: str, rater: str) -> None:
    suite = small((name,), (rater,), ("bt",))
    row = cells.run(suite.cells()[0], suite)
    assert 0.0 <= number(row, "accuracy") <= 1.0
    assert number(row, "true_return") <= 1.0


def test_a_policy_that_has_to_be_learned_is() -> None:
    suite = small(("pendulum",), ("partial-return",), ("pal",))
    suite = replace(suite, tasks={"pendulum": SHORT})
    rows = [cells.run(suite.cells()[0], suite) for _ in range(2)]
    assert rows[0] == rows[1]
    assert -2.0 < number(rows[0], "true_return") < 1.5


@pytest.mark.parametrize("name", ["ties", "my_bench_parts:preset"])
def test_a_learned_policy_keeps_the_loss_of_its_model(
    own_module: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    class Asked(RewardLearning):
        def learn(self, *_: object, **__: object) -> "Asked":
            told.append(self.loss)
            raise KeyboardInterrupt

    monkeypatch.setattr(policies, "RewardLearning", Asked)
    suite = small(("pendulum",), ("ties",), (name,))
    suite = replace(suite, tasks={"pendulum": SHORT})
    with pytest.raises(KeyboardInterrupt):
        cells.run(suite.cells()[0], suite)
    assert told == [MODELS["ties"].loss]


# --- a user's own --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["whole", "head", "preset"])
def test_a_model_of_ones_own(own_module: str, name: str) -> None:
    suite = small(models=(f"{own_module}:{name}",))
    row = cells.run(suite.cells()[0], suite)
    assert number(row, "accuracy") > 0.5
    assert row["true_return"] is not None


@pytest.mark.parametrize(("name", "exact"), [("lengthy", True), ("terse", False)])
def test_a_rater_of_ones_own(own_module: str, name: str, exact: bool) -> None:
    suite = small(raters=(f"{own_module}:{name}",))
    row = cells.run(suite.cells()[0], suite)
    assert number(row, "accuracy") > 0.5
    assert (row["exploitability"] is not None) == exact
    assert (row["strength_slope"] is not None) == exact


def test_ids_of_ones_own_rater_are_those_that_its_policy_is_learned_from(own_module: str) -> None:
    suite = small(("pendulum",), (f"{own_module}:terse",), ("pal",))
    told = data.answered(SHORT, suite.raters[f"{own_module}:terse"], SIZE, 0)
    assert told.ids.tolist() == [7]
    pairs = told.test.a, told.test.b
    answers = told.numbered(*pairs, np.random.default_rng(0))
    plain = told.rater(*pairs, np.random.default_rng(0))
    assert not answers.rater_id.any()
    assert np.array_equal(answers.label, plain.label)
    suite = replace(suite, tasks={"pendulum": replace(SHORT, policy_steps=1_100)})
    row = cells.run(suite.cells()[0], suite)
    assert row["true_return"] is not None


def test_whom_nobody_counted_is_named() -> None:
    told = data.answered(
        replace(TASKS["pendulum"], steps=1_000), FULL.raters["two-groups"], SIZE, 0
    )
    few = data.Numbered(told.rater, tuple(told.ids.tolist()[:-1]))
    with pytest.raises(ValueError, match=f"answers as {told.ids[-1]}, who answered none of the"):
        few(told.test.a, told.test.b, np.random.default_rng(0))


def test_own_parts_come_on_top_of_the_named_ones(own_module: str) -> None:
    asked = command.ModelsBenchmark(
        quick=True, model=(f"{own_module}:head",), rater=(f"{own_module}:terse",)
    )
    suite = command.suite_of(asked)
    assert suite.models == (*QUICK.models, f"{own_module}:head")
    assert [*suite.raters] == [*QUICK.raters, f"{own_module}:terse"]


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "deliveri"], "Unknown task 'deliveri'; did you mean 'delivery'"),
        (["--raters", "regrets"], "Unknown rater of the benchmark 'regrets'; did you mean"),
        (["--models", "vlp"], "Unknown preference model 'vlp'; did you mean 'vpl'"),
        (["--model", "nowhere:it"], "The model 'nowhere:it' cannot be imported"),
        (["--model", "json:nothing"], "The model 'json:nothing' cannot be imported"),
        (["--model", "json:dumps"], "The model json:dumps takes obj, "),
        (["--rater", "nowhere:it"], "The rater 'nowhere:it' cannot be imported"),
        (["--rater", "json:__name__"], "The rater json:__name__ is a str"),
        (["--seeds", "0"], "and 0 seeds has no cell"),
        (["--policy-steps", "-5"], "policy_steps=-5; wanted 0, which learns none, or more"),
    ],
)
def test_mistakes_get_one_sentence(run_folder: Path, words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        commands.bench(["models", *words])
    assert not Path("runs").exists()


def test_what_cannot_be_fitted_is_refused(own_module: str) -> None:
    suite = small(models=(f"{own_module}:idle",))
    with pytest.raises(ValueError, match="is a object, which cannot be fitted or asked"):
        cells.run(suite.cells()[0], suite)


def test_a_folder_of_another_suite_is_refused(tmp_path: Path) -> None:
    running.prepare(tmp_path / "out", small())
    running.prepare(tmp_path / "out", small())
    with pytest.raises(ValueError, match=r"another suite \(other models\)"):
        running.prepare(tmp_path / "out", small(models=("gpm",)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="is not empty and holds no suite"):
        running.prepare(tmp_path / "other", small())


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1, 2]", "holds no suite"), ('{"format": 1, "ta', "is damaged"), ("7", "holds no suite")],
)
def test_a_folder_with_no_suite_in_its_file_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    running.prepare(tmp_path / "out", small())
    (tmp_path / "out" / "suite.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        running.prepare(tmp_path / "out", small())


def test_rows_of_other_code_are_not_taken_for_new_ones(
    own_module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, source = Path("out"), Path("my_bench_parts.py")
    suite = small(models=("bt", f"{own_module}:head"))
    running.prepare(folder, suite)
    running.prepare(folder, suite)
    source.write_text(source.read_text() + "\n# another thought\n")
    with pytest.raises(ValueError, match="rows of my_bench_parts:head as it was before its module"):
        running.prepare(folder, suite)
    with monkeypatch.context() as patched:
        patched.setattr("prefgym_agents.bench.suite.__version__", "0.0.1")
        running.prepare(Path("other"), small())
    with pytest.raises(ValueError, match=r"the results of prefgym 0\.0\.1, and this is"):
        running.prepare(Path("other"), small())


def test_names_that_are_said_twice_are_one() -> None:
    asked = command.ModelsBenchmark(
        tasks=("pendulum", "pendulum"), raters=("ties", "ties"), models=("bt", "gpm", "bt"), seeds=1
    )
    suite = command.suite_of(asked)
    assert suite.models == ("bt", "gpm")
    assert len(suite.cells()) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cell_that_fails_is_named(own_module: str, workers: int) -> None:
    suite = small(models=(f"{own_module}:broken",))
    running.prepare(Path("out"), suite)
    told = r"random-mdps × partial-return × my_bench_parts:broken, seed 0: KeyError: 'width' "
    with pytest.raises(ValueError, match=told):
        running.run(suite, Path("out"), workers, quiet=True)


def test_a_cluster_that_nobody_hears_of_is_said_at_once(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    running.prepare(tmp_path / "out", small())
    with pytest.raises(ValueError, match=r"No Ray cluster answers at 127\.0\.0\.1:9"):
        running.run(small(), tmp_path / "out", ray="127.0.0.1:9", quiet=True)


def test_the_verb_is_asked_for() -> None:
    with pytest.raises(ValueError, match="prefgym bench needs what to compare"):
        commands.bench([])
