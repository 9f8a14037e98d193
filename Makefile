# Everything installs into .venv of this clone; models and data packages into .cache. `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: help setup lock demo demo-full check test tests fuzz families faults chaos soak audit bench clean

help:   ## this list
	@grep -E '^[a-z-]+: .*##|^[a-z]+:   ##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(INSTALLED)   ## make .venv with every dependency, by the hashes of requirements.lock, and the demo's model
	$(BIN)/python -m demo.model

# Everything by its hash, but torch: a GPU machine takes another build of it (with its CUDA packages) than one without.
# Compiled on all cores at the end, where pip takes one, but for tests and the hundreds of models of which few are used; some
# packages hold files that no Python compiles.
$(INSTALLED): pyproject.toml constraints.txt requirements.lock
	$(PYTHON) -m venv .venv
	$(PIP) install --no-compile --require-hashes --no-deps --requirement requirements.lock
	$(PIP) install --no-compile --constraint constraints.txt torch
	$(PIP) install --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q -j 0 -x '/tests/|/transformers/models/' .venv/lib > .venv/compileall.log 2>&1 || true
	touch $@

UNHASHED := torch triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc cuda-runtime \
	cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)
lock:   ## requirements.lock from pyproject.toml and constraints.txt, for every platform; asks the network
	$(PYTHON) -m venv .venv/lock
	.venv/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--extra dev --constraint constraints.txt $(addprefix --no-emit-package ,$(UNHASHED)) \
		--output-file requirements.lock pyproject.toml

demo: $(INSTALLED)   ## a real model on real text: score twice, select, report; some minutes (writes out/demo)
	$(BIN)/python -m demo.run

demo-full: $(INSTALLED)   ## the same on five times the text, about ten minutes on two cores (writes out/demo-full)
	$(BIN)/python -m demo.run --full

check: $(INSTALLED)   ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(INSTALLED)   ## every check and every test: unit, Ray, S3, jobs, notebook, the real model
	$(MAKE) --no-print-directory --jobs 2 check tests

tests: $(INSTALLED)   ## the tests alone
	$(BIN)/python -m pytest

MINUTES ?= 30
fuzz: $(INSTALLED)   ## mutated files, stores, options for MINUTES (30); what fails is kept in out/fuzz
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

audit: $(INSTALLED)   ## known vulnerabilities of the installed packages; asks PyPI itself, and fails where that does not know a package
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' > .venv/audit/requirements.txt
	.venv/audit/bin/pip-audit --requirement .venv/audit/requirements.txt --no-deps --disable-pip --strict

bench: $(INSTALLED)   ## scorer and selection beside limits and peers, a plan of a million units; hours on two cores (writes out/bench)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m bench.scoring
	$(BIN)/python -m bench.selection
	$(BIN)/python -m bench.selection --check
	$(BIN)/python -m bench.scale

chaos: $(INSTALLED)   ## kill processes and nodes at 100 seeded moments, compare every byte; under an hour on two cores (SEED=…, FAULT="…")
	$(BIN)/python -m tests.chaos --seed $(or $(SEED),0) $(if $(FAULT),--fault "$(FAULT)")

faults: $(INSTALLED)   ## every kind of storage fault in scoring too, of which `make test` takes some, and a document that hangs
	EVERY_FAULT=1 $(BIN)/python -m pytest tests/storage tests/poison

families: $(INSTALLED)   ## every causal family of transformers beside a plain float32 forward; ten minutes on two cores (writes docs/families.md)
	$(BIN)/python -m tests.families --page docs/families.md

soak: $(INSTALLED)   ## ten thousand small units in one run: what grows with units
	$(BIN)/python -m tests.chaos.soak

clean:   ## remove what the demo wrote; keeps .venv and .cache
	rm -rf out
