# make demo: set up, then learn the embedded stream. make test: everything that CI checks.
PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/installed

.PHONY: demo test check tests fuzz kills clean

demo: $(INSTALLED)
	$(VENV)/bin/lasem run

test: check tests

check: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# two workers with one thread each: more runnable threads than cores is ruinous
tests: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n 2

# the long forms of tests that CI has in small
fuzz: $(INSTALLED)
	OMP_NUM_THREADS=1 LASEM_FUZZ=1 $(VENV)/bin/pytest tests/fuzz -n 2

kills: $(INSTALLED)
	OMP_NUM_THREADS=1 LASEM_KILLS=200 $(VENV)/bin/pytest tests/cli/test_daily_use.py -k killed

$(INSTALLED): pyproject.toml constraints/ci.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lasem needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints/ci.txt -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
