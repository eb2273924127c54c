# make env    the environment in .venv/, with everything
# make demo   the main job end to end on data that needs no download
# make test   the fast tests          make test-slow   the long ones
# make lint   ruff and mypy           make clean       remove what was made
# make docs   the site in build/site  make docs-fresh  record docs/terminal.md, photograph PAGE (needs Chromium)

SUPPORTED := import sys; sys.exit(not (3, 9) <= sys.version_info[:2] < (3, 12))
PYTHON ?= $(or $(shell for p in python3 python3.11 python3.10 python3.9; do $$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done),python3)
PAGE ?= demo-out/report.html
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: env demo test test-slow lint docs docs-fresh clean
.DEFAULT_GOAL := env

env: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c '$(SUPPORTED)' || { echo "keras-xaic needs Python 3.9, 3.10 or 3.11; found $$($(PYTHON) --version 2>&1). Try: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV)/ ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,docs,litert,micro,npu,search]'
	@touch $(READY)

demo: $(READY)
	@$(BIN)/python examples/demo.py

test: $(READY)
	@$(BIN)/python -m pytest

test-slow: $(READY)
	@$(BIN)/python -m pytest -m slow

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(READY)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "$(CURDIR)/build/site/index.html"

docs-fresh: $(READY) demo
	@$(BIN)/python tools/record_terminal.py
	@$(BIN)/python tools/screenshots.py $(PAGE) --out build/pictures

clean:
	rm -rf $(VENV) demo-out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
