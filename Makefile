# Two commands do everything, set-up included: make demo, make test. VENV= chooses where the environment goes.
PYTHON ?= python3
VENV ?= .venv

.PHONY: demo test

demo: build/installed
	$(VENV)/bin/nnunet-semcl demo

test: build/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder --cov --cov-report term:skip-covered

build/installed: setup.cfg pyproject.toml $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --editable '.[test]'
	mkdir -p build && touch build/installed

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
