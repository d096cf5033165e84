# Needs Python 3.11 or later and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: study test test-computing test-ray test-slow clean

study: .venv/installed
	$(BIN)/python -m raystudy.tune

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) --no-print-directory --jobs=2 test-computing test-ray

# A core each: what computes, and what mostly waits, for its Ray, of which there is one for all of these tests, or for a
# browser.
test-computing: .venv/installed-dev
	$(BIN)/python -m pytest -q -m "not slow and not ray and not browser"

test-ray: .venv/installed-dev
	$(BIN)/python -m pytest -q -m "not slow and (ray or browser)"

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -m slow

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv
