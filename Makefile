.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV ?= .venv
BIN := $(VENV)/bin
SDKS := $(VENV)-sdks
PYTHONS := $(VENV)-pythons
ARGS ?=
UPGRADE ?=
COMPILE := --universal --python-version 3.11 --quiet --no-header --no-emit-index-url --no-emit-find-links --no-annotate \
	--no-emit-package batchling
# Most tests wait for other processes: more than one a core keeps the cores busy.
JOBS ?= 4

.PHONY: help demo test test-pythons test-long test-sdks chaos weather lint format bench picture constraints locks audit licences clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  VENV=.venv   the virtual environment to use, made on first need"
	@echo "  PYTHON=...   the interpreter to make it with (3.11 or newer)"
	@echo "  ARGS=...     further words for pytest, chaos or the benchmark, such as ARGS='-k seal' or ARGS='--seconds 60'"

# An environment is as fresh as what it was made from: nothing is installed again while these files stand.
$(VENV)/bin/python:
	@PYTHON="$(PYTHON)" tools/venv "$(VENV)"

$(VENV)/.installed-all: pyproject.toml locks/all.txt tools/venv tools/install | $(VENV)/bin/python
	@tools/install "$(VENV)" locks/all.txt
	@touch $@

$(VENV)/.installed-dev: pyproject.toml locks/dev.txt tools/venv tools/install | $(VENV)/bin/python
	@tools/install "$(VENV)" locks/dev.txt
	@touch $@ $(VENV)/.installed-all

# The SDKs in the versions of one column of tests/sdks/matrix.toml.
$(SDKS)/%/.installed: pyproject.toml tests/sdks/matrix.toml tests/sdks/constraints/%.txt tools/venv tools/install
	@mkdir -p "$(SDKS)"
	@PYTHON="$(PYTHON)" tools/venv "$(SDKS)/$*"
	@tools/install "$(SDKS)/$*" tests/sdks/constraints/$*.txt
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
	uv pip compile pyproject.toml locks/build.in --all-extras $(COMPILE) --upgrade --output-file constraints.txt
	@$(MAKE) --no-print-directory locks UPGRADE=--upgrade

# Hashes are those of every file that the index has of a version, so that each platform finds its own.
locks: ## Pin what is installed, at the versions of constraints.txt and with hashes (needs uv)
	for extra in all dev; do \
		uv pip compile pyproject.toml locks/build.in --extra $$extra --constraint constraints.txt $(COMPILE) \
			--generate-hashes --output-file locks/$$extra.txt || exit 1; \
	done
	uv pip compile locks/audit.in $(COMPILE) $(UPGRADE) --generate-hashes --output-file locks/audit.txt
	for column in `$(BIN)/python tests/sdks/matrix.py`; do \
		$(BIN)/python tests/sdks/matrix.py $$column | uv pip compile pyproject.toml locks/build.in - --extra harness \
			$(COMPILE) $(UPGRADE) --generate-hashes --output-file tests/sdks/constraints/$$column.txt || exit 1; \
	done

$(VENV)-audit/.installed: locks/audit.txt tools/venv
	@PYTHON="$(PYTHON)" tools/venv "$(VENV)-audit"
	@tools/install "$(VENV)-audit" locks/audit.txt alone
	@touch $@

audit: $(VENV)-audit/.installed ## Ask an advisory service for known holes in what is pinned; ARGS=--strict fails if none can be asked
	@$(VENV)-audit/bin/python tools/audit.py $(ARGS)

licences: $(VENV)/.installed-dev ## List the licences of what the extra `all` installs
	@$(BIN)/python tools/licences.py

clean: ## Remove the virtual environments and everything built
	rm -rf .venv .venv-audit .venv-sdks .venv-pythons .ci-venv .ci-venv-sdks .ci-venv-pythons build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
