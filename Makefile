# Every target makes what it needs: python3, make and a package registry are enough.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
ARGS ?=
PIP = $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
# Index to take torch and torchvision from, in place of builds with 4 GB of CUDA: PyTorch's own for CPUs, for example
TORCH_INDEX ?=
# tests run on all cores, those of one file on the same one: they share what they made
PARALLEL ?= -n logical --maxprocesses 8 --dist loadfile
# one thread a process unless the caller says otherwise: tests run small models, where threads only wait for each other
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help

help: ## Show this help
	@awk -F ':.*## ' '/^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-24s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Start

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "rbft needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) torch torchvision)
	$(PIP) -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -e '.[dev]'
	@touch $@

install: $(VENV)/installed ## Make .venv and install rbft into it

install-dev: $(VENV)/installed-dev ## The same with what tests and linters need

quickstart: $(VENV)/installed ## Run RB-FT from end to end on the built-in model and videos
	$(BIN)/rbft fit --config experiments/quickstart.yaml $(ARGS)

##@ Work on rbft
test: $(VENV)/installed-dev ## Run the tests, all but the slow ones
	$(BIN)/pytest $(PARALLEL) -m 'not slow' $(ARGS)

test-all: $(VENV)/installed-dev ## Run all tests
	$(BIN)/pytest $(PARALLEL) $(ARGS)

# what the bounds in setup.cfg are about: the libraries' own calls, each through the code that makes them
LOWEST_TESTS ?= tests/video tests/vlm/test_model.py tests/vlm/test_tuning.py tests/training tests/pipeline tests/export \
	tests/evaluation tests/serve tests/rationales/test_text_classifier.py tests/commands/test_doctor.py

test-lowest: ## A short suite with the oldest versions that setup.cfg allows, in $(VENV)-lowest (6 GB)
	$(PYTHON) -m venv $(VENV)-lowest
	$(PYTHON) tools/lowest_set.py > $(VENV)-lowest/constraints.txt
	$(VENV)-lowest/bin/pip install --quiet --disable-pip-version-check -c $(VENV)-lowest/constraints.txt -e '.[dev]'
	$(VENV)-lowest/bin/pytest -m 'not slow and not browser' $(LOWEST_TESTS) $(ARGS)

lint: $(VENV)/installed-dev ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev ## Bring the code into its style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tiny-vlm: $(VENV)/installed ## Pre-train the built-in model again into build/tiny-vlm (half an hour on one core) and measure it
	$(BIN)/python -m tools.tiny_vlm.pretrain --out build/tiny-vlm $(ARGS)
	$(BIN)/python -m tools.tiny_vlm.evaluate --model build/tiny-vlm

##@ Reproduce
# DATA names the folder of the data set; each target says what it needs, and stops if that is not there
REPRODUCE = $(BIN)/python experiments/reproduce.py $(@:reproduce-%=%) $(if $(DATA),--data.root $(DATA)) $(ARGS)

reproduce-builtin: $(VENV)/installed ## The core of docs/results.md on the built-in model and domains (two cores)
	$(REPRODUCE)

reproduce-ucf: $(VENV)/installed ## UCF101 with few labels; DATA=FOLDER, a GPU
	$(REPRODUCE)

reproduce-hmdb: $(VENV)/installed ## HMDB51 with few labels; DATA=FOLDER, a GPU
	$(REPRODUCE)

reproduce-ssv2: $(VENV)/installed ## Something-Something v2 with few labels; DATA=FOLDER, a GPU
	$(REPRODUCE)

reproduce-smarthome: $(VENV)/installed ## SmartHome-Bench, the paper's own; DATA=FOLDER, a GPU with 80 GB
	$(REPRODUCE)

reproduce-multihateclip: $(VENV)/installed ## MultiHateClip with few labels; DATA=FOLDER, a GPU
	$(REPRODUCE)

##@ Look and clean up
tensorboard: $(VENV)/installed ## Look at all runs, on 127.0.0.1 only
	$(BIN)/tensorboard --logdir runs --host 127.0.0.1 $(ARGS)

clean: ## Remove the virtual environment and caches; runs and data stay
	rm -rf $(VENV) build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help install install-dev quickstart test test-all test-lowest lint format tiny-vlm tensorboard clean reproduce-builtin \
	reproduce-ucf reproduce-hmdb reproduce-ssv2 reproduce-smarthome reproduce-multihateclip
