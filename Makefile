# One machine, two commands: `make run`, `make test`. `make help` tells the rest.
.POSIX:
.SUFFIXES:

# Nothing of another Python may hide our packages or the standard library.
unexport PYTHONPATH
unexport PYTHONHOME

PYTHON = python3
VENV = .venv
TORCH = auto
CRAWL =
OUT =
FROM =
TO =
ARGS =
export CRAWL
export OUT
export FROM
export TO

INSTALL = $(PYTHON) requirements/install.py --venv '$(VENV)' --torch '$(TORCH)'
BIN = '$(VENV)'/bin
# Stages before training need no torch.
WITHOUT_TORCH = extract_crawl dedup_documents train_quality score_quality filter_documents train_tokenizer tokenize_documents

.PHONY: help setup setup-corpus setup-test run test test-all bench-gpu lint clean

help: ## what can be made
	@echo 'make run                                the sample crawl, from WARC files to a trained tiny model'
	@echo "make run CRAWL='path/*.warc.gz' OUT=DIR    the same with your own crawl; OUT may be s3://bucket/prefix"
	@echo 'make run TO=filter_documents            stop after that stage (before training no torch is installed)'
	@echo 'make run FROM=dedup_documents           begin at that stage'
	@echo 'make test                               set up and run what CI runs; prints what it skipped'
	@echo 'make test-all                           the same with the long matrices'
	@echo 'make bench-gpu                          training on one GPU beside plain torch; installs nothing'
	@echo 'make lint                               ruff, import contracts, pyright'
	@echo 'make setup [TORCH=auto|cpu|cuda]        only install, into $(VENV)'
	@echo 'make clean                              delete $(VENV) and caches; never OUT'
	@echo
	@echo 'PIP_INDEX_URL and pip.conf are honoured. After setup: $(VENV)/bin/gristmill --help'

setup: ## dependencies of the whole trip
	@$(INSTALL) --groups corpus,train

setup-corpus: ## the same without torch
	@$(INSTALL) --groups corpus

setup-test:
	@$(INSTALL) --groups corpus,train,test

run: ## the whole trip; see help
	@case ' $(WITHOUT_TORCH) ' in *" $${TO:-evaluate_model} "*) groups=corpus ;; *) groups=corpus,train ;; esac; \
	$(INSTALL) --groups $$groups && \
	exec $(BIN)/gristmill run local $${CRAWL:+--crawl "$$CRAWL"} $${OUT:+--root "$$OUT"} \
	  $${FROM:+--from "$$FROM"} $${TO:+--to "$$TO"} $(ARGS)

test: setup-test ## what CI runs
	@$(BIN)/python -m pytest -m 'not slow' $(ARGS)

test-all: setup-test ## the long matrices too
	@$(BIN)/python -m pytest $(ARGS)

bench-gpu: ## needs torch, deepspeed and the base install, in .venv or in $(PYTHON)
	@python='$(VENV)'/bin/python; [ -x "$$python" ] || python='$(PYTHON)'; exec "$$python" -m tests.benchmarks.gpu $(ARGS)

lint: setup-test ## pyright reports, and does not fail yet
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	-@$(BIN)/pyright

clean: ## everything that setup and tests made; never OUT
	rm -rf '$(VENV)' .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -not -path './out/*' -prune -exec rm -rf {} +
