# Two commands matter: `make demo` and `make test`. Both install what they need and can be run again.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# uv from PATH, else one of this checkout's own.
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
export UV_PROJECT_ENVIRONMENT := .venv
# A foreign environment that happens to be active is not ours to change.
unexport VIRTUAL_ENV
RUN := $(UV) run --no-sync

.PHONY: help install demo test image-test soak lint clean

help: ## the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.tools/bin/uv:
	@echo "uv is not installed: fetching one for this checkout"
	@python3 -m venv .tools && .tools/bin/pip install --quiet --disable-pip-version-check uv

install: $(filter .tools/%,$(UV)) ## pulumi, stemctl and what workers on this machine need, in .venv
	@$(UV) sync --locked --inexact --extra service
	@$(RUN) stemctl engine install

demo: install ## a fleet of two workers on this machine, one song, and nothing left running
	@$(RUN) stemctl demo

test: $(filter .tools/%,$(UV)) ## everything that is checked: style, types, import rules, tests
	@$(UV) sync --locked --all-extras
	@$(RUN) stemctl engine install
	@$(MAKE) --no-print-directory lint
	@$(RUN) pytest -n 4 --dist worksteal

image-test: ## build the image, start it, separate; needs buildah, debootstrap, root, and `make test` before
	@$(RUN) pytest -m image tests/image

soak: ## engines and providers killed 200 times, workers 300, each cloud fault in each command, a song of 3 h
	@STEMFLEET_TEST_KILLS=100 $(RUN) pytest tests/e2e/test_kills.py
	@STEMFLEET_TEST_FAULTS=every $(RUN) pytest tests/e2e/test_faults.py
	@STEMFLEET_TEST_KILLS=300 $(RUN) pytest tests/service/test_kills.py
	@STEMFLEET_TEST_SONG_SECONDS=10801 $(RUN) pytest tests/e2e/test_shared_track.py

lint: ## style, types, import rules, workflows; needs what `make test` installs
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) mypy infra/__main__.py
	@$(RUN) lint-imports
	@$(RUN) check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(RUN) zizmor --offline --no-progress --quiet .github

clean: ## remove what the other targets made in this checkout
	rm -rf .venv .tools stems .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
