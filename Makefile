# `make` lists the targets. They need only make and Python 3.11 or later.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header --no-emit-index-url pyproject.toml requirements/build.in

# The tests start many processes, which would otherwise compile the same modules again and again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo up test thorough campaign faults clients client check docs bench format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: .venv/demo ## watch it work on this machine (ONCE=1: end after the show)
	@$(BIN)/archiver demo $(if $(ONCE),--once)

up: .venv/demo ## run it, with archiver.toml if that exists, else everything on this machine
	@$(BIN)/archiver serve

test: .venv/dev ## run the tests, four at a time, in four minutes (ARGS=: arguments for pytest)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest --quiet --numprocesses 4 --dist worksteal $(ARGS)

thorough: .venv/dev ## run the slow tests: outages, misbehaving hosts, conversions
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest --quiet -m thorough --numprocesses 3 --dist worksteal $(ARGS)

campaign: .venv/dev ## run 60 faults against a fleet of real processes, alone, in three minutes
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest --quiet -m campaign $(ARGS)

faults: .venv/dev ## run 1000 faults in an hour, and write docs/reliability.md (ARGS=--seed N --faults N …)
	@$(BIN)/python -m tests.faults $(or $(ARGS),--report docs/reliability.md)

clients: .venv/dev ## run the commands in docs/how-to, and Apache, with the real programs (.ci/run installs them)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest --quiet -m programs --numprocesses 6 --dist worksteal \
		$(ARGS)

client: .venv/dev ## build dist/archiver.pyz: the client as one file for Python 3.9 or later
	@rm -rf build/client && mkdir -p dist
	@$(INSTALL) --target build/client --python-version 3.9 --only-binary :all: --no-deps --require-hashes \
		-r requirements/zipapp.txt
	@$(BIN)/python tools/zipapp_client.py dist/archiver.pyz build/client

check: .venv/dev ## check format, lint, types and layers
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

docs: .venv/dev ## copy texts of the code into docs/reference, and make the dashboard
	@$(BIN)/python -m tests.docs.reference
	@$(BIN)/python -m tools.dashboard > deploy/grafana/dashboard.json

bench: .venv/bench ## run the benchmarks, and write docs/benchmarks.md (ARGS=: topics, --quick)
	@$(BIN)/python -m benchmarks $(ARGS)

format: .venv/dev ## format, and fix what ruff can fix
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix --quiet .

lock: .venv/dev ## update requirements/*.txt
	@$(LOCK) --upgrade --extra dev -o requirements/dev.txt
	@$(LOCK) --extra bench -c requirements/dev.txt -o requirements/bench.txt
	@$(LOCK) --extra demo -c requirements/dev.txt -o requirements/demo.txt
	@$(LOCK) --extra embedded -c requirements/dev.txt -o requirements/run.txt
	@$(LOCK) --extra otel -c requirements/dev.txt -o requirements/otel.txt
	@$(LOCK) --extra server -c requirements/dev.txt -o requirements/server.txt
	@$(BIN)/uv pip compile --quiet --python-version 3.9 --generate-hashes --no-annotate --no-header \
		--no-emit-index-url --upgrade requirements/zipapp.in -o requirements/zipapp.txt

clean: ## remove the virtual environment and all caches
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Each is an empty file: the time at which requirements/….txt was last installed into .venv.
.venv/demo .venv/dev .venv/bench: .venv/%: requirements/%.txt pyproject.toml | .venv/bin
	@echo "Installing requirements/$*.txt into .venv …" >&2
	@$(INSTALL) --require-hashes -r $<
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

.venv/bin:
	@$(PYTHON) -c 'import sys; sys.exit("Archiver needs Python 3.11 or later: make PYTHON=python3.…" \
		if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv .venv
