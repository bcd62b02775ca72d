# Everything runs in .venv, which is made when it is missing. Another Python: make PYTHON=python3.12 ...
PYTHON ?= python3
BIN := .venv/bin
SOURCES := core engine storage rpc proxy coordinator querynode datanode indexnode sheafdb bench examples tests scripts

.PHONY: help demo cluster servers test chaos check bench failover docs proto format clean

help:
	@echo "make demo    a guided tour on real data (a minute)"
	@echo "make cluster Kafka, etcd, MinIO and five roles on this machine (CLUSTER_ARGS for options)"
	@echo "make servers installs Kafka, etcd, MinIO and Toxiproxy into a cache folder (once: three minutes)"
	@echo "make test    all tests"
	@echo "make chaos   faults of all kinds for an hour on a loaded cluster, every answer checked (CHAOS_ARGS for options)"
	@echo "make check   format, lint, types, import rules, generated files"
	@echo "make bench   speed and memory, written to docs/performance.md (BENCH_ARGS for options)"
	@echo "make failover  what clients see of killed and restarted processes, written to docs/failover.md"
	@echo "make docs    docs/settings.md from the code"
	@echo "make proto   rpc/pb from proto/"
	@echo "make format  formats the code"
	@echo "make clean   removes what the targets above made, .venv included"

# The stamp is newer than the dependency lists it was installed from.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) scripts/prerequisites.py
	@echo "making .venv (once; hnswlib is compiled)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: .venv/installed
	@$(BIN)/python examples/demo.py

cluster: .venv/installed
	@$(BIN)/python -m sheafdb.cluster --folder .cluster $(CLUSTER_ARGS)

servers: .venv/installed
	@$(BIN)/python -m sheafdb.servers

test: .venv/installed servers
	$(BIN)/python -m pytest

chaos: .venv/installed servers
	@$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

check: .venv/installed
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/pyright
	$(BIN)/lint-imports
	PYTHON=$(BIN)/python scripts/check_generated.sh

bench: .venv/installed
	$(BIN)/python -m bench.run --out docs/performance.md $(BENCH_ARGS)

failover: .venv/installed servers
	$(BIN)/python -m bench.failover

docs: .venv/installed
	$(BIN)/python -m sheafdb.settings_page > docs/settings.md.new && mv docs/settings.md.new docs/settings.md

proto: .venv/installed
	PYTHON=$(BIN)/python rpc/pb/generate.sh

format: .venv/installed
	$(BIN)/ruff check --select I --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf .venv .demo .cluster build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache bench-results
	find . -name __pycache__ -prune -exec rm -rf {} +
