# Two commands do everything, set-up included:   make lab    and    make test
#   make lab HEADLESS=1   executes the first lab and prints the conversation, for machines with no browser
#   Node builds the JupyterLab extension; without Node, `make lab` works without it. `make test` needs Node.
#   make whole            runs in full the tests that `make test` cuts short: 500 hostile schemas, 20 reloads of each page, 50 kills of a
#                         model's process and of its kernel, a server's stream cut at each byte, a notebook on llama-server (40 minutes)
#   make llama-server     builds llama-server from llama-cpp-python's source for that test (once; 20 minutes on two cores)
#   make damage           loads 2,000 damaged model files and says how that ended (minutes; COUNT=100, SEED=1)
#   make bench            prints every figure as a ratio to its peer, and writes bench.json (about an hour; PAIRS=1 for minutes)

PYTHON   ?= python3
VENV     ?= .venv
NOTEBOOK ?= notebooks/00-first-chat.ipynb
BIN      := $(VENV)/bin
MODEL    := qwen2.5-coder-0.5b

# With an NVIDIA GPU and its compiler, llama-cpp-python is built with CUDA; else for the CPU (Metal comes by itself on macOS).
CUDA := $(shell command -v nvcc >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo yes)
ifeq ($(CUDA),yes)
  BUILD_ENV   := CMAKE_ARGS="-DGGML_CUDA=on"
  BUILD_FLAGS := --no-cache-dir
endif

.DEFAULT_GOAL := lab
.PHONY: lab test check scripts whole llama-server bench damage models clean

$(VENV)/.base:
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { $(PYTHON) -m pip install --quiet --target $(VENV)-tool virtualenv && PYTHONPATH=$(VENV)-tool $(PYTHON) -m virtualenv $(VENV); }
	@echo "Building llama-cpp-python (first time: about 10 minutes on 2 cores; afterwards pip has it cached) ..."
	$(BUILD_ENV) $(BIN)/python -m pip install $(BUILD_FLAGS) "$$(sed -n 's/^ *"\(llama-cpp-python==[^"]*\)".*/\1/p' pyproject.toml)"
	@touch $@

# Installing builds the JupyterLab extension if its bundle is missing, so a bundle older than its source is removed first, unless
# there is no Node to build another.
EXTENSION := $(filter-out %/lib %/node_modules,$(wildcard labextension/*)) $(wildcard labextension/src/* labextension/style/* labextension/schema/*)

$(VENV)/.extension: $(EXTENSION)
	@if command -v node >/dev/null; then rm -rf llm_magics/labextension; \
	elif [ ! -e llm_magics/labextension/package.json ]; then \
	  echo "Node was not found: no JupyterLab extension is built, and answers are static HTML. To have it, install Node 20 or newer."; fi
	@mkdir -p $(@D) && touch $@

$(VENV)/.lab: $(VENV)/.base $(VENV)/.extension pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[lab]'
	@touch $@

$(VENV)/.test: $(VENV)/.base $(VENV)/.extension pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[test]'
	@touch $@ $(VENV)/.lab

# For the tests of pages that share a document. It lies beside the environment: in it, every JupyterLab would share its documents.
COLLABORATION := jupyter-collaboration jupyter-collaboration-ui jupyter-docprovider jupyter-server-ydoc jupyter-ydoc \
  jupyter-server-fileid pycrdt pycrdt-store pycrdt-websocket sqlite-anyio

$(VENV)/.collaboration: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/collaboration $(COLLABORATION)
	@touch $@

lab: $(VENV)/.lab
	$(BIN)/llm-magics pull $(MODEL)
ifdef HEADLESS
	$(BIN)/jupyter nbconvert --log-level=ERROR --execute --to markdown --stdout $(NOTEBOOK) \
	  --NbConvertBase.display_data_priority="['text/markdown', 'text/plain']"
else
	$(BIN)/jupyter lab $(NOTEBOOK)
endif

models: $(VENV)/.lab
	$(BIN)/llm-magics pull smollm2-135m
	$(BIN)/llm-magics pull $(MODEL)
	$(BIN)/llm-magics pull qwen2.5-coder-1.5b

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

scripts: $(VENV)/.test
	cd labextension && PATH="$(abspath $(BIN)):$$PATH" jlpm install --immutable && PATH="$(abspath $(BIN)):$$PATH" jlpm lint:check && \
	  PATH="$(abspath $(BIN)):$$PATH" jlpm test

test: $(VENV)/.test $(VENV)/.collaboration models
	$(MAKE) --no-print-directory -j2 check scripts
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests
	$(BIN)/python -m pytest --nbval-lax --nbval-cell-timeout=600 notebooks

whole: $(VENV)/.test models llama-server
	LLM_MAGICS_HOSTILE=500 LLM_MAGICS_RELOADS=20 $(BIN)/python -m pytest tests/schema/test_validation.py tests/browser/test_extension.py
	LLM_MAGICS_KILLS=50 $(BIN)/python -m pytest tests/kernel/test_isolated.py tests/engine/hosts/test_pipe_deaths.py
	LLM_MAGICS_FAULTS=all $(BIN)/python -m pytest tests/models/remote tests/kernel/test_remote.py

llama-server: $(VENV)/.test
	$(BIN)/python -m tests.models.remote.llama_server

bench: $(VENV)/.test models
	$(BIN)/python -m tests.bench $(if $(PAIRS),--pairs $(PAIRS)) $(SUITES)

damage: $(VENV)/.test
	$(BIN)/python -m tests.engine.fit.damage --count $(or $(COUNT),2000) --seed $(or $(SEED),11)

clean:
	rm -rf $(VENV) $(VENV)-tool build dist labextension/lib labextension/node_modules
