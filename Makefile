# What developers run most; CONTRIBUTING.md explains it. `make PYTHON=...` uses another Python than that of .venv-test.
PYTHON ?= $(firstword $(wildcard .venv-test/bin/python) python3)
WORKERS ?= 2

# The builds of ffmpeg that `make builds` tests; those that tests/builds/fetch.py knows.
BUILDS ?= 4.2.2 6.0 7.0.2 9.0.2
# The releases of Debian that `make debian` tests.
DEBIAN ?= trixie forky
CHROOTS ?= /var/tmp/recording-muxer-debian

.PHONY: fmt lint test test-all builds packages debian windows docs bench

fmt: ## format the code
	$(PYTHON) -m ruff check --select I --fix -q .
	$(PYTHON) -m ruff format .

lint: ## everything that is checked without running the program
	$(PYTHON) -m tools.lint

test: ## the fast tests: no server, under 90 seconds
	$(PYTHON) -m pytest -n $(WORKERS) -m fast

test-all: ## all tests, with the branches that they cover
	$(PYTHON) -m pytest -n $(WORKERS) --cov --cov-branch --cov-report=term:skip-covered

builds: ## every kind of media with several builds of ffmpeg
	found=$$($(PYTHON) tests/builds/fetch.py --all-of $(BUILDS)) || exit; \
	printf '%s\n' "$$found" | while read -r name folder; do echo "ffmpeg $$name"; \
	    FFMPEG_DIR=$$folder $(PYTHON) -m pytest -n $(WORKERS) tests/integration/test_engine_kinds.py \
	    tests/integration/test_engine_broken.py || exit; done

packages: ## the main tests with the lowest and the newest versions of the packages
	$(PYTHON) -m pytest tests/platforms/test_package_bounds.py

debian: ## the demo and the tests in other releases of Debian; as root
	for suite in $(DEBIAN); do tests/platforms/debian.sh check $$suite $(CHROOTS)/$$suite demo test || exit; done

windows: ## the muxer on Windows, in Wine
	$(PYTHON) -m pytest tests/windows

docs: ## the documentation as a site in site/
	$(PYTHON) -m mkdocs build --strict

bench: ## the benchmarks; alone on the machine
	$(PYTHON) -m tests.bench
