# Every target works on a fresh clone. PYTHON chooses the interpreter (>= 3.11).
PYTHON ?= python3
BIN := .venv/bin
RUNS := .venv/.installed
DEVELOPS := .venv/.installed-dev
HALF := .venv/.installing# an installation that was interrupted left this, and is done again from the start

# uv if it is there (seconds), else pip; `make UV=` takes pip in any case
UV ?= $(shell command -v uv)
PIP := $(if $(UV),$(UV) pip,$(BIN)/python -m pip)
INTO := $(if $(UV),--python $(BIN)/python)
LOCKED := $(PIP) install $(INTO) --quiet --no-deps --require-hashes
COMPILE := --quiet --universal --generate-hashes --python-version 3.11 --custom-compile-command 'make lock'
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install install-dev lock landscape test quick crowded check chaos bench dist docs clean

# what running needs, and beyond it what developing needs; nothing is resolved, because a lock is complete
install: $(RUNS)
install-dev: $(DEVELOPS)

$(RUNS): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "LossAtlas needs Python >= 3.11; set PYTHON=")'
	mkdir -p .venv && touch $(HALF)
	$(PYTHON) -m venv $(if $(wildcard $(HALF)),--clear) .venv && touch $(HALF)
	$(LOCKED) -r requirements.lock
	$(PIP) install $(INTO) --quiet --no-deps --no-build-isolation -e .
	$(PIP) check $(INTO)
	mv $(HALF) $@

$(DEVELOPS): $(RUNS) requirements-dev.lock
	mv $(RUNS) $(HALF)
	touch $(HALF)
	$(LOCKED) -r requirements-dev.lock
	$(PIP) check $(INTO)
	touch -r $(HALF) $(RUNS)
	mv $(HALF) $@

# raises only what pyproject.toml asks for; `make lock UPGRADE=--upgrade` raises everything
lock: install-dev
	$(BIN)/uv pip compile $(COMPILE) $(UPGRADE) pyproject.toml --group build -o requirements.lock
	$(BIN)/uv pip compile $(COMPILE) $(UPGRADE) --group dev --constraint requirements.lock -o requirements-dev.lock

landscape: install
	$(BIN)/lossatlas run digits

test: install-dev
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not long"
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --fail-under=90

# on saving: no Ray, no server, no sweep
quick: install-dev
	$(BIN)/python -m pytest -q -n 2 -m "not slow and not long"

# what depends on ports, signals and other processes, beside somebody's Ray head and processes that never rest
crowded: install-dev
	$(BIN)/python -m tests.crowded

check: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# everything happens to one sweep: about a quarter of an hour
chaos: install-dev
	$(BIN)/python -m benchmarks.chaos --json

# a quarter of an hour on an idle machine; see docs/results/performance.md
bench: install-dev
	for what in engine orchestration label_bank scale; do $(BIN)/python -m benchmarks.$$what || exit 1; done

# the documentation as a site, site/index.html; a warning is an error
docs: install-dev
	$(BIN)/python -m zensical build --strict

# a source archive, and from it a wheel
dist: install-dev
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf .venv build dist site .mypy_cache .ruff_cache .pytest_cache .coverage* *.egg-info
