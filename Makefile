# Two commands: `make demo` shows what this is, `make test` proves it. Each sets up .venv by itself.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Where pip's own settings do not know the CPU build of torch, it comes from PyTorch's index.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-long test-fast lint docs wheel install clean

demo: $(VENV)/.installed
	$(BIN)/vllm-rast demo --run runs/demo

# Two test processes, of up to 3 GB each; JOBS=1 for one. Tests that share an engine or a server stay together.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -q -n $(JOBS) --dist loadscope --no-loadscope-reorder

test: $(VENV)/.tested-with
	$(PYTEST) --durations=10 -m "not long"
	@echo "make test-long runs what is left out here: proofs of a minute or more, on Ray, in several processes, with two ranks."

# What takes longest: real engines on Ray and in several processes, random faults, two ranks that draft. Every night.
test-long: $(VENV)/.tested-with
	$(PYTEST) --durations=10 -m long

# Everything that starts no engine, server or browser.
test-fast: $(VENV)/.tested-with
	$(PYTEST) -m "not (engine or server or browser or gpu or slow or long)"

lint: $(VENV)/.tested-with
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror csrc/*.h csrc/*.cpp csrc/*.cu
	$(BIN)/mypy

# The documentation, into build/docs; strict: a broken link is an error. Nothing is fetched but the packages.
docs: $(VENV)-docs/.installed
	PYTHONPATH=. $(VENV)-docs/bin/mkdocs build --quiet

$(VENV)-docs/.installed: requirements/docs.txt
	test -x $(VENV)-docs/bin/python || $(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip --disable-pip-version-check install -q --no-deps -r requirements/docs.txt
	touch $@

# A wheel that carries its kernels, for CPUs and, if there is an nvcc, for GPUs.
KINDS ?= $(shell command -v nvcc >/dev/null && echo cpu,cuda || echo cpu)
wheel: $(VENV)/.installed
	$(PIP) install -q --no-deps -r requirements/wheel.txt
	rm -rf dist build/lib* build/temp* build/bdist*
	VLLM_RAST_PACKAGE_KERNELS=$(KINDS) $(PIP) wheel -q --no-deps --no-build-isolation -w dist .
	$(BIN)/python scripts/check_wheel.py --expect $(KINDS) dist/*.whl

install: $(VENV)/.installed

$(VENV)/.installed: requirements/cpu.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name one with make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q --no-deps -r requirements/cpu.txt || \
	    $(PIP) install -q --no-deps --extra-index-url $(TORCH_INDEX) -r requirements/cpu.txt
	$(PIP) install -q --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.tested-with: $(VENV)/.installed requirements/dev.txt
	$(PIP) install -q --no-deps -r requirements/dev.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-docs runs build dist *.egg-info
