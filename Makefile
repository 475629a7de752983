# `make run` and `make test` each do all their own set-up, in .venv; `make help` lists the rest.

PYTHON ?= python3
PIP_FLAGS ?=
PYTEST_FLAGS ?= -n 2
MODEL ?= examples/tiny_qwen3/checkpoint
PROMPT ?= The Zen of Python
TOKENS ?= 64
UNSAFE ?= 5000

VENV := .venv
BIN := $(VENV)/bin
LOCK := pyproject.toml requirements/lock.txt requirements/torch.txt requirements/install.sh
DEVICE_CODE = $(shell git ls-files --cached --others --exclude-standard '*.cuh')

.DEFAULT_GOAL := help
.PHONY: help run test lint mutation format docs wheel clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

run: $(VENV)/.run ## continue a prompt with the example model (MODEL=, PROMPT=, TOKENS= change it)
	@$(BIN)/mpk run --model "$(MODEL)" --prompt "$(PROMPT)" --max-new-tokens $(TOKENS)

test: $(VENV)/.test lint docs ## everything that must hold before a commit
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright
	$(if $(DEVICE_CODE),$(BIN)/clang-format --dry-run -Werror $(DEVICE_CODE))

mutation: $(VENV)/.test ## damage 5,000 plans and see whether the checker notices (UNSAFE= changes how many)
	$(BIN)/python -m tests.mutation.score --unsafe $(UNSAFE)

format: $(VENV)/.test ## rewrite Python and device code in the house format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(if $(DEVICE_CODE),$(BIN)/clang-format -i $(DEVICE_CODE))

docs: $(VENV)/.test ## build the documentation into site/, links checked
	$(BIN)/python docs/generate.py
	$(BIN)/zensical build --strict --clean

wheel: $(VENV)/.test ## build the wheel into dist/
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean: ## remove what the other targets made, .venv included
	rm -rf $(VENV) build dist site docs/reference *.egg-info

$(VENV)/.run: $(LOCK)
	PYTHON="$(PYTHON)" PIP_FLAGS="$(PIP_FLAGS)" sh requirements/install.sh $(VENV) .
	@touch $@

$(VENV)/.test: $(LOCK)
	PYTHON="$(PYTHON)" PIP_FLAGS="$(PIP_FLAGS)" sh requirements/install.sh $(VENV) '.[dev,docs]'
	@touch $@ $(VENV)/.run
