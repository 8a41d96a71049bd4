# `make up` and `make test` install what they need. The machine needs Python 3.11 and make.
SHELL := /bin/sh
PYTHON ?= python3
UV_VERSION := 0.13.9
# Debian packages that the tests of the host's files need.
DEBIAN := cloud-init curl e2fsprogs faketime git haproxy iproute2 mount openssl procps systemd util-linux xfsprogs
RUN := .venv/bin/python
# Some tests need root. In CI we use sudo; elsewhere the tests say that they need root.
AS_ROOT := $(if $(filter true,$(CI)),$(shell [ "$$(id -u)" = 0 ] || echo sudo -E))
# The libraries are large. Compile them once, not in each process.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: test-tools docs stack who fleet-preview fleet-up fleet-drift help setup up preview down test lint format test-unit test-cluster test-boot test-teleport test-e2e bench bench-report clean
.DEFAULT_GOAL := help

help: ## what there is to run
	@awk -F ':.*## ' '/^[a-z0-9 -]+:.*## / {printf "  make %-35s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.complete ## create the Python environment in .venv

.venv/.complete: pyproject.toml uv.lock
	@echo "setup: installing the locked dependencies into .venv"
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@.venv/bin/uv --version 2>/dev/null | grep -q "^uv $(UV_VERSION)" || .venv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@UV_PYTHON_DOWNLOADS=never .venv/bin/uv sync --locked --quiet
	@touch $@

up: setup ## bring up the dev stack on this machine, without an account; or its other form, TOPOLOGY=ha
	@$(RUN) -m sandbox up $(TOPOLOGY)

preview: setup ## preview the dev stack, or STACK=name, against a throwaway fake account
	@$(RUN) -m fleet preview --stand-ins $(or $(STACK),dev)

down: setup ## destroy the dev stack and stop its servers
	@$(RUN) -m sandbox down

test: lint test-tools ## run all tests and checks that must pass
	@# A file stays in one process, so that what its tests share is made once. The longest files come first.
	@$(RUN) -m pytest tests/e2e tests/cluster tests/unit -n 2 --dist loadfile --no-loadscope-reorder
	@$(MAKE) --no-print-directory test-boot
	@$(if $(TELEPORT),$(MAKE) --no-print-directory test-teleport,echo "test-teleport: NOT RUN, it needs a release of Teleport: make test TELEPORT=folder")

test-tools:
	@if [ "$$(id -u)" = 0 -o -n "$(AS_ROOT)" ] && command -v apt-get >/dev/null && ! dpkg -s $(DEBIAN) >/dev/null 2>&1; then \
	  echo "setup: installing $(DEBIAN)"; \
	  $(AS_ROOT) apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive $(AS_ROOT) apt-get install -y -qq --no-install-recommends $(DEBIAN) >/dev/null; \
	fi

lint: setup ## check the format, style, types and workflows
	@.venv/bin/ruff format --check --quiet . && echo "format: ok"
	@.venv/bin/ruff check --quiet . && echo "style: ok"
	@.venv/bin/pyright --warnings
	@$$($(RUN) -m sandbox.binaries actionlint) -shellcheck .venv/bin/shellcheck -pyflakes= && echo "workflows: ok"
	@.venv/bin/zizmor --offline --quiet --pedantic . && echo "security of the workflows: ok"

format: setup ## format the code, and fix its style
	@.venv/bin/ruff format --quiet . && .venv/bin/ruff check --fix --quiet .

test-unit test-cluster test-e2e: test-%: setup test-tools ## run one layer of the tests
	@$(RUN) -m pytest tests/$*

test-boot: setup test-tools ## boot the host's files on this machine, with faults; as root
	@$(AS_ROOT) $(RUN) -m pytest tests/boot -n 2

test-teleport: setup test-tools ## test with the real Teleport, TELEPORT=folder of an unpacked release; as root
	@[ -x "$(TELEPORT)/teleport" ] || { echo "test-teleport: TELEPORT=folder of an unpacked release, with teleport, tctl and tsh"; exit 1; }
	@$(AS_ROOT) $(RUN) -m pytest tests/teleport

stack: setup ## write the file of a new stack: CLUSTER=name REGION=eu-west-1 EMAIL=you@example.com
	@$(RUN) -m fleet new "$(CLUSTER)" --region "$(REGION)" --email "$(EMAIL)"

fleet-preview fleet-up fleet-drift: fleet-%: setup ## all stacks, or STACKS="a b"; PARALLEL=4 at a time; fleet-up: RESUME=--resume
	@$(RUN) -m fleet $* $(STACKS) --parallel $(or $(PARALLEL),4) $(RESUME)

who: setup ## which people have access through STACK=name; JSON=--json
	@$(RUN) -m fleet who "$(STACK)" $(JSON)

docs: setup ## generate the reference, Pulumi.yaml's keys and the schema from the settings
	@$(RUN) -m docs.generate

bench: setup ## measure what costs time, memory or bytes: BENCH="preview fleet aws-auth boot people user-data"; people needs TELEPORT=folder
	@$(RUN) -m bench $(BENCH)

bench-report: setup ## the same, and write docs/performance.md with plots; REMARK="a sentence for it"
	@UV_PYTHON_DOWNLOADS=never .venv/bin/uv sync --locked --quiet --inexact --group bench
	@$(RUN) -m bench $(BENCH) --report --remark "$(REMARK)"

clean: down ## do what down does, and remove the environment
	@rm -rf .venv .pytest_cache .ruff_cache .hypothesis
