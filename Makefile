# Everything installs into .venv of this clone; models and data packages into .cache. `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help setup demo check test bench chaos soak clean

help:   ## this list
	@grep -E '^[a-z]+: .*##|^[a-z]+:   ##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(INSTALLED)   ## make .venv with every dependency, pinned by constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED)   ## a real model on real text: score twice, select, report (writes out/demo)
	$(BIN)/python -m demo.run

check: $(INSTALLED)   ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check   ## every check and every test: unit, Ray, S3, jobs, notebook, the real model
	$(BIN)/python -m pytest

bench: $(INSTALLED)   ## scorer and selection beside limits and peers, a plan of a million units; hours on two cores (writes out/bench)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m bench.scoring
	$(BIN)/python -m bench.selection
	$(BIN)/python -m bench.selection --check
	$(BIN)/python -m bench.scale

chaos: $(INSTALLED)   ## kill processes and nodes at 100 seeded moments, compare every byte; under an hour on two cores (SEED=…, FAULT="…")
	$(BIN)/python -m tests.chaos --seed $(or $(SEED),0) $(if $(FAULT),--fault "$(FAULT)")

soak: $(INSTALLED)   ## ten thousand small units in one run: what grows with units
	$(BIN)/python -m tests.chaos.soak

clean:   ## remove what the demo wrote; keeps .venv and .cache
	rm -rf out
