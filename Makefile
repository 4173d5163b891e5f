# Two commands do everything on a fresh Debian 12 or 13 machine: `make demo` and `make test`. See README.md.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
GOV := $(BIN)/mastodon-gov
CODE := deploy.py mastodon_gov roles tests inventories
# What this machine needs; named and installed when missing.
DEBIAN := python3 python3-venv systemd-container mmdebstrap nftables iproute2 zstd openssh-client debian-archive-keyring procps

.PHONY: demo test test-all unit lint bench lab-down clean setup lock wheelhouse

# RELEASE=4.6.5 RECIPE=DIR [SOURCES=FILE]: with real Mastodon, built first; otherwise a bundle in releases/, or the stand-in.
demo: setup
	@$(GOV) lab demo $(if $(RELEASE),--release $(RELEASE)) $(if $(RECIPE),--recipe $(RECIPE)) $(if $(SOURCES),--sources $(SOURCES))

# Every mechanism once, on two workers with a lab each. What only `make test-all` runs is printed at the end. The lab's
# servers are real, and on two busy cores one of them sometimes answers too late: a lab test that fails is run once
# more, alone, and the log shows both runs. What fails twice has failed.
LAB := $(BIN)/pytest --durations=15 tests/lab
BOTH := -n 2 --dist loadfile
AGAIN := { echo "=== lab tests failed (see above); those alone, once more ==="; \
  $(LAB) --last-failed --last-failed-no-failures none

test: lint unit
	@$(LAB) $(BOTH) -m "not long" || $(AGAIN) -m "not long"; }

# Every kill point and every mutation too; here nothing is run twice.
test-all: lint unit
	@$(LAB) $(BOTH)

unit: setup
	@$(BIN)/pytest -q -n 2 tests/unit

lint: setup
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/mypy

bench: setup
	@$(GOV) lab demo
	@$(BIN)/python -m tests.bench.run
	@$(BIN)/python -m tests.bench.release
	@$(BIN)/python -m tests.bench.backups
	@$(BIN)/python -m tests.bench.upgrade
	@$(BIN)/python -m tests.bench.audit

lab-down: setup
	@$(GOV) lab down && $(GOV) lab reap

clean:
	rm -rf $(VENV) *.egg-info .mypy_cache .ruff_cache

setup: $(VENV)/ready

$(VENV)/ready: requirements.txt requirements-schemas.txt pyproject.toml
	@./setup.sh "$(DEBIAN)" "$(VENV)" "$(WHEELHOUSE)"

# The Python packages for a machine without internet, in OUT=DIR; there: make demo WHEELHOUSE=DIR (docs/it-team/offline.md).
wheelhouse: setup
	@./wheelhouse.sh "$(BIN)/pip" "$(or $(OUT),releases/wheelhouse)"

# Writes requirements.txt anew: exact versions, with the hash of every file.
lock: setup
	@$(BIN)/pip install -q pip-tools
	@$(BIN)/pip-compile -q --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host --extra dev --all-build-deps -o requirements.txt pyproject.toml
