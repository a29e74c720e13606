# SageServe's commands. `make` or `make help` lists them; demo and test set up everything they need.
#
#   make PY=/path/to/python3.12      another Python (3.11 or newer)
#   make VENV=/elsewhere             another place for the virtual environment

SHELL := bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.sageserve-installed
LOCK := requirements.lock
PIP := $(BIN)/python -m pip --disable-pip-version-check
NEWEST := $(VENV)-newest
OLDEST := $(VENV)-oldest
MUTANTS := $(VENV)-mutants
PY ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
WORKERS ?= 3 # on two cores: many tests wait for processes
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q
ANYWHERE := $(addprefix tests/,cli data docs installed live show)

export PYTHONDONTWRITEBYTECODE := # where an image sets it, each of a thousand processes would compile every module again

.PHONY: help demo demo-live test test-anywhere test-newest test-oldest mutants check lint format docs bench install lock sbom clean

help: ## list these commands
	@echo "SageServe: make <command>"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name text; do \
		printf '  %-14s %s\n' $$name "$$text"; done

demo: $(STAMP) ## set up, then compare what a day costs with an autoscaler and with SageServe
	@$(BIN)/sageserve compare quickstart --strategies fixed:4,hpa,reactive,foresight --baseline hpa

demo-live: $(STAMP) ## a fleet of emulated engines, traffic, and a real Prometheus that scrapes it; Ctrl-C ends it
	@$(BIN)/python -m bench.demo_live

test: $(STAMP) ## set up, compile the kernels once, then run the whole test suite
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null & \
		$(BIN)/python -m sageserve.cli.main warm-up && wait # one core compiles kernels, the other what every worker would compile
	@$(PYTEST) --durations=5

test-anywhere: $(STAMP) ## what prints or reads files: on a long path, a narrow terminal, other locale and zone, in two random orders
	@$(BIN)/python -m sageserve.cli.main warm-up
	@base=$$(mktemp -d) && trap 'rm -rf "$$base"' EXIT && long=$$base/$$(printf "%0$$((119 - $${#base}))d" 0) && mkdir "$$long" && \
	for seed in 1 2; do echo "order $$seed" && \
		TMPDIR=$$long COLUMNS=60 LC_ALL=C TZ=Asia/Kathmandu $(PYTEST) -p randomly --randomly-seed=$$seed $(ANYWHERE) || exit; done

test-newest: ## the same with the newest of everything pyproject.toml allows, in an environment of its own
	$(call make_venv,$(NEWEST))
	@$(NEWEST)/bin/python -m pip install --disable-pip-version-check --progress-bar off --quiet \
		--upgrade --upgrade-strategy eager --editable '.[all,dev]'
	@touch $(NEWEST)/$(notdir $(STAMP))
	@$(MAKE) VENV=$(NEWEST) test

test-oldest: $(STAMP) ## the same with the oldest of everything pyproject.toml allows a user, in an environment of its own
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(OLDEST)
	@$(BIN)/uv pip compile --quiet --resolution lowest-direct --upgrade --no-annotate --output-file $(OLDEST)/oldest.txt \
		--extra all pyproject.toml
	@$(BIN)/uv pip install --quiet --python $(OLDEST) --constraint $(OLDEST)/oldest.txt --editable '.[all,dev]'
	@touch $(OLDEST)/$(notdir $(STAMP))
	@$(MAKE) VENV=$(OLDEST) test

mutants: $(STAMP) ## try whether tests see small faults: PART=core ENDING=7 ONLY='*spot*', see CONTRIBUTING.md; in an environment of its own
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(MUTANTS)
	@$(BIN)/uv pip install --quiet --python $(MUTANTS) --require-hashes --requirement $(LOCK)
	@$(BIN)/uv pip install --quiet --python $(MUTANTS) --editable '.[mutants]'
	@$(MUTANTS)/bin/python -m tests.extended.mutants $(PART) $(if $(ENDING),--ending $(ENDING)) $(if $(ONLY),--only '$(ONLY)')

check: lint test ## everything a change must pass: lint, format, types, layers, tests

lint: $(STAMP) ## lint, format, types and layers, without the tests
	@echo "ruff check" && $(BIN)/ruff check --quiet
	@echo "ruff format --check" && $(BIN)/ruff format --check --quiet
	@echo "mypy" && $(BIN)/mypy
	@echo "lint-imports" && $(BIN)/lint-imports

format: $(STAMP) ## rewrite the code the way lint wants it
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format

docs: $(STAMP) ## build the documentation as a site in build/site; a broken link or heading ends it
	@$(BIN)/zensical build --strict --clean
	@echo "open build/site/index.html, or with search: python3 -m http.server --bind 127.0.0.1 --directory build/site"

bench: $(STAMP) ## measure: one JSON line per figure, see bench/README.md
	@$(BIN)/python bench/run.py

install: $(STAMP) ## only set up the virtual environment

lock: $(STAMP) ## write requirements.lock after a change of pyproject.toml; UPGRADE=--upgrade takes the newest of everything
	@$(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --extra dev --generate-hashes $(UPGRADE) \
		--custom-compile-command 'make lock' --output-file $(LOCK)
	@$(MAKE) install

sbom: $(STAMP) ## what an install brings along, as CycloneDX, from requirements.lock: build/sageserve.cdx.json
	@mkdir -p build && $(BIN)/python -m bench.sbom > build/sageserve.cdx.json && echo build/sageserve.cdx.json

clean: ## remove caches and build products; the virtual environment stays
	@rm -rf build dist .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage htmlcov
	@find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call make_venv,FOLDER): a virtual environment; a half-made one (no pip) is completed, never deleted.
define make_venv
	@if [ -z "$(PY)" ]; then \
		echo "SageServe needs Python 3.11 or newer and found none." >&2; \
		echo "Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.12)," >&2; \
		echo "or name one: make PY=/path/to/python3" >&2; exit 1; fi
	@if ! $(1)/bin/python -m pip --version >/dev/null 2>&1; then \
		echo "Making a virtual environment in $(1) with $(PY)"; \
		$(PY) -m venv $(1) || { \
			echo "$(PY) cannot make virtual environments here." >&2; \
			echo "Install its venv module (Debian, Ubuntu: apt install python3-venv or python3.11-venv)," >&2; \
			echo "or name another Python: make PY=/path/to/python3" >&2; exit 1; }; fi
endef

# Rebuilt when the dependencies may have changed. What is installed is what the lock names, by hash: the same tomorrow as today.
$(STAMP): pyproject.toml $(LOCK)
	$(call make_venv,$(VENV))
	@echo "Installing SageServe and its tools into $(VENV) (about 1 GB, a few minutes the first time)"
	@set -o pipefail; $(PIP) install --progress-bar off --require-hashes --requirement $(LOCK) \
		| sed -un -e 's/^ *Downloading \([^ ]*\) (\(.* MB\))/  fetch \1 (\2)/p' -e 's/^Installing collected.*/  install/p'
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
