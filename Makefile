# aml-mirror: everything a person does here, as one word. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Terraform asks for updates unless told not to.
export CHECKPOINT_DISABLE := 1

.PHONY: help venv mlflow2 reference demo accept recording bench bench-scale test test-servers test-nightly test-kill test-faults test-truth test-watch test-labs test-frameworks mutate fuzz wheels-arm64 lint format lock azure-up azure-down clean \
	base build push sbom audit engine-up engine-down

help:  ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(VENV)/.ready  ## Set up .venv with the program and all that its tests need

# The lock holds every package with its hash; the program itself is installed in place, without resolving.
$(VENV)/.ready: requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.13 …")'
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: on Debian, apt-get install python3-venv"; exit 1; }
	@echo "installing what the lock names into $(VENV) (once)" >&2
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

reference: venv  ## Write the options' reference into entrypoint/README.md
	@$(BIN)/python -m aml_mirror.cli.reference entrypoint/README.md

recording: venv  ## Record the terminal of the README again
	@$(BIN)/python scripts/record_terminal.py entrypoint/terminal.svg

demo: venv  ## Mirror a small run into a local MLflow, twice
	@$(BIN)/python scripts/demo.py .demo

accept: venv  ## Try everything in the real workspace that AZURE_… and AZUREML_WORKSPACE_NAME name; prints a table
	@$(BIN)/python scripts/accept.py .accept

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

# The last MLflow 2.x as a server, whose dependencies exclude ours: an environment of its own.
MLFLOW2 := .venv-mlflow2
$(MLFLOW2)/.ready: tests/registries/mlflow2.txt
	@$(PYTHON) -m venv $(MLFLOW2)
	@echo "installing MLflow 2 into $(MLFLOW2) (once)" >&2
	@$(MLFLOW2)/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r tests/registries/mlflow2.txt
	@touch $@

mlflow2: $(MLFLOW2)/.ready  ## Install an MLflow 2 server, which some tests need

# What some tests start from Debian's packages. Root on Debian gets it; for others the tests say what to install.
test-servers:
	@PATH="$$PATH:/usr/sbin"; missing=(); command -v nginx >/dev/null || missing+=(nginx-light); \
		command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql); \
		command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium fonts-dejavu-core); \
		for shell in zsh fish; do command -v $$shell >/dev/null || missing+=($$shell); done; \
		if (($${#missing[@]})) && [[ $$(id -u) == 0 && -e /etc/debian_version ]]; then \
			echo "installing $${missing[*]} (once)" >&2; \
			apt-get -qq update || true; \
			DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq install --no-install-recommends "$${missing[@]}" >/dev/null; \
		fi

# Three per core, because many tests wait: for a lease to end, or before a service is tried again. Each worker takes
# ten seconds of a core before its first test, to load the clients and collect the tests.
WORKERS ?= $(shell echo $$((3 * $$(nproc 2>/dev/null || echo 2))))
# In a random order, the same for the same seed.
export TEST_SEED
# A part of a target that takes long, as 1/3: the same tests each time.
export TEST_SHARE
# With an engine for the tests of the image, unless TESTS names others only.
ENGINE = $(if $(or $(if $(TESTS),,all),$(findstring image,$(TESTS))),image/engine.sh with)
# Else every process of a test compiles all that it loads.
unexport PYTHONDONTWRITEBYTECODE
test: venv mlflow2 test-servers $(AZURITE)  ## Run every test
	@command -v terraform >/dev/null || { echo "terraform 1.9 or newer is needed for the tests of the module"; exit 1; }
	@$(ENGINE) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

test-nightly: venv mlflow2 test-servers $(AZURITE)  ## Run the tests that take minutes each
	@image/engine.sh with $(BIN)/python -m pytest -m nightly $(TESTS)

test-kill: venv mlflow2 test-servers $(AZURITE)  ## Kill and freeze at every request; the largest numbers of orders and runs
	@KILL=all STOPS=all $(BIN)/python -m pytest -m "nightly or not nightly" -n $(WORKERS) --dist worksteal tests/registries/test_mlflow_kill.py \
		tests/azure/test_azureml_kill.py tests/azure/test_one_pass.py tests/registries/test_bakery_lock.py \
		tests/backfill/test_backfill_many.py tests/registries/test_mlflow_stages_kill.py \
		tests/azure/test_stages_kill.py tests/azure/test_share.py tests/azure/test_prune.py \
		tests/azure/test_azureml_writers.py tests/pull/test_pull_azureml.py tests/pull/test_pull_mlflow.py \
		tests/export/test_export.py

WATCH_PASSES ?= 500
test-watch: venv  ## Watch a simulated cluster for WATCH_PASSES passes, disturbed in every way
	@WATCH_PASSES=$(WATCH_PASSES) $(BIN)/python -m pytest -q tests/watch/test_simulation.py

LABS ?= 1000
test-labs: venv  ## Find and register every run of LABS generated labs, 1,000 or a part: LABS=400-600
	@AML_MIRROR_LABS=$(LABS) $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal \
		-o tmp_path_retention_policy=failed tests/backfill/test_labs.py

# Atheris is needed for nothing else and has wheels for few Pythons: an environment of its own.
FUZZ := .venv-fuzz
FUZZ_SECONDS ?= 60
$(FUZZ)/.ready: requirements.txt
	@$(PYTHON) -m venv $(FUZZ)
	@$(FUZZ)/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
	@$(FUZZ)/bin/python -m pip install -q --disable-pip-version-check --only-binary :all: 'atheris>=3,<4'
	@touch $@

fuzz: $(FUZZ)/.ready  ## Fuzz what reads a run, FUZZ_SECONDS a target
	@mkdir -p tests/fuzz/.findings
	@for target in events safetensors archive pickle layouts settings; do echo "== $$target"; \
		PYTHONPATH=entrypoint $(FUZZ)/bin/python tests/fuzz/fuzz.py $$target -max_total_time=$(FUZZ_SECONDS) \
			-rss_limit_mb=2048 -timeout=10 -artifact_prefix=tests/fuzz/.findings/ -print_final_stats=1 2>&1 | tail -n 8; done

# Mutation testing: MUTATE names parts of tests/mutation/parts.toml, as "manifest points:1"; all of them take hours.
MUTATION := .venv-mutate
$(MUTATION)/.ready: Makefile
	@$(PYTHON) -m venv $(MUTATION)
	@$(MUTATION)/bin/python -m pip install -q --disable-pip-version-check 'cosmic-ray==8.3.4'
	@touch $@

mutate: venv mlflow2 $(AZURITE) $(MUTATION)/.ready  ## Change one thing at a time and see whether a test notices
	@$(MUTATION)/bin/python tests/mutation/mutate.py $(MUTATE)

# The newest frameworks, whose dependencies exclude each other's and ours: an environment of its own.
FRAMEWORKS := .venv-frameworks
# A range without an end would take a build of PyTorch for GPUs, of several GB, where a smaller one is at hand.
FRAMEWORK_PACKAGES := torch==2.13.0 numpy scikit-learn joblib safetensors stable-baselines3 skrl rl-games rsl-rl-lib \
	tensordict onnx onnxruntime keras h5py flax optax orbax-checkpoint brax diffusers transformers peft lightning \
	omegaconf gymnasium
$(FRAMEWORKS)/.ready: Makefile
	@$(PYTHON) -m venv $(FRAMEWORKS)
	@$(FRAMEWORKS)/bin/python -m pip install -q --disable-pip-version-check --upgrade $(FRAMEWORK_PACKAGES)
	@touch $@

test-frameworks: venv $(FRAMEWORKS)/.ready  ## Judge what the newest frameworks write; load it again after a pull
	@rm -rf $(FRAMEWORKS)/files
	@$(FRAMEWORKS)/bin/python tests/frameworks/make_benign.py $(FRAMEWORKS)/files
	@FRAMEWORK_FILES=$(FRAMEWORKS)/files FRAMEWORKS=$(abspath $(FRAMEWORKS))/bin/python \
		$(BIN)/python -m pytest tests/frameworks

test-truth: venv $(AZURITE)  ## Change each kind of file at each stage of a mirror, in each way
	@TRUTH=all $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/azure/test_azureml_truth.py

test-faults: venv $(AZURITE)  ## Disturb a mirror and a pull at every stage, in every way
	@FAULTS=all $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/azure/test_azureml_fault_matrix.py \
		"tests/azure/test_azureml.py::test_runs_that_real_frameworks_wrote" \
		tests/pull/test_pull_azureml.py::test_disturbed_at_every_stage \
		tests/pull/test_pull_mlflow.py::test_disturbed_at_every_stage

# The image; image/README.md tells these variables and the rest: REGISTRY, PLATFORMS, BASE_IMAGE, ALLOW_DIRTY.
IMAGE ?= aml-mirror
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' entrypoint/aml_mirror/__init__.py)
DIRTY = $(shell test -z "$$(git status --porcelain 2>/dev/null | head -1)" || echo -dirty)
TAG ?= $(VERSION)-$(shell git rev-parse --short=12 HEAD 2>/dev/null)$(DIRTY)
build push sbom: export VERSION := $(VERSION)
build push sbom: export TAG := $(TAG)
build push sbom: export IMAGE := $(IMAGE)
build push sbom: export REFERENCE ?= $(IMAGE):$(TAG)
build push sbom: export REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)$(DIRTY)
build push sbom: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
build push sbom: export SOURCE ?= $(shell git remote get-url origin 2>/dev/null || echo unknown)
export REGISTRY PLATFORMS BASE_IMAGE BUILD_NETWORK NO_CACHE ALLOW_DIRTY

build:  ## Build the image, print its name, size and the digest of its files
	@image/build.sh

push:  ## Build it, push it to REGISTRY, print its name by digest
	@image/push.sh

base:  ## Make a base image from Debian's mirror, where no registry can be reached
	@image/base.sh aml-mirror-base:trixie

sbom:  ## Print the CycloneDX list of all that the image holds
	@image/build.sh >&2
	@"$$(image/engine.sh client)" run --rm --entrypoint cat "$$REFERENCE" /usr/share/aml-mirror/sbom.cdx.json

audit: venv  ## Look for known vulnerabilities of the packages in the image
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r requirements.txt

engine-up:  ## Start a container engine where none answers (root on Debian)
	@image/engine.sh up

engine-down:  ## Stop it
	@image/engine.sh down

# The program beside what people would use instead; NAME is one of those that `make bench-` says.
BENCH := PYTHONPATH=tests:tests/azure $(BIN)/python -m bench
bench: venv $(AZURITE)  ## Compare the program with others, print tables, write bench.json
	@image/engine.sh with env $(BENCH) $(BENCH_FLAGS)

bench-scale: venv $(AZURITE)  ## Likewise how cost grows, up to the largest sizes
	@$(BENCH) scale --large $(BENCH_FLAGS)

bench-%: venv $(AZURITE)
	@$(if $(findstring start,$*),image/engine.sh with) env $(BENCH) $* $(BENCH_FLAGS)

wheels-arm64: venv  ## Show that all that aml-mirror-pull needs has wheels for arm64
	@requirements=$$($(BIN)/python -c 'import tomllib; print(*(text.partition(";")[0].replace(" ", "") for text in \
		tomllib.load(open("entrypoint/light/pyproject.toml", "rb"))["project"]["dependencies"]))'); \
	for python in 3.11 3.13; do folder=$$(mktemp -d); \
		$(BIN)/python -m pip download -q --disable-pip-version-check --only-binary :all: --python-version $$python \
			--platform manylinux2014_aarch64 --platform manylinux_2_28_aarch64 -d "$$folder" $$requirements; \
		echo "Python $$python: $$(ls "$$folder" | wc -l) wheels, $$(ls "$$folder" | grep -c aarch64) of them for aarch64"; \
		rm -rf "$$folder"; done

lint: venv  ## Look at the code without running it
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict .
	$(BIN)/python tests/docs/check_words.py
	$(BIN)/python tests/docs/check_lengths.py
	git ls-files -z -- '*.sh' .ci/run | xargs -0 -r $(BIN)/shellcheck
	git ls-files -z -- '*Dockerfile' | xargs -0 -r $(BIN)/hadolint
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/actionlint
	$(BIN)/zizmor --offline --quiet --persona pedantic .github/workflows
	$(BIN)/mypy --strict image/sbom.py image/licenses.py image/tree_digest.py
	$(BIN)/mypy --strict terraform/scripts/*.py
	$(BIN)/mypy --strict scripts/replay.py scripts/replay_follow.py scripts/replay_submit.py scripts/replay_values.py
	terraform fmt -check -recursive terraform
	@# On a copy, so that no .terraform folder stays behind here.
	@copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && cp -r terraform "$$copy" && cd "$$copy/terraform" \
		&& terraform init -input=false >/dev/null && terraform validate

format: venv  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The larger set first, so that the program is tested with the very versions that it ships with.
LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q
# Of MLflow's dependencies, what a tracking server never loads.
UNUSED_IN_STACK := contourpy docker fonttools joblib kiwisolver matplotlib pillow pyarrow scikit-learn scipy skops \
	threadpoolctl
UNUSED_IN_MLFLOW2 := $(filter-out skops,$(UNUSED_IN_STACK)) cycler pyparsing
lock: venv  ## Write the lock files again from pyproject.toml
	$(BIN)/$(LOCK) pyproject.toml --extra dev -o requirements-dev.txt
	$(BIN)/$(LOCK) pyproject.toml -c requirements-dev.txt -o requirements.txt
	$(BIN)/$(LOCK) image/tools.in -c requirements-dev.txt -o image/tools.txt
	$(BIN)/$(LOCK) tests/image/stack.in -c requirements-dev.txt -o tests/image/stack.txt \
		$(UNUSED_IN_STACK:%=--no-emit-package %)
	$(BIN)/$(LOCK) tests/registries/mlflow2.in -o tests/registries/mlflow2.txt \
		$(UNUSED_IN_MLFLOW2:%=--no-emit-package %)

clean:  ## Remove what the other targets made
	rm -rf $(VENV) $(MLFLOW2) $(FRAMEWORKS) $(MUTATION) .mutation .demo .bench bench.json .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis entrypoint/*.egg-info
