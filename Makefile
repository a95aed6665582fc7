# aml-mirror: everything a person does here, as one word. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Terraform asks for updates unless told not to.
export CHECKPOINT_DISABLE := 1

.PHONY: help venv demo test test-kill lint format lock azure-up azure-down clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(VENV)/.ready  ## Set up .venv with the program and all that its tests need

# The lock holds every package with its hash; the program itself is installed in place, without resolving.
$(VENV)/.ready: requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.13 …")'
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: on Debian, apt-get install python3-venv"; exit 1; }
	@echo "installing what the lock names into $(VENV) (once)" >&2
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: venv  ## Mirror a small run into a local MLflow, twice
	@$(BIN)/python scripts/demo.py .demo

# The emulated Azure keeps its blobs in the real Azurite, which comes from npm.
AZURITE := tests/azure/node_modules/.package-lock.json
$(AZURITE): tests/azure/package-lock.json
	@command -v npm >/dev/null || { echo "npm is needed for Azurite: on Debian, apt-get install npm (Node.js 20 or newer)"; exit 1; }
	@npm ci --prefix tests/azure --no-audit --no-fund --loglevel=error
	@touch $@

EMULATOR = PYTHONPATH=tests/azure $(BIN)/python -m azure_emulator
azure-up: venv $(AZURITE)  ## Start the emulated Azure, print the environment to export
	@$(EMULATOR) up

azure-down: venv  ## Stop it
	@$(EMULATOR) down

# Three a core: many tests wait, for leases to run out and for services to be tried again.
WORKERS ?= $(shell echo $$((3 * $$(nproc 2>/dev/null || echo 2))))
test: venv $(AZURITE)  ## Run every test
	@command -v terraform >/dev/null || { echo "terraform 1.9 or newer is needed for the tests of the module"; exit 1; }
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

test-kill: venv  ## Kill a mirror at every request, before and after the server acted
	@KILL=all $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/test_kill.py

lint: venv  ## Look at the code without running it
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/yamllint --strict .
	git ls-files -z -- '*.sh' .ci/run | xargs -0 -r $(BIN)/shellcheck
	$(BIN)/mypy --strict scripts/osmo_pod_template.py scripts/osmo_config_cli.py scripts/pod_template_merge.py scripts/pod_template_spec.py
	terraform fmt -check -recursive terraform
	@# On a copy, so that no .terraform folder stays behind here.
	@copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && cp -r terraform scripts "$$copy" && cd "$$copy/terraform" \
		&& terraform init -input=false >/dev/null && terraform validate

format: venv  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The larger set first, so that the program is tested with the very versions that it ships with.
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q
lock: venv  ## Write the lock files anew from pyproject.toml
	$(BIN)/$(LOCK) --extra dev -o requirements-dev.txt
	$(BIN)/$(LOCK) -c requirements-dev.txt -o requirements.txt

clean:  ## Remove what the other targets made
	rm -rf $(VENV) .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis entrypoint/*.egg-info
