# make demo needs Python 3.11 to 3.13 and nothing else; make test needs bubblewrap as well, on Linux.
PYTHON ?= python3
export PYTHON
BIN := .venv/bin
READY := .venv/.ready
VLLM := .venv/.vllm
DEEPSPEED := .venv/.deepspeed
RAY := .venv/.ray

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with everything (skipped when up to date)

$(READY): settings.ini setup.py pyproject.toml constraints.txt tools/setup.sh
	@sh tools/setup.sh

demo: $(READY) ## run the whole pipeline in miniature and write runs/demo/report/index.html
	@$(BIN)/dart-math demo

test: $(READY) ## run every check and every notebook
	@$(BIN)/python tools/test.py

vllm: $(VLLM) ## add vLLM for a CPU to .venv (Linux on x86-64)

$(VLLM): $(READY) constraints-vllm.txt
	@sh tools/setup.sh vllm

test-vllm: $(VLLM) ## run the pages with cells that need vLLM, those cells included
	@$(BIN)/python tools/test.py --flags vllm --flagged --workers 1

test-browser: $(READY) ## run the pages with cells that need Chromium, in a real one without a window
	@$(BIN)/python tools/test.py --flags chromium --flagged --workers 1

ray: $(RAY) ## add Ray to .venv

$(RAY): $(READY)
	@sh tools/setup.sh ray

test-ray: $(RAY) ## run the pages with cells that start Ray on this machine, those cells included (a minute)
	@$(BIN)/python tools/test.py --flags ray --flagged --workers 1

deepspeed: $(DEEPSPEED) ## add DeepSpeed to .venv

$(DEEPSPEED): $(READY)
	@sh tools/setup.sh deepspeed

test-launch: $(DEEPSPEED) ## train with several processes, ZeRO included (2 minutes; run it alone)
	@$(BIN)/python tools/test.py --flags slow --workers 1 nbs/50_train/95_launch.ipynb

fuzz: $(READY) ## send hostile files and run folders through the commands for a minute of CPU
	@$(BIN)/python bench/fuzz_readers.py --seconds 60 --check

check: $(READY) ## run the checks alone (seconds)
	@$(BIN)/python tools/check.py --prose

lab: $(READY) ## open JupyterLab on the notebooks
	@$(BIN)/jupyter lab nbs

docs: $(READY) ## build the web site into _docs/
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/render_docs.py

package: $(READY) ## build the source archive and the wheel into dist/ and try the wheel with the core alone
	@$(BIN)/python tools/package.py

bench: $(READY) ## list the benchmarks in bench/; make bench RUN="grader pack" runs these
	@set -e; for script in bench/*.py; do name=$$(basename "$$script" .py); \
	  if [ -z "$(RUN)" ]; then printf '%-18s %s\n' "$$name" "$$(sed -n '1s/^"""//p' "$$script")"; fi; done; \
	for name in $(RUN); do echo "bench/$$name.py"; $(BIN)/python "bench/$$name.py"; done

pins: $(READY) ## write constraints.txt from what is installed
	@$(BIN)/python tools/pins.py

clean: ## remove what was built; keeps .venv and runs/
	@rm -rf _docs _proc build dist .ruff_cache .hypothesis *.egg-info nbs/nbdev.yml
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.PHONY: help setup demo test vllm test-vllm test-browser ray test-ray deepspeed test-launch fuzz check lab docs package bench pins clean
