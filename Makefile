# `make compare`: install and run the comparison. `make test`: lint, types, tests. `make check`: what is slower, or
# needs an environment of its own (timm, for one); `make check-ledger`: what docs/reproduction.md says, computed again from
# the answers in docs/results where they are kept, else held against itself, in seconds; `make browser`: the local page in
# chromium; `make docs`: the site of the docs, to be opened as site/index.html. CI runs all five.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: compare test check check-ledger browser docs bench device-check lint format clean

compare: $(VENV)/.installed
	$(RUN) -m experiments.compare $(ARGS)

test: $(VENV)/.tox
	$(VENV)/bin/tox run $(ARGS)

check: $(VENV)/.tox
	$(VENV)/bin/tox exec -e py -- python -m pytest -n 2 --dist worksteal -m slow
	$(VENV)/bin/tox run-parallel -p 2 -o --parallel-no-spinner -e minimal,beside,timm,wheel

check-ledger: $(VENV)/.tox
	$(VENV)/bin/tox exec -e py -- python -m experiments.reproduce --suite check

browser: $(VENV)/.tox
	TOX=$(VENV)/bin/tox .ci/browser

docs: $(VENV)/.tox
	$(VENV)/bin/tox run -e docs $(ARGS)

bench: $(VENV)/.tox
	$(VENV)/bin/tox run -e bench

# With DEVICE_PYTHON, else a python3 that has otfew, torch and pytest, else that of $(VENV). OUT: folder of the record.
HAS_OTFEW := import importlib.util as u, sys; sys.exit(any(u.find_spec(n) is None for n in ("otfew.experiments", "torch", "pytest")))
device-check:
	@python="$(DEVICE_PYTHON)"; \
	if [ -z "$$python" ] && python3 -c '$(HAS_OTFEW)' 2>/dev/null; then python=python3; fi; \
	if [ -z "$$python" ]; then make --no-print-directory $(VENV)/.dev && python=$(RUN); fi; \
	exec "$$python" -m otfew.experiments.device_check $(if $(OUT),--output "$(OUT)") $(ARGS)

lint: $(VENV)/.tox
	$(VENV)/bin/tox run -e lint
	$(VENV)/bin/tox exec -e py -- mypy

format: $(VENV)/.tox
	$(PIP) ruff
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) .tox build dist site *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing otfew into $(VENV) (a few minutes, once)"
	$(PIP) -e ".[all]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing otfew and its tests into $(VENV) (a few minutes, once)"
	$(PIP) -e ".[dev]"
	@touch $@

$(VENV)/.tox: constraints.txt | $(VENV)/bin/python
	$(PIP) tox
	@touch $@
