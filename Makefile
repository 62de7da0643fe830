.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV ?= .venv
BIN := $(VENV)/bin
SDKS := $(VENV)-sdks
PYTHONS := $(VENV)-pythons
ARGS ?=
# Most tests wait for other processes: more than one a core keeps the cores busy.
JOBS ?= 4

.PHONY: help demo test test-pythons test-long test-sdks chaos weather lint format bench picture constraints clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  VENV=.venv   the virtual environment to use, made on first need"
	@echo "  PYTHON=...   the interpreter to make it with (3.11 or newer)"
	@echo "  ARGS=...     further words for pytest, chaos or the benchmark, such as ARGS='-k seal' or ARGS='--seconds 60'"

# An environment is as fresh as what it was made from: nothing is installed again while these files stand.
$(VENV)/bin/python:
	@PYTHON="$(PYTHON)" tools/venv "$(VENV)"

$(VENV)/.installed-all: pyproject.toml constraints.txt tools/venv tools/install | $(VENV)/bin/python
	@tools/install "$(VENV)" all
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt tools/venv tools/install | $(VENV)/bin/python
	@tools/install "$(VENV)" dev
	@touch $@ $(VENV)/.installed-all

# The SDKs in the versions of one column of tests/sdks/matrix.toml.
$(SDKS)/%/.installed: pyproject.toml tests/sdks/matrix.toml tests/sdks/constraints/%.txt tools/venv tools/install
	@mkdir -p "$(SDKS)"
	@PYTHON="$(PYTHON)" tools/venv "$(SDKS)/$*"
	@tools/install "$(SDKS)/$*" harness tests/sdks/constraints/$*.txt `"$(SDKS)/$*/bin/python" tests/sdks/matrix.py $*`
	@touch $@

demo: $(VENV)/.installed-all ## Run the demo: no account, no Redis, nothing to set up
	@$(BIN)/batchling demo

test: $(VENV)/.installed-dev ## Run the test suite, but for what takes minutes
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-pythons: ## Run the test suite on every declared version of Python that is found here
	@mkdir -p $(PYTHONS)
	@for python in `tools/pythons`; do \
		echo "== $$python"; \
		$(MAKE) --no-print-directory VENV=$(PYTHONS)/`basename $$python` PYTHON=$$python test || exit 1; \
	done

test-long: $(VENV)/.installed-dev ## Run the long tests: deaths at every step, stopped workers, fail-overs, bad weather
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "long and not weather" $(ARGS)

test-sdks: $(VENV)/.installed-dev ## Run the tests of the SDKs, each in its oldest, its previous and its newest version
	@$(MAKE) --no-print-directory -j4 `$(BIN)/python tests/sdks/matrix.py | sed 's|.*|$(SDKS)/&/.installed|'`
	@$(BIN)/python -m tests.sdks $(SDKS) $(ARGS)

chaos: $(VENV)/.installed-dev ## Kill workers, Redis and clients for ten minutes in bad weather, then check the books
	$(BIN)/python -m tests.chaos $(ARGS)

weather: $(VENV)/.installed-dev ## Run the long tests of bad weather, one kind after the other
	$(BIN)/python -m pytest -m weather $(ARGS)

lint: $(VENV)/.installed-dev ## Check style, types and the floors of the architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev ## Run the benchmarks
	$(BIN)/python -m benchmarks $(ARGS)

picture: $(VENV)/.installed-dev ## Draw the picture in the README anew (needs tmux)
	$(BIN)/python docs/picture.py

constraints: ## Pin the newest versions that fit together (needs uv)
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade --quiet \
		--no-header --no-emit-index-url --no-emit-find-links --no-annotate --no-emit-package batchling \
		--output-file constraints.txt
	for column in `$(BIN)/python tests/sdks/matrix.py`; do \
		$(BIN)/python tests/sdks/matrix.py $$column | uv pip compile pyproject.toml - --extra harness \
			--universal --python-version 3.11 --upgrade --quiet --no-header --no-emit-index-url --no-emit-find-links \
			--no-annotate --no-emit-package batchling --output-file tests/sdks/constraints/$$column.txt || exit 1; \
	done

clean: ## Remove the virtual environments and everything built
	rm -rf .venv .venv-sdks .venv-pythons .ci-venv .ci-venv-sdks .ci-venv-pythons build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
