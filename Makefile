# Everything starts here, from nothing but Python 3.11 or later, make and git: CONTRIBUTING.md says what each does.

VENV := .venv
BIN := $(VENV)/bin
SOURCES = $(wildcard src tests examples benchmarks)
# `make PYTHON=...` chooses the interpreter that .venv is made with; else scripts/setup.sh takes the newest.
PYTHON ?=
BENCH ?=

.PHONY: demo test lint format mypy bench docs clean system-demo system-test
.DEFAULT_GOAL := test

demo: $(VENV)/installed system-demo
	$(BIN)/neatpy demo

test: lint system-test
	$(BIN)/python -m pytest --cov --cov-report=term

lint: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy $(SOURCES)

mypy: $(VENV)/installed
	$(BIN)/mypy $(SOURCES)

format: $(VENV)/installed
	$(BIN)/ruff check --fix --exit-zero
	$(BIN)/ruff format

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks $(BENCH)

docs: $(VENV)/installed
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf $(VENV) build dist docs/_build docs/_generated .coverage .coverage.* .hypothesis .import_linter_cache \
		.mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: pyproject.toml scripts/setup.sh
	@PYTHON='$(PYTHON)' sh scripts/setup.sh $(VENV)
	@touch $@

system-demo: $(VENV)/installed
	@sh scripts/system-packages.sh $(VENV) demo

system-test: $(VENV)/installed
	@sh scripts/system-packages.sh $(VENV) test
