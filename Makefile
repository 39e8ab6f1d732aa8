# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later

# Nobody's own Python, pip or Ansible settings may change what the gates see.
export PATH := $(CURDIR)/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL := C.UTF-8
export ANSIBLE_HOME := $(CURDIR)/.build/ansible
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.build/collections
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PYENV_VERSION ANSIBLE_CONFIG
MAKEFLAGS += --no-print-directory
ifndef TWO_AT_ONCE
.NOTPARALLEL:
endif

STEP := @tools/step
SCRIPTS := .ci/run tests/fleet tests/testbed/host-init tests/molecule/image tests/vagrant/box $(filter-out %.py,$(wildcard tools/* demo/run tests/*/run))

# In the order in which make test runs them: what fails soonest comes first. What reads the sources, and what builds
# other programs beside it, goes two at a time.
LINTS := ruff ruff-format mypy shellcheck changelog ansible-lint docs-lint
READERS := $(LINTS) sanity galaxy-import
BESIDE := $(READERS) test-corpus
RUNNERS := units testbed integration fleet-rollout test-alone test-demo test-redis
TESTS := $(BESIDE) $(RUNNERS)

# What takes long, each by itself.
LONGER := cases corpus deaths differential endurance fleet fleet-whole fuzz interrupted molecule report-browser vagrant

.PHONY: help test demo lint bench figures ready clean archive sbom $(LONGER) $(TESTS)

help: ## say what there is
	@echo "cgl.livepatch: what you can make"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 30

test: ready ## everything that has to pass, and a closing line that counts it
	@tools/summary --begin
	@$(MAKE) TWO_AT_ONCE=1 -j2 --output-sync=target $(BESIDE) && $(MAKE) $(RUNNERS); status=$$?; tools/summary; exit $$status

demo: ready ## three hosts, a faulty server, a patch rolled out under load and taken out again
	@tools/runnable demo/run
	@demo/run

lint: $(LINTS) ## all quick checks of code and documents (make -k lint: go on after a failure)

ruff: ready
	$(STEP) $@ ruff check .

ruff-format: ready
	$(STEP) $@ ruff format --check .

mypy: ready
	$(STEP) $@ mypy

shellcheck: ready
	$(STEP) $@ shellcheck $(SCRIPTS)

changelog: ready
	$(STEP) $@ antsibull-changelog lint

ansible-lint: ready
	$(STEP) $@ ansible-lint --offline

docs-lint: ready
	$(STEP) $@ antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs all .

deaths: ready ## the tool killed, or halted, and the program ended, at every point at which they touch (30 minutes)
	$(STEP) --tests $@ env LIVEPATCH_DEATHS=all python -m pytest -n 2 tests/unit/engine/test_deaths.py \
		tests/unit/engine/life_at_any_point.py tests/unit/engine/test_seccomp.py tests/unit/engine/test_layers.py

cases: ready ## every change of code the tests know, compiled in every way, patched live and compared (5 minutes)
	$(STEP) --tests $@ env LIVEPATCH_CASES=all python -m pytest -n 2 tests/unit/builder/test_code_cases.py \
		tests/unit/builder/test_patched_process.py

differential: ready ## random programs, edited at random, patched live and compared (PROGRAMS=N, SEED=S; 5 minutes)
	@python tests/unit/builder/differential.py --programs $(or $(PROGRAMS),300) $(addprefix --seed ,$(SEED))

fleet: ready ## a rollout over 200 hosts (HOSTS=N, PAIRS=N of them pairs), beside three pings over them (20 minutes)
	@PYTHONPATH=tests python -m fleet_rollout.scale $(or $(HOSTS),200) $(or $(PAIRS),0)

interrupted: ready ## a rollout over ten hosts interrupted at 20 points, in four ways, and run again (15 minutes)
	$(STEP) --tests $@ env LIVEPATCH_INTERRUPTIONS=20 python -m pytest tests/fleet_rollout/test_interrupted.py

endurance: ready ## load, activate, deactivate, unload 10,000 times under load (CYCLES=N), with a histogram (20 minutes)
	@LIVEPATCH_CYCLES=$(or $(CYCLES),10000) python -m pytest -q tests/unit/engine/test_endurance.py

fuzz: ready ## coverage-guided fuzzing of all that reads what others made (SECONDS=N for each of five; 5 minutes)
	@tools/venv .build/venv-fuzz requirements-fuzz.txt
	@for target in patch manifest objects region maps; do \
		.build/venv-fuzz/bin/python tests/fuzz/fuzz.py $$target --seconds $(or $(SECONDS),60) || exit 1; \
	done

sanity: ready ## ansible-test sanity, nothing ignored
	$(STEP) --tests $@ tools/ansible-test sanity --color no

units: ready ## ansible-test units, which pytest alone runs, too: .venv/bin/python -m pytest -n 3 tests/unit
	$(STEP) --tests $@ tools/ansible-test units --color no --num-workers 3

galaxy-import: ready ## build the archive, and import it as Galaxy does
	$(STEP) $@ tools/galaxy-import

archive: ready ## build the archive into .build/archive, the same bytes each time, with its bill of materials (CycloneDX)
	@tools/archive .build/archive

sbom: archive ## its bill of materials, .build/archive/*.cdx.json

testbed: ready ## the tests of the test bed: hosts as namespaces (as root)
	$(STEP) --tests $@ python -m pytest tests/testbed

integration: ready ## ansible-test integration: the modules on this machine's processes (as root)
	@tools/runnable tests/integration/targets
	$(STEP) --tests $@ tools/ansible-test integration --color no --allow-root --allow-destructive

fleet-rollout: ready ## roles and playbooks over hosts with real SSH, in waves, some of which fail (as root)
	$(STEP) --tests $@ python -m pytest -n 2 --dist loadfile -m "not long" tests/fleet_rollout

fleet-whole: ready ## the same, with all that can be wrong or come between (as root, 12 minutes)
	$(STEP) --tests $@ python -m pytest -n 2 --dist loadfile tests/fleet_rollout

test-alone: ready ## what all who look at processes would notice, by itself (as root)
	$(STEP) --tests $@ python -m pytest -o pythonpath='.build/collections plugins tests tests/unit/engine tests/alone' tests/alone

test-demo: ready ## the demonstration: that it is true, and leaves nothing, interrupted or not (as root)
	$(STEP) --tests $@ python -m pytest -o pythonpath=tests demo

test-redis: ready ## the proof on Debian's own redis-server (as root)
	@tools/runnable tests/redis/run
	$(STEP) --tests $@ tests/redis/run

test-corpus: ready ## of the corpus, the programs that build in seconds (as root)
	@tools/runnable tests/corpus/run
	$(STEP) --tests $@ tests/corpus/run -m quick

corpus: ready ## real fixes of Debian's programs, each live, and write docs/corpus.md (20 minutes; as root)
	@tools/runnable tests/corpus/run
	@tests/corpus/run --page docs/corpus.md

report-browser: ready ## the report in a real browser, with one host and with 2,000 (3 minutes)
	@tools/runnable tests/report/run
	$(STEP) --tests $@ tests/report/run

molecule: ready ## the scenarios of extensions/molecule: SCENARIOS="default upgrade pairs failure" (as root, 15 minutes)
	@tools/runnable tests/molecule/run
	$(STEP) $@ tests/molecule/run $(SCENARIOS)

vagrant: ready ## a virtual machine: rollout, a real reboot, the kill switch of its kernel (as root, 15 minutes)
	@tools/runnable tests/vagrant/run
	$(STEP) $@ tests/vagrant/run

bench: ready ## how long a program stands still, beside the least possible
	@tools/runnable tests/bench/run
	@tests/bench/run

figures: ready ## the same, and write it down in docs/figures.md
	@tools/runnable tests/bench/run
	@tests/bench/run --docs

ready: ## install what the targets need: system packages (as root), .venv
	@tools/system-packages requirements-system.txt
	@tools/venv .venv requirements-dev.txt
	@tools/collection-path >/dev/null

clean: ## remove all that was made here
	rm -rf .build .cache .venv tests/output
