# `make demo` and `make test` install the environment when needed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test quick check docs bench clean

help:  ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/'

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	@$(BIN)/python -m compileall -q -j 0 .venv/lib > /dev/null 2>&1 || true  # as pip would, but on all cores
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)  ## set up, then run the transfer on the built-in digits
	$(BIN)/python train.py

test: $(READY)  ## set up, then run the tests
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

quick: $(READY)  ## run the fast tests, in less than a minute: data, losses, run folders, configs, imports, golden losses
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m quick

check: $(READY)  ## lint, format check and tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

docs: $(READY)  ## build the documentation site into build/docs, without a network
	$(BIN)/python -m sphinx -W --keep-going -n -q docs build/docs
	@echo "build/docs/index.html"

bench: $(READY)  ## measure the speed relative to common practice
	$(BIN)/python scripts/bench.py && $(BIN)/python scripts/bench_sweep.py
	$(BIN)/python scripts/bench_images.py && $(BIN)/python scripts/bench_speech.py
	$(BIN)/python scripts/bench_threads.py

clean:  ## remove the environment, caches and generated pages, but not the runs in outputs/
	rm -rf .venv .pytest_cache .ruff_cache build dist docs/reference/config docs/reference/api
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
