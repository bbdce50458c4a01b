PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint docs release image clean

demo: .venv/installed
	$(BIN)/distcluster run jobs/demo.toml

# As below: an editable package is compiled by nobody else.
test: .venv/installed-test
	$(BIN)/python -m compileall -q distcluster benchmarks
	$(BIN)/python -m pytest

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/installed-test
	$(BIN)/sphinx-build --nitpicky --fail-on-warning --keep-going --quiet -c docs . build/site

release: .venv/installed-test
	.ci/release

image:
	k8s/build.sh

# uv takes seconds where pip takes minutes; pip may know of mirrors that uv was not told of.
PIP_OPTIONS := --quiet --constraint constraints.txt
# What is not compiled here, every process compiles where PYTHONDONTWRITEBYTECODE is set: seconds of each.
INSTALL = install() { $(BIN)/uv pip install --compile-bytecode --python $(BIN)/python $(PIP_OPTIONS) "$$@" || \
    $(BIN)/python -m pip install $(PIP_OPTIONS) "$$@"; }; install

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP_OPTIONS) uv
	$(INSTALL) --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(INSTALL) --editable ".[docs,test]"
	$(INSTALL) --no-deps embedding-atlas  # or it brings torch
	touch $@

clean:
	rm -rf .venv runs
