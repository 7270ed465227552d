# What a contributor runs. CONTRIBUTING.md explains it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: dev lint test ci

dev: ## an environment in .venv, with the pre-commit hooks
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q "pip>=25.1"
	$(BIN)/pip install -q -e ".[test]" --group dev
	$(BIN)/pre-commit install

lint: ## ruff, codespell and mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" .ci/run check

test: ## the quick tests
	$(BIN)/pytest -n auto --dist loadgroup

ci: ## everything, as it must pass before a merge
	.ci/run
