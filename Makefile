# One word for each thing a developer does; CI runs the same words.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEVICE ?= cuda
TORCH ?= torch.txt
PYTEST ?= $(BIN)/pytest
SOURCES := config models node storage tests bench docs deploy
ABUSE := $(addprefix tests/peers/test_receiver_,abuse.py crowds.py progress.py instances.py)

# The tests run in parts, in this order, which begins with the longest; a new folder of tests runs in test-rest.
FOLDERS := slice peers torture docs field
PARTS := test-node test-rest test-slice test-peers test-component $(addprefix test-,$(filter-out slice peers,$(FOLDERS)))
NODE := tests/component/node
COMPONENT := $(filter-out $(NODE) %/__pycache__ %/conftest.py,$(wildcard tests/component/*))
REST := $(filter-out $(addprefix tests/,$(FOLDERS) component __pycache__),$(patsubst %/,%,$(wildcard tests/*/)))
# Slice, peers and torture often wait for a process, a peer or a limit of time: three parts keep two cores busy.
JOBS ?= 3

# Hundreds of processes of the node start in the tests: without cached byte code each compiles all sources again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo types test $(PARTS) unit coverage abuse retention field fuzz torture soak ray check quick format bench trust scale pictures walk gpu reproduce-small scaled docs clean

.PHONY: constraints release audit

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(TORCH)  # no package is taken whose hash is not in constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement constraints.txt
	$(BIN)/python -m pip install --quiet --requirement $(TORCH)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	touch $(STAMP)

constraints:  ## lock every package with its hashes, after a change of pyproject.toml; UPGRADE=--upgrade takes the newest
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m deploy.release.lock $(UPGRADE)

demo: $(STAMP)  ## the whole path on this machine, with a picture at the end
	$(BIN)/syncect demo

test: $(STAMP)  ## every test this machine can run; a missing peer skips its tests and says so
	$(MAKE) --jobs=$(JOBS) --keep-going $(if $(CI),--output-sync=target) $(PARTS)

$(addprefix test-,$(FOLDERS)): test-%: $(STAMP)
	$(PYTEST) tests/$*

test-node: $(STAMP)
	$(PYTEST) $(NODE)

test-component: $(STAMP)
	$(PYTEST) $(COMPONENT)

test-rest: $(STAMP)
	$(PYTEST) $(REST)

unit: $(STAMP)  ## the fast tier: no sockets, no processes
	$(BIN)/pytest tests/unit

coverage: $(STAMP)  ## every test, and how much of the product they run; fails under the floor in pyproject.toml
	$(BIN)/coverage erase
	$(MAKE) test PYTEST="$(BIN)/coverage run -m pytest"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

abuse: $(STAMP)  ## how a known peer fares while others attack the receiver with real numbers; takes about eight minutes
	SYNCECT_ABUSE=long $(BIN)/pytest -s $(ABUSE)

retention: $(STAMP)  ## ten thousand delivered series come and go, and the disk stays flat; takes about two minutes
	SYNCECT_RETENTION=long $(BIN)/pytest -s tests/component/node/test_retention.py

scaled: $(STAMP)  ## every role of deploy/kubernetes as a process of its own on PostgreSQL, and a series through them
	DEPLOY_SCALED=1 $(BIN)/pytest tests/deploy/test_scaled.py

ray: $(STAMP)  ## every fault of a Ray cluster while jobs run: actors, hosts, the head, the worker; takes about fifteen minutes
	RAY_FAULTS=long $(BIN)/pytest tests/component/node/test_ray_executor.py tests/component/node/test_ray_worker.py \
		tests/deploy/test_scaled_ray.py
	RAY_FAULTS=long $(BIN)/pytest tests/component/node/test_ray_nodes.py

field: $(STAMP)  ## every input made after a public bug report, pushed over DICOM; takes about six minutes
	FIELD_CASES=all $(BIN)/pytest tests/field

fuzz: $(STAMP)  ## changed inputs for everything that takes bytes from outside, for MINUTES (30); SEED=n repeats a run, TARGET=name is one; writes bench/results
	$(BIN)/python -m tests.fuzz $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(if $(TARGET),--target $(TARGET))

torture: $(STAMP)  ## every kind of fault on both databases, in 30 minutes; SEED=n repeats a run; writes deploy/torture.md
	$(BIN)/python -m tests.torture $(if $(SEED),--seed $(SEED))

soak: $(STAMP)  ## a study a minute with faults on, for SOAK_S seconds (1200); what grows fails it; writes deploy/torture.md
	$(BIN)/python -m tests.torture.soak

check: quick types  ## the quick checks and types

types: $(STAMP)
	$(BIN)/mypy

quick: $(STAMP)  ## format, lint, import contracts, spelling: what a commit waits for
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/lint-imports
	$(BIN)/codespell $(SOURCES) *.md

format: $(STAMP)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

bench: $(STAMP)  ## ratios measured side by side in one run
	$(BIN)/python bench/run.py

trust: $(STAMP)  ## real scans, levels and attacks: every figure beside its aim, both shipped bundles, and how often unseen phantoms are held; takes long; SHORT=1: a rehearsal
	$(BIN)/python -m bench.trust $(if $(SHORT),--short)
	$(BIN)/python -m bench.trust.calibrate $(if $(SHORT),--short --patients 8,--patients 60 --seed 920001)
	$(BIN)/python -m bench.trust.calibrate_doubt $(if $(SHORT),--patients 4 --slices 4,--seed 930017)

scale: $(STAMP)  ## kills, claims, a million jobs, an archive, and the model of many scanners against real processes; ONLY="name ..." is some of it, SHORT=1 a rehearsal; writes bench/results
	$(BIN)/python -m bench.scaled $(if $(SHORT),--short) $(if $(ONLY),--only $(ONLY))

pictures: $(STAMP)  ## renew the screenshots of the documents: a public series in a browser; takes two minutes
	rm -rf runs/pictures
	STORY_PICTURES=runs/pictures STORY_BUNDLE=demo STORY_WITHIN_S=900 $(BIN)/pytest --timeout 1400 tests/slice/test_story_in_a_browser.py
	$(BIN)/python -m tests.pictures runs/pictures

walk: $(STAMP)  ## which files and functions a slice passes to its first answer and to the TPS, `jobs ls`, a training step
	$(BIN)/python -m bench.walk

gpu:  ## what only a GPU can show, in 8 minutes; installs nothing; DEVICE=cpu is a dry run of the same code
	DEVICE=$(DEVICE) bench/gpu.sh

reproduce-small: $(STAMP)  ## the study in small: five methods trained and evaluated on a phantom cohort, in runs/small
	$(BIN)/python bench/reproduce_small.py

docs: $(STAMP)  ## the documentation site, in build/docs/site; a broken link or anchor fails it
	$(BIN)/python -m docs.builder

release: $(STAMP)  ## build twice, install without this checkout, try it there; VERSION=0.2.0 wants that tag, else a rehearsal
	$(BIN)/python -m deploy.release.release $(if $(VERSION),--version $(VERSION)) $(if $(WITHOUT_TORCH),--without-torch $(WITHOUT_TORCH))

audit: $(STAMP)  ## hashes, licences, bill of materials, known vulnerabilities; exit code 3 (make: Error 3): no service and no reading
	$(BIN)/python -m deploy.release.audit

clean:
	rm -rf $(VENV) demo-out .pytest_cache .mypy_cache .ruff_cache .coverage*
