# make env    the environment in .venv/, with everything; make PYTHON=python3.13 env chooses a Python
# make demo   the main job end to end on data that needs no download
# make test   the fast tests          make test-slow   the long ones (test-exhaustive: all combinations)
# make fuzz   COUNT=10000 damaged files over all readers
# make lint   ruff and mypy           make clean       remove what was made
# make docs   the site in build/site  make docs-fresh  record docs/terminal.md, photograph PAGE (needs Chromium)

VENV ?= .venv
PYTHON ?= $(eval PYTHON := $$(shell sh tools/find_python.sh))$(PYTHON)
PAGE ?= demo-out/report.html
COUNT ?= 10000
SEED ?= 0
BIN := $(VENV)/bin
# A test that crashes its process ends the run: with a new process, pytest-xdist may wait for ever.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0
READY := $(VENV)/.ready
# Tests start many processes, each of which would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: env demo test test-slow test-exhaustive fuzz lint docs docs-fresh clean
.DEFAULT_GOAL := env

# The environment is made again where pyproject.toml changed or another Python is asked for.
ifneq ($(origin PYTHON),file)
ifneq ($(shell cat $(READY) 2>/dev/null),$(shell $(PYTHON) --version 2>&1))
.PHONY: $(READY)
endif
endif

env: $(READY)

$(READY): pyproject.toml
	@sh tools/make_env.sh '$(PYTHON)' '$(VENV)'

demo: $(READY)
	@$(BIN)/python examples/demo.py

test: $(READY)
	@$(PYTEST)

test-slow: $(READY)
	@$(PYTEST) -m 'slow and not exhaustive'

test-exhaustive: $(READY)
	@$(PYTEST) -m exhaustive

fuzz: $(READY)
	@$(BIN)/python -m tests.fuzz --count $(COUNT) --seed $(SEED) --keep

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
