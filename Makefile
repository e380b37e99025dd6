# What README calls. Needs GNU make, a POSIX shell and Python 3.11 or newer
# with venv. Everything is installed into $(VENV), nothing outside it.
#   make PYTHON=python3.12 VENV=/somewhere/venv ...

PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
# Tests of a file share fixtures and stay together; a worker has one thread.
WORKERS ?= 2
PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist loadfile

# Threads that spin while they wait make two cores slower, not faster.
export OMP_WAIT_POLICY = PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK = 1

TABLES = README.md recipes/commonvoice/README.md recipes/pretrain/README.md s3router/assets/tiny/README.md

.PHONY: help install quickstart test test-fast lint format results bench clean

help:
	@echo "make install     create $(VENV) and install (train extra)"
	@echo "make quickstart  install, then the whole chain on synthetic speech"
	@echo "make test        install, then all tests"
	@echo "make test-fast   the same without the slow tests"
	@echo "make lint        ruff: rules and layout"
	@echo "make format      let ruff mend both"
	@echo "make results     fill the tables of the READMEs from result JSONs"
	@echo "make bench       time masks and training steps"
	@echo "make clean       remove what tests and builds leave behind"

# --- installation: once, and again when setup.py changes -------------------
# A stamp is written only after pip has succeeded.

$(VENV)/.s3router-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	"s3router needs Python 3.11 or newer, $(PYTHON) is " \
	+ sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.s3router-train: setup.py pyproject.toml | $(VENV)/.s3router-venv
	$(PY) -m pip install -e ".[train]"
	@touch $@

$(VENV)/.s3router-synthetic: $(VENV)/.s3router-train
	@echo "Synthetic speech comes from the eSpeak NG library (GPL-3), which"
	@echo "the package espeakng-loader brings. It is optional, used for the"
	@echo "quickstart and the tests only, and no part of s3router."
	$(PY) -m pip install -e ".[train,synthetic]"
	@touch $@

$(VENV)/.s3router-dev: $(VENV)/.s3router-synthetic
	$(PY) -m pip install -e ".[train,synthetic,dev]"
	@touch $@

install: $(VENV)/.s3router-train

# --- the commands ----------------------------------------------------------

quickstart: $(VENV)/.s3router-synthetic
	$(VENV)/bin/s3router quickstart $(ARGS)

test: $(VENV)/.s3router-dev
	$(PYTEST) $(ARGS)

test-fast: $(VENV)/.s3router-dev
	$(PYTEST) -m "not slow" $(ARGS)

lint: $(VENV)/.s3router-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(VENV)/.s3router-dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

results: $(VENV)/.s3router-train
	$(PY) -m s3router.evaluation.tables $(TABLES)

bench: $(VENV)/.s3router-train
	@# Not benchmarks/encoder.py: it trains for hours, on data of its own.
	@# Nor benchmarks/export.py: it exports for half an hour.
	@for script in benchmarks/mask_refresh.py benchmarks/train_step.py; do \
		echo "$(PY) $$script"; $(PY) "$$script" || exit 1; \
	done

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print \
		| xargs rm -rf
