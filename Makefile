PYTHON ?= python3
BIN    := .venv/bin

# At once; each has services and databases of its own.
PROCESSES ?= 2

.PHONY: install constraints audit demo check test test-all test-open-clip lint chaos dist bench \
        bench-encode bench-labels bench-models bench-promises bench-sweep bench-search bench-tables \
        bench-pages bench-thumbnails clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv || { \
	  echo "Python's venv module is missing. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[worker,local,dev]'
	@touch $@

# The newest versions that go together; torch stays as it is pinned.
constraints: install
	$(BIN)/python tests/support/renew_constraints.py

# Known vulnerabilities of the pinned versions. Asks for advisories, by a tool of its own environment.
audit: .venv-audit/bin/pip-audit
	.venv-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

.venv-audit/bin/pip-audit:
	@test -x .venv-audit/bin/pip || $(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet --disable-pip-version-check pip-audit

demo: install
	@$(BIN)/python demo/demo.py

# For every save: what needs no service and no model.
check: lint
	$(BIN)/pytest -q -n $(PROCESSES) tests/unit --ignore tests/unit/models

test: lint
	$(BIN)/pytest -n $(PROCESSES) --dist worksteal

# Besides, what takes long: Postgres 16, the oldest dependencies, chaos: 200 faults, and some
# through a pooler, beside another Celery application, and with a change of models.
test-all: test
	CI=true PGCLIP_TEST_POSTGRES=16 $(BIN)/pytest -n $(PROCESSES) --dist worksteal \
	  tests/integration --ignore tests/integration/test_local.py
	$(BIN)/pytest -m long
	$(BIN)/python tests/chaos --seed 2 --faults 200
	$(BIN)/python tests/chaos --seed 3 --faults 60 --through-pooler
	$(BIN)/python tests/chaos --seed 4 --faults 60 --beside-celery
	$(BIN)/python tests/chaos --seed 5 --faults 60 --change-model

# open_clip in an environment of its own, 5 GB: its torchvision has no build for every torch.
test-open-clip: .venv-open-clip/.installed
	.venv-open-clip/bin/pytest tests/with_open_clip

.venv-open-clip/.installed: pyproject.toml tests/with_open_clip/constraints.txt
	@test -x .venv-open-clip/bin/pip || $(PYTHON) -m venv .venv-open-clip
	.venv-open-clip/bin/pip install --quiet --disable-pip-version-check \
	  -c tests/with_open_clip/constraints.txt torch torchvision open_clip_torch
	.venv-open-clip/bin/pip install --quiet --disable-pip-version-check \
	  -c tests/with_open_clip/constraints.txt -e '.[worker,open-clip]' pytest pytest-timeout psutil httpx
	@touch $@

# Wheel and sdist in dist/, built and checked by tools in an environment of their own.
dist: .venv-dist/bin/twine
	rm -rf dist
	.venv-dist/bin/python -m build --outdir dist .
	.venv-dist/bin/twine check --strict dist/*

.venv-dist/bin/twine:
	@test -x .venv-dist/bin/pip || $(PYTHON) -m venv .venv-dist
	.venv-dist/bin/pip install --quiet --disable-pip-version-check build twine

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Faults at random against real services; python tests/chaos --help says what can be chosen.
chaos: install
	$(BIN)/python tests/chaos --seed 1 --faults 1000 --long --throughput --report tests/chaos/report.json

bench: install
	$(BIN)/python benchmarks/run.py

# With its peers, each in an environment of its own, which takes 2 GB and some minutes at first.
bench-encode: install
	$(BIN)/python benchmarks/encode.py

bench-promises: install
	.venv/bin/python benchmarks/promises.py

# A million items: an hour or so.
bench-models: install
	$(BIN)/python benchmarks/maps.py
	$(BIN)/python benchmarks/models.py

bench-labels: install
	$(BIN)/python benchmarks/labels.py

bench-tables: install
	$(BIN)/python benchmarks/tables.py

bench-search: install
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/found.py

bench-pages: install
	$(BIN)/python benchmarks/pages.py

bench-thumbnails: install
	$(BIN)/python benchmarks/thumbnails.py

bench-sweep: install
	$(BIN)/python benchmarks/sweep.py

clean:
	rm -rf .venv .venv-audit .venv-dist .venv-open-clip .pgclip dist
