"""The house: what may stand where, what an import costs, the wheel, the promises of the README."""

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = tuple(ROOT / one for one in ("prefgym", "agents/prefgym_agents", "envs/prefgym_envs"))
FOLDERS = ("prefgym", "agents", "envs", "tests", "benchmarks", "notebooks", "docs", ".ci")
WRITTEN = {".py", ".md", ".toml", ".txt", ".yaml", ".cff", ".json", ".csv", ".ipynb", ".sh", ""}

LEARNERS = ("oracle", "reward_learning", "direct", "spo", "heron", "rlif", "intrinsic")
"""Files of prefgym_agents that must read the same for a robot and for a language model."""
BACKENDS = (
    *(f"prefgym_agents.{one.stem}" for one in sorted(PACKAGES[1].glob("sb3*.py"))),
    *("prefgym_agents.tabular", "prefgym_agents.language", "stable_baselines3", "transformers"),
)
DOMAIN_WORDS = {
    *("mujoco", "minigrid", "gridworld", "delivery", "pendulum", "cartpole", "hopper", "cheetah"),
    *("walker", "ant", "reacher", "joint", "torque", "text", "token", "tokens", "tokenizer"),
    *("prompt", "prompts", "transformers", "sb3"),
}
HEAVY = {"torch", "mujoco", "stable_baselines3", "transformers", "minigrid", "matplotlib"}
OWN_IMPORT_LIMIT_S = 0.040


def python_files() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted(package.rglob("*.py"))


def written_files() -> Iterator[Path]:
    """What people wrote: the files of the root and of its folders, hidden folders left out."""
    yield from sorted(one for one in ROOT.iterdir() if one.is_file() and one.suffix in WRITTEN)
    for folder in FOLDERS:
        for place, inner, names in os.walk(ROOT / folder):
            inner[:] = sorted(one for one in inner if not one.startswith((".", "__")))
            yield from (Path(place, one) for one in sorted(names) if Path(one).suffix in WRITTEN)


def imported_modules(path: Path) -> set[str]:
    """Every module that a file names in an import, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{one.name}" for one in node.names}
    return found


def is_within(module: str, parents: tuple[str, ...]) -> bool:
    return any(module == parent or module.startswith(f"{parent}.") for parent in parents)


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
    return table


def python(code: str, folder: Path, interpreter: str = sys.executable, **settings: str) -> str:
    """What a fresh interpreter prints that runs ``code`` in ``folder``."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [interpreter, "-c", code],
        cwd=folder,
        env=kept | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SOURCE = {"PYTHONPATH": os.pathsep.join(str(one.parent) for one in PACKAGES)}


# --- what may stand where ---------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["agents", "envs"])
def test_the_top_folders_hold_no_module_of_their_own(folder: str) -> None:
    # An agents/__init__.py would shadow other people's `agents` from the repository root.
    assert list((ROOT / folder).glob("*.py")) == []


def test_every_part_is_typed() -> None:
    assert all((package / "py.typed").is_file() for package in PACKAGES)


def test_names_are_the_words_of_the_field() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "misc", "base", "manager"}
    names = {path for path in python_files() if vague & {path.stem, path.parent.name}}
    assert not names


def test_nothing_imports_pickle_but_the_restricted_reader_of_others_files() -> None:
    unsafe = ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")
    for path in python_files():
        text = path.read_text(encoding="utf-8")
        if [one for one in imported_modules(path) if is_within(one, unsafe)]:
            assert "converters" in (path.stem, path.parent.name), path
            assert "def find_class" in text, path
        assert not re.search(r"allow_pickle=True|torch\.(load|save)\(", text), path


def test_no_written_file_names_a_path_of_one_machine() -> None:
    machines = "|".join(("home", "root", "Users", "work", "tmp", "opt", "mnt"))
    absolute = re.compile(rf"(?<![\w./:~*$}}-])/(?:{machines})/[\w.]|[A-Z]:\\Users")
    found = {
        str(path.relative_to(ROOT)): match.group()
        for path in written_files()
        if (match := absolute.search(path.read_text(encoding="utf-8")))
    }
    assert not found


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_learner_knows_no_backend_and_no_domain(learner: str) -> None:
    path = ROOT / "agents" / "prefgym_agents" / f"{learner}.py"
    imports = imported_modules(path)
    assert not [one for one in imports if is_within(one, (*BACKENDS, "prefgym_envs"))]

    text = re.sub(r"(read|write)_text", "", path.read_text(encoding="utf-8").lower())
    assert not DOMAIN_WORDS & set(re.findall(r"[a-z0-9]+", text))


# --- what an import costs ---------------------------------------------------------------------


def test_importing_prefgym_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = python("import sys, prefgym; print(*sys.modules)", tmp_path, **SOURCE).split()
    assert not HEAVY & set(loaded)


def test_a_tabular_environment_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, gymnasium, prefgym\n"
        "env = gymnasium.make('prefgym/Delivery-v0'); env.reset(seed=0); env.step(0)\n"
        "print(*sys.modules)"
    )
    assert not HEAVY & set(python(code, tmp_path, **SOURCE).split())


def test_importing_prefgym_is_fast(tmp_path: Path) -> None:
    # `import prefgym` shall take less than 150 ms; Gymnasium with NumPy takes about 105 ms of them
    # on a quiet machine, so this holds our own share. Processor time, the best of several, because
    # other tests run beside this one.
    code = (
        "import time, gymnasium; start = time.process_time(); import prefgym\n"
        "print(time.process_time() - start)"
    )
    taken_s = [float(python(code, tmp_path, **SOURCE)) for _ in range(5)]
    assert min(taken_s) < OWN_IMPORT_LIMIT_S, taken_s


# --- what is shipped --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts folder of an empty environment with the wheel in it.

    The dependencies are lent by the running interpreter through a ``.pth`` file, so that no network
    is needed; its own editable prefgym is not lent, because that is a ``.pth`` file too.
    """
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    places = sysconfig.get_paths(
        sysconfig.get_preferred_scheme("prefix"), vars={"base": str(home), "platbase": str(home)}
    )
    interpreter = Path(places["scripts"]) / Path(sys.executable).name
    pip = [sys.executable, "-m", "pip", "--python", str(interpreter), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True)
    (Path(places["purelib"]) / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return interpreter.parent


def test_the_wheel_works_outside_the_repository(installed: Path, tmp_path: Path) -> None:
    code = (
        "import gymnasium, prefgym, prefgym_agents, prefgym_envs\n"
        "env = gymnasium.make('prefgym/Delivery-v0')\n"
        "env.reset(seed=0); assert env.step(env.action_space.sample())[1] == 0.0\n"
        "print(*(one.__file__ for one in (prefgym, prefgym_agents, prefgym_envs)), sep='\\n')"
    )
    interpreter = str(installed / Path(sys.executable).name)
    files = python(code, tmp_path, interpreter).splitlines()
    assert all(Path(file).is_relative_to(installed.parent) for file in files)


def test_the_wheel_brings_the_command(installed: Path, tmp_path: Path) -> None:
    as_module = [str(installed / Path(sys.executable).name), "-m", "prefgym", "--help"]
    as_script = [str(installed / "prefgym"), "--help"]
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for command in (as_module, as_script):
        done = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "train" in done.stdout


def test_one_version_everywhere() -> None:
    version = project()["version"]
    inside = re.search(r'__version__ = "(.+)"', (ROOT / "prefgym/__init__.py").read_text())
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert inside is not None
    assert cited is not None
    assert inside[1] == cited[1] == version


def test_the_constraints_pin_every_declared_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9._-]+==[0-9][0-9a-z.]*", pin) for pin in pins)  # no +cpu
    pinned = {pin.split("==")[0]: pin.split("==")[1] for pin in pins}
    wanted = [Requirement(one) for one in project()["dependencies"]]
    for extra in project()["optional-dependencies"].values():
        wanted += [Requirement(one) for one in extra]
    for one in wanted:
        if one.name != "prefgym":
            assert one.specifier.contains(pinned[canonicalize_name(one.name)]), one


# --- what is promised -------------------------------------------------------------------------


def python_blocks() -> list[Any]:
    """The Python of the README and of the documentation, each block where it stands."""
    blocks = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        for found in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text[: found.start()].count("\n") + 1
            where = f"{path.relative_to(ROOT)}:{line}"
            blocks.append(pytest.param("\n" * line + found[1], where, id=where))
    return blocks


def test_the_readme_shows_python() -> None:
    assert any("README.md" in block.values[1] for block in python_blocks())


@pytest.mark.parametrize(("code", "where"), python_blocks())
@pytest.mark.usefixtures("run_folder")
def test_documented_python_runs(code: str, where: str) -> None:
    exec(compile(code, where, "exec"), {"__name__": "__main__"})


def test_continuous_integration_calls_make_test() -> None:
    runner = ROOT / ".ci" / "run"
    assert os.access(runner, os.X_OK)
    assert "make test" in runner.read_text()
