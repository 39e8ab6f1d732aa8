# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later

# Nobody's own Python, pip or Ansible settings may change what the gates see.
export PATH := $(CURDIR)/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export ANSIBLE_HOME := $(CURDIR)/.build/ansible
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.build/collections
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PYENV_VERSION ANSIBLE_CONFIG
MAKEFLAGS += --no-print-directory

STEP := @tools/step
SCRIPTS := .ci/run tests/fleet tests/testbed/host-init $(wildcard tools/*)
LINTS := ruff ruff-format mypy shellcheck

.PHONY: help test demo lint $(LINTS) units sanity testbed integration bench test-redis ready clean

help: ## say what there is
	@echo "cgl.livepatch: what you can make"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

ready: ## install what the targets need: system packages (as root), .venv
	@tools/system-packages requirements-system.txt
	@tools/venv .venv requirements-dev.txt
	@tools/collection-path >/dev/null

lint: $(LINTS) ## all quick checks of the code and its documents (make -k lint: go on after a failure)

ruff: ready
	$(STEP) $@ ruff check .

ruff-format: ready
	$(STEP) $@ ruff format --check .

mypy: ready
	$(STEP) $@ mypy

shellcheck: ready
	$(STEP) $@ shellcheck $(SCRIPTS)

units: ready ## the unit tests
	$(STEP) $@ python -m pytest tests/unit

testbed: ready ## the tests of the test bed (hosts as namespaces; needs root)
	$(STEP) $@ python -m pytest tests/testbed

clean: ## remove all that was made here
	rm -rf .build .cache .venv tests/output
