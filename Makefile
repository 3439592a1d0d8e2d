# What developers run most; CONTRIBUTING.md explains it. `make PYTHON=...` uses another Python than that of .venv-test.
PYTHON ?= $(firstword $(wildcard .venv-test/bin/python) python3)
WORKERS ?= 2

.PHONY: fmt lint test test-all windows docs bench

fmt: ## format the code
	$(PYTHON) -m ruff check --select I --fix -q .
	$(PYTHON) -m ruff format .

lint: ## everything that is checked without running the program
	$(PYTHON) -m tools.lint

test: ## the fast tests: no server, under 90 seconds
	$(PYTHON) -m pytest -n $(WORKERS) -m fast

test-all: ## all tests, with the branches that they cover
	$(PYTHON) -m pytest -n $(WORKERS) --cov --cov-branch --cov-report=term:skip-covered

windows: ## the muxer on Windows, in Wine
	$(PYTHON) -m pytest tests/windows

docs: ## the documentation as a site in site/
	$(PYTHON) -m mkdocs build --strict

bench: ## the benchmarks; alone on the machine
	$(PYTHON) -m tests.bench
