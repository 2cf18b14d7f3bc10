PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
VENV4 := .venv-tl4
READY4 := $(VENV4)/.installed

# Bytecode that is not kept is compiled again in every process of the tests.
unexport PYTHONDONTWRITEBYTECODE
# Notebooks draw no static images where nobody keeps their outputs.
PYTEST := OMP_NUM_THREADS=1 PLOTLY_RENDERER=plotly_mimetype $(BIN)/pytest
# What needs no model; tests of more than a second here are marked as slow.
QUICK := tests/test_architecture.py tests/test_metrics.py tests/test_positions.py \
	tests/test_stats.py tests/problems tests/attention tests/study \
	$(wildcard codi_lens/*.py) codi_lens/problems codi_lens/attention codi_lens/study

.PHONY: demo test test-quick test-jupyter test-ray test-tl4 lint format js notebooks bench bench-loading bench-metrics \
	bench-scale bench-gpu bench-sweeps bench-attribution bench-workers faults fuzz parity verify-wrong docs docs-serve pictures clean

# What the demo consists of: anything else in its folder is somebody's own.
DEMO := codi_lens.json heads.csv heads_generation.csv summary.json findings.md details.npz lens.csv \
	index.html

demo: $(READY)  ## the head of tiny-recall that reads back, and all others: writes demo/index.html
	$(BIN)/codi-lens analyze tiny-recall --n 100 --out demo

test: lint  ## everything: lint, types, unit tests, doctests, notebooks
	$(PYTEST) --numprocesses 2 --dist loadfile --no-loadscope-reorder tests codi_lens

test-quick: $(READY)  ## for the inner loop: units, doctests of light modules, architecture
	$(PYTEST) -m "not slow" --exitfirst $(QUICK)

test-jupyter: $(READY)  ## the explorer in a real JupyterLab, driven by a browser
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[notebooks]'
	$(PYTEST) -m jupyter tests/jupyter

# The hook that checks types is left out: what it makes of functions cannot be sent to workers.
test-ray: $(READY)  ## commands and calls done by two workers of Ray, one of them killed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[ray]'
	$(PYTEST) -o addopts= -m ray tests/workers

# What concerns the model and what is made of it, in an environment with TransformerLens 4.
test-tl4: $(READY4)  ## loop, interventions, readouts, analyses and verification on TransformerLens 4
	OMP_NUM_THREADS=1 $(VENV4)/bin/pytest --numprocesses 2 --dist loadfile tests/thinking tests/interventions \
		tests/verification tests/readout tests/attention tests/causal --nbmake notebooks/11_backends.ipynb

lint: $(READY)  ## ruff, pyright, and types, style and bundle of the explorer's JavaScript
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python tests/javascript/tools.py check

format: $(READY)  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

js: $(READY)  ## bundle the explorer's JavaScript anew, its types from schema.json, its style Prettier's
	$(BIN)/python tests/javascript/tools.py build

notebooks: $(READY)  ## execute every notebook in a kernel of Jupyter, which make test does without
	$(PYTEST) -o addopts= --numprocesses 2 --nbmake --nbmake-timeout=600 notebooks

# A benchmark prints its page; with SAVE=1 it also goes into benchmarks/results.

bench: $(READY)  ## time the thought loop
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/thinking.py

bench-loading: $(READY)  ## time and memory of loading a model of 1.2 billion parameters
	$(BIN)/python benchmarks/loading.py

bench-metrics: $(READY)  ## time all scores of 7,473 problems x 512 heads
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/metrics.py

bench-scale: $(READY)  ## all of GSM8K: time, memory, disk; an hour or more (N="--n-gpt2 200" for less)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/scale.py $(N)

bench-gpu: $(READY)  ## 7,473 problems at Llama-3.2-1B's shape on a GPU, held against the CPU
	$(BIN)/python benchmarks/gpu.py

bench-sweeps: $(READY)  ## time a sweep over all heads against rerunning each
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/sweeps.py

bench-attribution: $(READY)  ## hold attribution against exact sweeps
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/attribution.py

bench-workers: $(READY)  ## time extraction and sweeps by workers of Ray against here
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[ray]'
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/workers.py

faults: $(READY)  ## stop every command at its file operations, and run it again
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/faults.py

parity: $(READY)  ## compare every layout and architecture with plain Hugging Face
	$(BIN)/python benchmarks/parity.py

verify-wrong: $(READY)  ## what verify says of 25 wrong checkpoints
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/verify_wrong.py

fuzz: $(READY)  ## 10,000 odd files, checkpoints, arguments and calls: each taken, or refused in a sentence
	$(BIN)/python benchmarks/fuzz.py

docs: $(READY)  ## the pages and the reference: writes build/site/index.html
	$(BIN)/zensical build --clean --strict --config-file mkdocs.yml

docs-serve: $(READY)  ## the same at localhost:8000, built again at every change
	$(BIN)/zensical serve --config-file mkdocs.yml

pictures: $(READY)  ## draw the pictures of README and docs from real runs
	rm -rf build/pictures
	$(BIN)/codi-lens analyze tiny-recall --out build/pictures/analysis
	$(BIN)/codi-lens grade tiny-recall --control tiny-recall-control --out build/pictures/grading
	$(BIN)/codi-lens study tiny-gpt2 tiny-llama --out build/pictures/study
	$(BIN)/codi-lens ablate tiny-gpt2 --all --out build/pictures/ablation
	$(BIN)/codi-lens patch tiny-gpt2 --out build/pictures/patching
	$(BIN)/codi-lens ablate tiny-recall --all --no-by-position --out build/pictures/recall
	$(BIN)/codi-lens explore build/pictures/analysis build/pictures/recall --out build/pictures/explored.html
	$(BIN)/python docs/pictures.py build/pictures

clean:  ## remove everything that can be made again
	test ! -f demo/codi_lens.json || (cd demo && rm -rf attention.zarr outcomes $(DEMO))
	rmdir demo 2>/dev/null || true
	rm -rf $(VENV) $(VENV4) .training .pytest_cache .ruff_cache .hypothesis .cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY4): pyproject.toml constraints-tl4.txt
	test -x $(VENV4)/bin/python || $(PYTHON) -m venv $(VENV4)
	$(VENV4)/bin/python -m pip install --quiet --constraint constraints-tl4.txt --editable '.[dev]'
	touch $@

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
