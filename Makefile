# make demo: the whole job here and now, on stand-ins. make test: lint, types, tests. Both set themselves up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ONCE ?=

.PHONY: demo test lint bench clean system

demo: $(VENV)/.ready
	$(BIN)/biliupd demo $(if $(ONCE),--once)

test: $(VENV)/.dev-ready lint
	$(BIN)/python -m pytest

# Side by side with their peers; only the ratios of one run mean something.
bench: $(VENV)/.dev-ready
	$(BIN)/python tests/bench/upload/bench.py
	$(BIN)/python tests/bench/watch/bench.py
	$(BIN)/python tests/bench/sync/bench.py
	$(BIN)/python tests/bench/merge/bench.py
	$(BIN)/python tests/bench/record/bench.py
	$(BIN)/python tests/bench/control/bench.py
	$(BIN)/python tests/bench/idle/bench.py

lint: $(VENV)/.dev-ready
	$(BIN)/ruff check biliupd tests
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .venv-biliup .mypy_cache .ruff_cache *.egg-info

# What Debian has to give: venv, and an ffmpeg when there is none. Only root can install; others go on with what is there
# (the ffmpeg inside imageio-ffmpeg serves as well).
system:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  need=""; \
	  $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || need="$$need python3 python3-venv"; \
	  command -v ffmpeg >/dev/null || need="$$need ffmpeg"; \
	  if [ -n "$$need" ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$need >/dev/null; fi; \
	fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "biliupd needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
	  { echo "this Python cannot make a venv: install python3-venv"; exit 1; }

$(VENV)/.ready: setup.cfg pyproject.toml | system
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

# What only the tests need: their tools, and from Debian rsync, a font that knows Chinese, and a browser.
DEBIAN_DEV := rsync fontconfig fonts-wqy-microhei chromium

$(VENV)/.dev-ready: $(VENV)/.ready
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! dpkg -s $(DEBIAN_DEV) >/dev/null 2>&1; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(DEBIAN_DEV) >/dev/null; fi
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@
