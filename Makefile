# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-lowest test-gpu check style docs figures ship-mini card-mini evaluate-mini baselines bench-generate clean

help:
	@echo "make demo      install into .venv, then every application and a pretraining run, offline, about 2 minutes"
	@echo "make test      install into .venv, then the test suite (make test-all: the slow tests too; make test-gpu: those of a GPU)"
	@echo "make evaluate-mini DATA=../shared/data      the embedded model measured, beside baselines and goals"
	@echo "make docs      the documentation in English and Chinese: build/site/index.html, no server and no network needed"
	@echo "make check     lint, formatting, types, spelling      make style     fix formatting"

demo: $(VENV)/.demo
	HF_HUB_OFFLINE=1 $(BIN)/glmkit demo

test: $(VENV)/.dev
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

test-all: $(VENV)/.dev
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m "not gpu" --timeout 600 --cov --cov-report=term-missing

# The suite with the oldest dependencies that pyproject.toml allows, in an environment of its own.
LOWEST := build/lowest
test-lowest:
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/pip install --quiet uv
	$(LOWEST)/bin/uv pip compile --quiet --resolution lowest-direct --extra dev pyproject.toml -o $(LOWEST)/constraints.txt
	$(LOWEST)/bin/pip install --quiet -c $(LOWEST)/constraints.txt -e ".[dev]"
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(LOWEST)/bin/pytest -n 2 --dist loadfile

# One process: its measurements of the GPU's memory are its own. Without CUDA they are skipped, or run on the CPU: GLMKIT_GPU_TESTS_ON=cpu.
test-gpu: $(VENV)/.dev
	HF_HUB_OFFLINE=1 $(BIN)/pytest tests/gpu -m gpu

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell README.md CHANGELOG.md src docs recipes tests benchmarks

# Warnings are errors. The figures of the tutorial are drawn by `make figures`.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

figures: $(VENV)/.dev
	$(BIN)/python docs/figures.py

style: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The embedded model from a finished run, for example MODEL=runs/glm-mini/run/model-average HARDWARE="2 cores of a CPU".
ship-mini: $(VENV)/.dev
	$(BIN)/python recipes/glm-mini/ship.py weights $(MODEL) --hardware "$(HARDWARE)"

# Its card with what `make evaluate-mini` wrote: RESULTS=docs/results/glm-mini_….json; then the gallery.
card-mini: $(VENV)/.dev
	$(BIN)/python recipes/glm-mini/ship.py card --results $(RESULTS)
	$(BIN)/python recipes/glm-mini/gallery.py

# The embedded model (or MODEL=folder) on held-out data beside baselines and goals; about 12 minutes on one core.
evaluate-mini: $(VENV)/.dev
	$(BIN)/python benchmarks/evaluate_mini.py --data $(DATA) --model $(or $(MODEL),glm-mini) --save

# Speed of generation beside llama.cpp, OpenVINO, CTranslate2 and transformers; PEERS names an interpreter that has glmkit[bench],
# ORIGINAL one that has the code published beside the checkpoints.
bench-generate: $(VENV)/.dev
	$(BIN)/python benchmarks/bench_generate.py --save $(if $(PEERS),--peers $(PEERS)) $(if $(ORIGINAL),--original $(ORIGINAL))

# What simple methods reach on the same data; half an hour on a busy core.
baselines: $(VENV)/.dev
	$(BIN)/python benchmarks/baselines.py --data $(DATA) --save

clean:
	rm -rf $(VENV) build dist runs .pytest_cache .mypy_cache .ruff_cache htmlcov .coverage

# The stamps install again whenever the dependencies, the lock or the native decoder's sources change.
NATIVE := hatch_build.py $(wildcard native/*)
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt $(NATIVE) | $(VENV)/bin/python
	$(BIN)/pip install --quiet -c constraints.txt -e ".[corpus,train,peft]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(NATIVE) | $(VENV)/bin/python
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/.demo
