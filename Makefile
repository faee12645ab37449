# Every target sets itself up: a virtual environment in .venv, once; a second run starts at once.
PYTHON ?= python3
WORKERS ?= 2
OUT ?= out

BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test test-all check format bench clean
help: ## List the targets.
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "expected Python 3.11 or newer as $(PYTHON): call make with PYTHON=python3.12, say" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "paradrift: making the virtual environment .venv"; $(PYTHON) -m venv .venv; }
	@echo "paradrift: installing the package and its tools into .venv (some minutes the first time)"
	@$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP) ## Draw digits sequentially and in parallel, side by side.
	@echo "paradrift: drawing 4 digits with DDPM, 1000 steps, no guidance, first sequentially (the slowest part), then in parallel"
	@echo "paradrift: pictures go to $(OUT)/; the window is fixed, because on a busy machine the planner may prefer none"
	@$(BIN)/paradrift sample --window 16 --guidance 1 --out $(OUT)

test: $(STAMP) ## Run the default tests.
	@echo "paradrift: running the tests"
	@$(BIN)/python -m pytest -q -n $(WORKERS)

test-all: $(STAMP) ## Run all tests, slow ones and many more random examples included.
	@echo "paradrift: running all tests, the slow ones too"
	@HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -q -n $(WORKERS) --run-slow

check: $(STAMP) ## Format, lint, types, layers, docstrings.
	@echo "paradrift: checking format, lint, types, layers and docstrings"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/pydoclint --quiet src

format: $(STAMP) ## Rewrite the code in the project's format.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(STAMP) ## Run the benchmarks; adds JSON lines to benchmarks/results.
	@echo "paradrift: running the benchmarks; results go to benchmarks/results/"
	@$(BIN)/paradrift bench --out benchmarks/results

clean: ## Remove the virtual environment and everything made.
	@rm -rf .venv $(OUT) .pytest_cache .ruff_cache .hypothesis .import_linter_cache
