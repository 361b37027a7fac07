# `make help` lists what there is. It needs Linux and Python 3.11 or newer, and makes its environments by
# itself.
PYTHON ?= python3
FULL := .venv
SMALL := .venv-small
# Style and types need no torch: the full environment is used where it is, else the small one is made.
TOOLS := $(if $(wildcard $(FULL)/.ready),$(FULL),$(SMALL))
# Tests wait more than they work.
PROCESSES := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
INSTALL := -m pip install --quiet --disable-pip-version-check --upgrade-strategy only-if-needed \
           --constraint constraints.txt --editable
# nanotoken would be used wherever it is found, so all other tests are without, as most users are.
QUICK := .cache/nanotoken
QUICK_TESTS := tests/unit/test_quick_tokens.py
# No network; the variable turns off the theme's news of its successor.
SITE = NO_MKDOCS_2_WARNING=1 $(TOOLS)/bin/mkdocs build --quiet --strict

.DEFAULT_GOAL := help
.PHONY: amx help env env-small demo test test-one lint fmt docs bench wheel deb clean

help: ## This list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(FULL)/.ready ## See it work: an embedded Postgres, real texts, a real model, live edits, searches.
	$(FULL)/bin/freshvec demo

test: $(FULL)/.ready $(QUICK)/.ready ## Every test, on real parts: Postgres 18 and 16, the real model.
	PYTHONPATH=$(QUICK) $(FULL)/bin/python -m pytest $(QUICK_TESTS)
	$(FULL)/bin/python -m pytest --numprocesses $(PROCESSES) --dist worksteal --ignore $(QUICK_TESTS)

test-one: $(SMALL)/.ready ## One test, without torch: make test-one T=tests/unit/test_config.py::NAME
	@test -n "$(T)" || { echo "name a test: make test-one T=tests/unit/test_config.py"; exit 2; }
	$(SMALL)/bin/python -m pytest $(T)

lint: $(TOOLS)/.ready ## Style, types, layers, generated documents up to date, the site's links.
	$(TOOLS)/bin/ruff check .
	$(TOOLS)/bin/ruff format --check .
	$(TOOLS)/bin/mypy
	$(TOOLS)/bin/lint-imports
	$(TOOLS)/bin/python scripts/configuration.py --check
	$(SITE)

fmt: $(TOOLS)/.ready ## Format the code, and mend what ruff can mend.
	$(TOOLS)/bin/ruff check --fix .
	$(TOOLS)/bin/ruff format .

docs: $(TOOLS)/.ready ## Write docs/configuration.md from the settings' descriptions; the site in build/site.
	$(TOOLS)/bin/python scripts/configuration.py
	$(SITE)

bench: $(FULL)/.ready ## The figures of docs/benchmarks.md, each with the bar it is held to.
	$(FULL)/bin/python -m tests.benchmarks

amx: $(FULL)/.ready ## Tests and figures of bf16 by OpenVINO, on a processor with AMX.
	$(FULL)/bin/pip install --quiet --target .cache/openvino --no-deps --constraint constraints.txt openvino
	PYTHONPATH=.cache/openvino $(FULL)/bin/python -m pytest tests/integration/test_bf16.py
	PYTHONPATH=.cache/openvino $(FULL)/bin/python -m tests.benchmarks reference openvino

wheel: $(TOOLS)/.ready ## Build the wheel and the source archive into dist/.
	$(TOOLS)/bin/python -m build

deb: wheel ## Build the Debian package into dist/, on Debian, by its own Python (python3-venv).
	packaging/deb/build "$$(ls -t dist/freshvec-*.whl | head -1)" dist

env: $(FULL)/.ready ## The whole environment in .venv: gigabytes, most of them torch.

env-small: $(SMALL)/.ready ## The environment without torch in .venv-small.

$(FULL)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(FULL)
	$(FULL)/bin/python $(INSTALL) '.[cpu,serve,export,demo,ray,dev]'
	touch $@

$(QUICK)/.ready: $(FULL)/.ready
	$(FULL)/bin/pip install --quiet --upgrade --target $(QUICK) --no-deps --constraint constraints.txt nanotoken
	touch $@

$(SMALL)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(SMALL)
	$(SMALL)/bin/python $(INSTALL) '.[cpu,serve,dev]'
	touch $@

clean: ## Remove the environments, the exported models and what was built.
	rm -rf $(FULL) $(SMALL) .cache build dist
