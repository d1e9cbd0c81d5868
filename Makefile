# make demo           set up, then segment a slide with the shipped model (SLIDE=path for your own)
# make test           set up, then every check and test that takes seconds (what .ci/run runs)
# make help           the rest

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
# spatialdata and ome-zarr want other versions than the tested set
READERS := .venv-readers
# diffusers, timm and nnU-Net's networks bring libraries that the tested set leaves out; torchvision is that of its torch
EXTRAS := .venv-extras
# StarDist brings TensorFlow, which wants versions of its own
PLUGINS := .venv-plugins
INPUTS := pyproject.toml constraints.txt

# demo: the slide (drawn when none is given) and the folder that the results go to
SLIDE ?=
OUT   ?= demo
# test: processes, and anything else for pytest, as in PYTEST_ARGS="-k tissue -x"
JOBS  ?= 2
PYTEST_ARGS ?=
# fuzz: damaged inputs for each command and kind of input
FUZZ  ?= 200
FUZZ_LOG ?= fuzz.jsonl

.PHONY: help demo test lint fuzz test-slow test-readers test-extras gpu-check bench bench-peers cucim-cpu default-model docs dist clean
.DEFAULT_GOAL := help

help:
	@echo "make demo            segment a phantom slide; make demo SLIDE=slide.svs: your own"
	@echo "make test            ruff, mypy, import-linter and the tests (no slow ones, no GPU)"
	@echo "make test-slow       the slow tests, those that need a GPU (skipped without one), and a search for new examples"
	@echo "make fuzz            damaged inputs by the thousand, none of which may surprise (FUZZ=200 for each command and kind)"
	@echo "make test-readers    what spatialdata and ome-zarr make of our files (in an environment of their own, 1.2 GB)"
	@echo "make test-extras     wsipipe's own networks beside those of other libraries; StarDist, ONNX (environments of their own, 3 GB)"
	@echo "make gpu-check       check and measure this machine's GPU: gpu-check/report.md (4 minutes)"
	@echo "make bench           speed and memory, measured on this machine (about 10 minutes)"
	@echo "make bench-peers     other systems on the same picture, each in an environment of its own (about 6 GB)"
	@echo "make cucim-cpu       install cuCIM's CPU reader without the CUDA packages"
	@echo "make default-model   train the shipped models again from their data"
	@echo "make docs            the documentation, as a site in site/"
	@echo "make dist            source archive and wheel in dist/"
	@echo "make clean           remove what the above made"

# A stamp marks a finished set-up, so that a second call does nothing.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "wsipipe needs Python 3.11 or newer, not " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(INPUTS) | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e .
	-@$(BIN)/wsipipe doctor > /dev/null # compiles what the first slide would wait for
	@touch $@

$(VENV)/.dev: $(INPUTS) | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e '.[browser,dev,dicom,docs,view]'
	@touch $(VENV)/.runtime $@

demo: $(VENV)/.runtime
	@mkdir -p "$(OUT)"
	@slide="$(SLIDE)"; \
	if [ -z "$$slide" ]; then \
	  slide="$(OUT)/slide.tiff"; \
	  test -e "$$slide" || $(BIN)/wsipipe demo-slide "$$slide" || exit; \
	fi; \
	$(BIN)/wsipipe segment "$$slide" -o "$(OUT)/cells.geojson" --overlay "$(OUT)/overlay.png" || exit; \
	echo; \
	echo "slide    $$slide"; \
	echo "cells    $(OUT)/cells.geojson   (drag it onto the slide in QuPath)"; \
	echo "picture  $(OUT)/overlay.png"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -m "not slow and not gpu" -n $(JOBS) $(PYTEST_ARGS)

fuzz: $(VENV)/.dev
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --count $(FUZZ) --log $(FUZZ_LOG)

test-slow: $(VENV)/.dev
	$(BIN)/pytest -m "slow or gpu or hypothesis" --hypothesis-profile=search $(PYTEST_ARGS)

$(READERS)/.done: | $(BIN)/python
	$(BIN)/python -m venv $(READERS)
	$(READERS)/bin/python -m pip install --quiet spatialdata==0.7.3 ome-zarr==0.15.0 zarr==3.1.6
	@touch $@

test-readers: $(VENV)/.dev $(READERS)/.done
	WSIPIPE_CONSUMERS="$(CURDIR)/$(READERS)/bin/python" $(BIN)/pytest tests/formats/test_zarr.py $(PYTEST_ARGS)

$(EXTRAS)/.done: $(VENV)/.dev
	$(BIN)/python -m venv $(EXTRAS)
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > "$$($(EXTRAS)/bin/python -c 'import site; print(site.getsitepackages()[0])')/tested.pth"
	$(EXTRAS)/bin/python -m pip install --quiet --no-deps diffusers timm huggingface_hub tqdm einops dynamic-network-architectures torchvision==0.28.0
	@touch $@

$(PLUGINS)/.done: $(VENV)/.dev
	$(BIN)/python -m venv $(PLUGINS)
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > "$$($(PLUGINS)/bin/python -c 'import site; print(site.getsitepackages()[0])')/tested.pth"
	$(PLUGINS)/bin/python -m pip install --quiet -c constraints.txt stardist==0.9.2 tensorflow-cpu onnx onnxruntime
	$(PLUGINS)/bin/python -m pip install --quiet --no-deps cellpose==4.2.1.1
	@touch $@

test-extras: $(EXTRAS)/.done $(PLUGINS)/.done
	$(PLUGINS)/bin/python -m pytest -rs tests/plugins $(PYTEST_ARGS)
	$(EXTRAS)/bin/python -m pytest -rs tests/models/test_space.py tests/models/test_encoders.py tests/models/test_baselines.py -k "diffusers or timm or library or libraries" $(PYTEST_ARGS)

gpu-check: $(VENV)/.dev
	$(BIN)/python -m tests.gpu_check

bench: $(VENV)/.dev
	$(BIN)/python -m tests.benchmarks.bench_cells
	$(BIN)/python -m tests.benchmarks.bench_replay
	$(BIN)/python -m tests.benchmarks.bench_formats
	$(BIN)/python -m tests.benchmarks.bench_codecs
	$(BIN)/python -m tests.benchmarks.bench_forward
	$(BIN)/python -m tests.benchmarks.bench_segment
	$(BIN)/python -m tests.benchmarks.bench_scheduler
	$(BIN)/python -m tests.benchmarks.bench_view
	$(BIN)/python -m tests.benchmarks.bench_input
	$(BIN)/python -m tests.benchmarks.bench_memory
	$(BIN)/python -m tests.benchmarks.bench_timeline --out timeline.png

bench-peers: $(VENV)/.dev
	$(BIN)/python -m tests.benchmarks.peers

cucim-cpu: $(VENV)/.runtime
	$(PIP) install --quiet -c constraints.txt --no-deps cucim-cu12
	$(PIP) install --quiet -c constraints.txt numpy lazy_loader click scikit-image

default-model: $(VENV)/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" workflows/default-model/run.sh

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

dist: $(VENV)/.dev
	$(BIN)/python -m hatchling build -d dist

clean:
	rm -rf $(VENV) $(READERS) $(EXTRAS) $(PLUGINS) .venv-peers build dist site demo .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
