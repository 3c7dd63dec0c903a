# make demo     an agent learns Pendulum from 200 labels; the run goes to a new folder below runs/
# make test     every check and every test; what .ci/run calls
# make lint     the checks alone        make format   put the code in form
# make clean    remove what make made (runs/ stays)
#
# demo and test set .venv up by themselves. Another Python: make test PYTHON=python3.12

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# A venv is stamped when it is complete; it is brought up to date when what it should hold changes.
READY := $(VENV)/ready
READY_FOR_TESTS := $(VENV)/ready-for-tests

.PHONY: demo test lint format clean

demo: $(READY)
	$(BIN)/prefgym train reward-learning --env prefgym/Pendulum-v0 --rater partial-return \
		--labels 200 --seed 0

test: lint
	@# One thread per process: the workers share the cores.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --nbmake --nbmake-timeout=300

lint: $(READY_FOR_TESTS)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY_FOR_TESTS)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .coverage .hypothesis .import_linter_cache .mypy_cache \
		.pytest_cache .ruff_cache
	find prefgym agents envs tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

$(READY_FOR_TESTS): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e ".[dev,notebooks,text,llm,ray]"
	@touch $@ $(READY)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "prefgym needs Python 3.11 or newer, and $(PYTHON) is not one:" \
			"run make again with PYTHON=python3.11 or the like."; exit 1; }
	$(PYTHON) -m venv $(VENV)
