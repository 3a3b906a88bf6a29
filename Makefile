# Every target works on a fresh clone. PYTHON chooses the interpreter (>= 3.11).
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: install landscape test check chaos bench clean

install: $(INSTALLED)

# uv if it is there (seconds), else pip alone; both install exactly the pinned, hashed versions
$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "LossAtlas needs Python >= 3.11; set PYTHON=")'
	$(PYTHON) -m venv .venv
	if command -v uv >/dev/null; then \
		uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements.lock && \
		uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . ; \
	else \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . ; \
	fi
	touch $@

landscape: install
	$(BIN)/lossatlas run digits

test: install
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long"
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --fail-under=90

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# everything happens to one sweep: about a quarter of an hour
chaos: install
	$(BIN)/python -m benchmarks.chaos --json

# a quarter of an hour on an idle machine; see docs/results/performance.md
bench: install
	for what in engine orchestration label_bank scale; do $(BIN)/python -m benchmarks.$$what || exit 1; done

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .coverage* *.egg-info
