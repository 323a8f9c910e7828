# One command from a fresh clone: every target first makes .venv with the pinned versions of constraints.txt.
#   make help        what there is
#   PYTHON=python3.12 make run    another interpreter (remove .venv first)

PYTHON ?= python3
STAMP := .venv/.stamp
BENCH := .venv/.bench
FUZZ := .venv/.fuzz
DOCS := .venv/.docs
AUDIT := .venv/.audit
RELEASE := .venv/.release
BIN := .venv/bin

# Some shells forbid bytecode files; without them each of some 300 processes of the tests compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: run test test-all lint bench docs dist gpu study audit soak clean help
.DELETE_ON_ERROR:

# PIP_CONSTRAINT reaches pip's isolated build environments too, which -c does not. Without the torch pin a resolve
# would take the newest CUDA build, gigabytes of it. The path is relative because pip splits the variable at blanks.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

run: $(STAMP)  ## run the embedded demo on two ranks
	$(BIN)/igc-dist fabric.devices=2

# Three processes on two cores, a file of tests to each at a time: files share fixtures, and a third of the time is spent waiting for ranks.
THREE := -n 3 --dist loadfile --no-loadscope-reorder

test: $(STAMP)  ## run the timed set of tests
	$(BIN)/python -m pytest -q -m "not slow" $(THREE)

test-all: $(STAMP)  ## run every test, half an hour
	$(BIN)/python -m pytest -q $(THREE)

lint: $(STAMP)  ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Captum, which the engine is timed against, is an extra that nothing else needs.
$(BENCH): $(STAMP)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,bench]'
	touch $@

# `make bench startup memory` runs these two alone
ifeq (bench,$(firstword $(MAKECMDGOALS)))
NAMES := $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
.PHONY: $(NAMES)
$(NAMES): bench ; @:
endif

bench: $(BENCH)  ## time the engine, half an hour, or what is named after it; writes tests/benchmarks/README.md
	$(BIN)/python -m tests.benchmarks $(NAMES)

$(DOCS): $(STAMP)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,docs]'
	touch $@

docs: $(DOCS)  ## build the site into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -q

$(RELEASE): $(STAMP)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,release]'
	touch $@

dist: $(RELEASE)  ## build wheel and source archive into dist/, and check what a package index would show
	$(BIN)/python -m build -n -o dist .
	$(BIN)/python -m twine check --strict dist/*

STUDY := $(BIN)/igc-dist -m experiment=study method=ig,guided_ig,blur_ig,ig2,idgi,idgi_guided_ig,idgi_blur_ig \
	quadrature.n_steps=4,8,16,32 plan.n_folds=2

study: $(STAMP)  ## which method to believe, on digits and on photographs, under ten minutes; writes docs/study
	$(STUDY) hydra.sweep.dir=outputs/study/digits +data.build.n=96 'metric=[insertion,deletion,sparseness]'
	$(BIN)/igc-dist compare outputs/study/digits/*/store.zarr --reference ig --to docs/study/digits
	$(BIN)/python -m tests.studies.photos outputs/study/photos.safetensors
	$(STUDY) --path . --allow-target tests.studies hydra.sweep.dir=outputs/study/photos \
		'metric=[insertion,sic_study,aic_study,lossy]' data.build._target_=tests.studies.photos.Photos \
		model.build._target_=tests.studies.photos.net model.weights=outputs/study/photos.safetensors
	$(BIN)/igc-dist compare outputs/study/photos/*/store.zarr --reference ig --to docs/study/photos

$(AUDIT): $(STAMP)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,audit]'
	touch $@

PHOTOGRAPHS := experiment=photographs fabric.devices=2

audit: $(AUDIT)  ## two audits: a planted shortcut, and photographs with a network of ImageNet; writes outputs/audit
	$(BIN)/igc-dist experiment=shortcut fabric.devices=2 hydra.run.dir=outputs/audit/shortcut
	$(BIN)/igc-dist experiment=strategies fabric.devices=2 hydra.run.dir=outputs/audit/strategies
	$(BIN)/igc-dist ask outputs/audit/strategies/store.zarr strategies
	$(BIN)/igc-dist -m $(PHOTOGRAPHS) method=ig,guided_ig,idgi hydra.sweep.dir=outputs/audit/photographs
	$(BIN)/igc-dist compare outputs/audit/photographs/*/store.zarr --reference ig --to outputs/audit/compared
	$(BIN)/igc-dist $(PHOTOGRAPHS) reduce=xrai 'metric=[]' hydra.run.dir=outputs/audit/xrai

# Where torch finds no CUDA device it is a dry run on the CPU.
gpu: $(STAMP)  ## test and measure on a CUDA card, eight minutes; writes outputs/gpu
	PYTHON=$(BIN)/python bash tests/gpu/check.sh outputs/gpu

# atheris, the coverage-guided fuzzer, has wheels for a few Pythons on Linux only.
$(FUZZ): $(STAMP)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,fuzz]'
	touch $@

soak: $(FUZZ)  ## break runs at random, half an hour, fuzz, then 200 storms from outside; SOAK="--rounds 20 --seed 7 --fuzz 600", STORM="--rounds 20" for others
	$(BIN)/python -m tests.soak $(SOAK)
	$(BIN)/python -m tests.storm $(STORM)

clean:  ## remove outputs and caches, keep .venv
	rm -rf outputs multirun dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -path ./.git -prune -o -type d -name __pycache__ -exec rm -rf {} +

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile
