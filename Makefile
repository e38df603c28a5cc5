# Two commands: `make lab` opens the workbook, `make test` checks all of it. Both install into .venv
# by themselves; nothing outside this folder changes.
#   make lab LAB_ARGS="--no-browser --port 8899"      arguments for `slmlab lab`
#   make lab TORCH_INDEX=https://download.pytorch.org/whl/cpu     torch without CUDA on Linux
#   make test PYTHON=python3.12                       the Python that .venv is made with

# Compiled modules must stay: without them every start imports torch and transformers from source.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
comma := ,
BIN := $(VENV)/bin
PY := $(BIN)/python
CONSTRAINTS ?= constraints.txt
JOBS ?= 2
LAB_ARGS ?=
PYTEST_ARGS ?=
EXECUTE ?=

# Two OpenMP teams on two cores spin against each other; one thread a process is the fast choice.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

# pip, with one line for each long step. The status goes through a file because a pipe ends with the
# status of its last command.
define pip_install
	@echo "pip: $(1)"; rm -f $(VENV)/.status; \
	{ $(PY) -m pip install --disable-pip-version-check --no-input --progress-bar off $(2); \
	  echo $$? > $(VENV)/.status; } | awk '\
	    / Downloading .*\([0-9.]+ [MG]B\)/ && ($$NF == "GB)" || substr($$(NF - 1), 2) > 8) \
	      { name = $$2; sub(".*/", "", name); sub("-.*", "", name); \
	        print "  downloading " name " " $$(NF - 1) " " $$NF; fflush() } \
	    /^Installing collected packages/ \
	      { print "  unpacking " NF - 3 " packages, some minutes on a small machine"; fflush() }'; \
	test "$$(cat $(VENV)/.status 2>/dev/null)" = 0 || \
	  { echo "pip did not finish; the reason is above. Run the same command again." >&2; exit 1; }
endef

.PHONY: help lab test pytest prove notebooks lint clean FORCE
# lint comes before pytest, and one pip at a time writes into .venv.
.NOTPARALLEL:

help:
	@echo "make lab                   open the workbook in JupyterLab   (LAB_ARGS=\"--no-browser --port 8899\")"
	@echo "make test                  lint, then every test and notebook (PYTEST_ARGS=\"-k rope\", JOBS=2)"
	@echo "make prove                 the full-size measurements, written to results/"
	@echo "make notebooks             rebuild notebooks/, exercises/ and solutions/ from authoring/"
	@echo "make notebooks EXECUTE=1   the same, and run what changed (EXECUTE=all: run everything)"
	@echo "make pytest                the same without lint"
	@echo "make lint                  ruff, mypy and the floors of the package"
	@echo "make clean                 remove .venv and caches; work/ and your progress stay"
	@echo "TORCH_INDEX=https://download.pytorch.org/whl/cpu installs torch without CUDA; PYTHON= chooses the Python."

lab: $(VENV)/.core
	@$(BIN)/slmlab lab $(LAB_ARGS)

test: lint pytest

pytest: $(VENV)/.dev $(VENV)/.colab
	@$(ONE_THREAD) CUDA_VISIBLE_DEVICES= $(PY) -m pytest -q -n $(JOBS) --dist loadscope --timeout 900 $(PYTEST_ARGS)

prove: $(VENV)/.prove
	@HYPOTHESIS_PROFILE=prove $(ONE_THREAD) $(PY) -m pytest -q -m slow --timeout 3600 $(PYTEST_ARGS)
	@$(ONE_THREAD) $(PY) -m authoring.prove

notebooks: $(VENV)/.dev
	@$(ONE_THREAD) $(PY) -m authoring.build $(if $(EXECUTE),--execute) $(if $(filter all,$(EXECUTE)),--force all)

lint: $(VENV)/.dev
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(PY) -m mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache > $(VENV)/.floors 2>&1 || { cat $(VENV)/.floors >&2; exit 1; }
	@echo "lint: ruff, mypy and the floors hold"

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find slmlab authoring tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written last, so an interrupted install leaves none and the next call goes on with it.
$(VENV)/.core: $(PY) pyproject.toml $(CONSTRAINTS) $(if $(TORCH_INDEX),$(VENV)/.torch)
	@rm -f $@
	$(call pip_install,slmlab and what it needs (about 2 GB; some minutes the first time),$(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e .)
	@touch $@

$(VENV)/.dev: $(PY) pyproject.toml $(CONSTRAINTS) $(if $(TORCH_INDEX),$(VENV)/.torch)
	@rm -f $@
	$(call pip_install,slmlab with the tools for its tests (about 2 GB; some minutes the first time),$(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e ".[dev]")
	@touch $(VENV)/.core $@

$(VENV)/.prove: $(VENV)/.dev
	@rm -f $@
	$(call pip_install,llama.cpp and other peers for the benchmarks,$(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e ".[dev$(comma)llama-cpp$(comma)quant-peers$(comma)distill-peers]")
	@touch $@

# ipywidgets as Colab ships it, in a folder of its own that tests/cold_start puts before .venv's.
$(VENV)/.colab: $(PY) tests/cold_start/colab.txt
	@rm -rf $@ $(VENV)/colab; echo "pip: the ipywidgets of Colab, for tests (2 MB)"
	@$(PY) -m pip install --disable-pip-version-check --no-input --quiet --no-deps \
	  --target $(VENV)/colab -r tests/cold_start/colab.txt
	@touch $@

# torch first and alone: once a build without CUDA is there, pip keeps it for `torch==` of the same
# version. --force-reinstall, because an installed CUDA build has that version too.
$(VENV)/.torch: $(PY) FORCE
	@if test "$$(cat $@ 2>/dev/null)" != "$(TORCH_INDEX)"; then rm -f $@; else exit 0; fi; \
	pin=$$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' $(CONSTRAINTS) /dev/null); \
	echo "pip: $${pin:-torch} from $(TORCH_INDEX)"; \
	$(PY) -m pip install --disable-pip-version-check --no-input --no-deps --force-reinstall \
	  --quiet --index-url "$(TORCH_INDEX)" "$${pin:-torch>=2.11,<2.14}" && \
	printf '%s\n' "$(TORCH_INDEX)" > $@

# A Python counts only if it runs, is new enough and can make environments: a name on PATH may be a
# shim that ends in an error, and Debian ships python3 without ensurepip.
$(PY):
	@named="$(if $(findstring command,$(origin PYTHON)),$(PYTHON))"; found=; bare=; \
	for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3 python; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    if "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	    bare=$$candidate; \
	  fi; \
	  if test -n "$$named"; then break; fi; \
	done; \
	if test -z "$$found" && test -n "$$bare"; then \
	  echo "$$bare cannot make virtual environments: install its venv package (Debian and Ubuntu: apt install python3-venv), then run make again." >&2; exit 1; \
	elif test -z "$$found" && test -n "$$named"; then \
	  echo "PYTHON=$$named does not run or is older than Python 3.11: name another one, or leave PYTHON out." >&2; exit 1; \
	elif test -z "$$found"; then \
	  echo "slmlab needs Python 3.11 or newer and found none on PATH: install one, or run make with PYTHON=/path/to/python3." >&2; exit 1; \
	fi; \
	echo "making $(VENV) with $$found"; \
	"$$found" -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }
