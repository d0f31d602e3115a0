# Each target sets up its own environment first; `make help` lists them.
# Another Python or folder:  make test PYTHON=python3.12 VENV=.venv312

PYTHON ?= python3
VENV ?= .venv
# How many processes the tests run in, and anything else for pytest: make test PYTEST_ARGS="-k twin"
WORKERS ?= auto
PYTEST_ARGS ?=

PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
LOG := .cache/setup.log
RECENT := import sys; sys.exit(sys.version_info < (3, 11))
PYTEST := $(PY) -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint docs bench clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## Only create the environment (the other targets do so where it is missing)

demo: $(STAMP) ## Fit a mixture to the iris data with every engine; writes out/demo/report.html
	@$(PY) examples/iris_mixture.py --out out/demo

test: $(STAMP) ## Run the tests, without the slow ones
	@$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-slow: $(STAMP) ## Run all the tests
	@$(PYTEST) $(PYTEST_ARGS)

lint: $(STAMP) ## Check style (ruff) and types (mypy)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy ppl_lvm

docs: $(STAMP) ## Build the documentation in docs/_build/html; a warning is an error
	@$(PY) -m sphinx -q -E -W --keep-going -b html -d .cache/doctrees docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(STAMP) ## Run the benchmarks
	@$(PY) benchmarks/run.py

clean: ## Remove what the other targets made, except the environment
	@rm -rf .cache out docs/_build build dist
	@find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

# An environment that works is kept and brought up to date; one that is broken or too old is made anew.
$(STAMP): pyproject.toml constraints.txt
	@mkdir -p .cache
	@$(PY) -c 'import pip; $(RECENT)' 2>/dev/null || $(PYTHON) -c '$(RECENT)' 2>/dev/null || { \
	  echo "ppl_lvm needs Python 3.11 or newer, but '$(PYTHON)' gives: $$( ($(PYTHON) -V) 2>&1 | head -n 1 );" \
	    "install one and name it, as in: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up $(VENV) (2-5 minutes, once; details in $(LOG)) ..."
	@{ $(PY) -c 'import pip; $(RECENT)' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV); } >$(LOG) 2>&1 && \
	  $(PY) -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev,docs,bench,dask]' >>$(LOG) 2>&1 || { \
	  why=$$(grep -i 'error: ' $(LOG) | grep -v subprocess-exited | tail -n 1 | sed 's/^ *//'); \
	  echo "Set-up failed: $${why:-$$(tail -n 1 $(LOG))} -" \
	    "check the network and the free disk space (6 GB), then run make again; the whole log: $(LOG)" >&2; exit 1; }
	@touch $@
