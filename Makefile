# `make help` lists the targets.  Every one brings its environment up to date first.
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
SOURCES := tvfs tvd taskvault plugins/tvplugins
PYTEST_ARGS ?=
# Two for each processor, because half of a test of the daemon is waiting.
TEST_PROCESSES ?= $(shell echo $$((2 * $$(nproc))))
SECONDS ?= 120
TARGETS ?=
PJDFSTEST ?=
NAMES ?=
# npm may be there without its package.
POSIX_PACKAGES = $$(cat tests/posix/packages.txt) $$(command -v npm >/dev/null || echo npm)
# Lock files must hold for every machine, so they are made from the public index alone, whatever pip is told here.
PIP_COMPILE = PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= PIP_EXTRA_INDEX_URL= $(BIN)/pip-compile --quiet --no-config \
	--generate-hashes --strip-extras --allow-unsafe --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host

.DEFAULT_GOAL := help
.PHONY: help setup run test check format bench fuzz slow posix durability workloads wheel wheel-test lock clean docs reference man

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

setup: ## install system packages if any is missing, and .venv from the lock file
	@PYTHON=$(PYTHON) packaging/setup.sh

run: setup ## a tour: start a vault, build a C project with it twice; says how to stop it
	@$(BIN)/python -m taskvault.demo

test: check ## everything a change must pass
	@echo "test: the suite (skipped tests are listed with their reasons)"
	@$(BIN)/python -m pytest -ra -n $(TEST_PROCESSES) --dist worksteal $(PYTEST_ARGS)

check: setup ## format, lint, types, import contracts; seconds
	@echo "check: ruff format"
	@$(BIN)/ruff format --check --quiet . || { echo "check: run 'make format'" >&2; exit 1; }
	@echo "check: ruff check"
	@$(BIN)/ruff check --quiet .
	@echo "check: mypy --strict"
	@$(BIN)/mypy --strict $(SOURCES)
	@echo "check: import contracts"
	@$(BIN)/lint-imports --no-logo

format: setup ## rewrite the sources in the project's format
	@$(BIN)/ruff check --quiet --fix --exit-zero .
	@$(BIN)/ruff format .

bench: setup ## measure against real peers; minutes
	@packaging/system_packages.sh bindfs fio git
	@$(BIN)/python -m benchmarks

fuzz: setup ## fuzz every parser, coverage-guided, SECONDS=120 in all; see docs/design/hostile-input.md
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(TARGETS)

slow: setup ## the long proofs that `make test` leaves out; many minutes
	@packaging/system_packages.sh $(POSIX_PACKAGES)
	@$(BIN)/python -m pytest -ra -m slow --timeout 3600 $(PYTEST_ARGS)

posix: setup ## the long proofs of the filesystem, hours; PJDFSTEST=DIR for that suite; see docs/design/posix.md
	@packaging/system_packages.sh $(POSIX_PACKAGES)
	@PJDFSTEST=$(PJDFSTEST) $(BIN)/python -m tests.posix

durability: setup ## the long proofs of what survives kills and power loss, an hour or two; see docs/design/durability.md
	@$(BIN)/python -m tests.durability

workloads: setup ## real work stored, replayed, changed and moved, NAMES= for some of it; docs/design/workloads.md
	@packaging/system_packages.sh $$(cat tests/workloads/packages.txt)
	@$(BIN)/python -m tests.workloads $(NAMES)

wheel: setup ## build dist/taskvault-*.whl
	@rm -rf dist
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist .

wheel-test: setup ## build the wheel, install it in a fresh environment, start every command
	@$(BIN)/python packaging/wheel_smoke_test.py

docs: setup ## build the documentation as a site, in build/site
	@$(BIN)/mkdocs build --quiet --strict

reference: setup ## write the generated pages of docs/reference
	@$(BIN)/python packaging/reference.py

man: setup ## write the manual pages
	@$(BIN)/python packaging/man_pages.py

lock: setup ## make the lock files again from pyproject.toml; add PIP_COMPILE_ARGS=--upgrade for newer versions
	@echo "lock: requirements.lock"
	@$(PIP_COMPILE) $(PIP_COMPILE_ARGS) --output-file requirements.lock pyproject.toml
	@sed -i '1i # What taskvault is installed and tested with.  Made by `make lock`; do not edit.' requirements.lock
	@echo "lock: requirements-dev.lock"
	@$(PIP_COMPILE) $(PIP_COMPILE_ARGS) --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml
	@sed -i '1i # The same, with the development tools.  Made by `make lock`; do not edit.' requirements-dev.lock

clean: ## remove everything that make made
	@rm -rf .venv build dist .coverage htmlcov .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find $(SOURCES) tests -name __pycache__ -type d -prune -exec rm -rf {} +
