# `make demo`, `make test` and `make bench` need only make and Python 3.11 or newer; they build .venv on first use.
# PYTHON=/path/to/python3.11 chooses the interpreter; ARGS="..." is handed to demo, pytest or bench.

PYTHON ?= $(shell for p in python3.11 python3; do \
    $$p -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
ARGS ?=
BIN := .venv/bin
INSTALLED := .venv/.installed
RIVALS := .venv/.bench

.PHONY: demo test bench format lint types pytest browser

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py $(ARGS)

test: lint types pytest

# Eight minutes; a run that was killed goes on where it was. ARGS="--device cpu", for example.
bench: $(RIVALS)
	$(BIN)/python -m benchmarks run --quick --report $(ARGS)

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/pyright

pytest: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --maxprocesses=4 $(ARGS)

# Opens TensorBoard in the system's Chromium; SCREENSHOTS=docs/img keeps the pictures of the docs.
browser: $(INSTALLED)
	@command -v chromium chromium-browser google-chrome >/dev/null || { \
	    echo "Chromium was not found; install it: sudo apt-get install chromium, or dnf install chromium"; exit 1; }
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[browser]'
	$(BIN)/python -m pytest -m browser tests/browser $(ARGS)

# torch goes in by itself first: the later, larger install then keeps that build and never looks for another.
# The stamp is written last, so an install that failed half-way is done again.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv was not found; say make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[demo,plots,dev]'
	touch $@

# The libraries that fitkit is compared with.
$(RIVALS): $(INSTALLED)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[bench]'
	touch $@
