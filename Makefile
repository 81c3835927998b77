# Everything from a machine with Python 3.11+ (pip, venv) and make. `make help` lists the targets.
PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help run test check demo bench audit openapi lock clean
help:
	@echo "make run    serve on 127.0.0.1:$(PORT) with an embedded database and a demo programme"
	@echo "make test   the whole suite, on SQLite and on PostgreSQL"
	@echo "make demo   real baskets through a fresh service, then the books (PROGRAM=grocer DATA=file DATABASE_URL=engine)"
	@echo "make check  lint, types, import contracts"
	@echo "make bench  figures against hand-written SQL (QUICK=1 LARGE=1 ONLY=purchases,balance DATABASE_URL=server)"
	@echo "make audit  known holes in the locked dependencies (asks the internet)"

.venv/run: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev: .venv/run requirements-dev.lock
	@$(BIN)/pip install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

run: .venv/run
	@PORT=$(PORT) $(BIN)/loyalty run

test: check
	$(BIN)/pytest -n 2 --dist worksteal

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

demo: .venv/run
	@$(BIN)/loyalty demo $(if $(DATA),--data $(DATA)) $(if $(PROGRAM),--program $(PROGRAM))

# QUICK=1: some minutes. LARGE=1: with millions of entries. ONLY=purchases,balance. See benchmarks/README.md.
bench: .venv/dev
	@$(BIN)/python -m benchmarks

audit: .venv/dev
	$(BIN)/pip-audit --disable-pip --require-hashes -r requirements.lock

openapi: .venv/run
	$(BIN)/loyalty openapi > openapi.yaml

# Needs uv (pip install uv): resolves for every platform and Python at once.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --quiet pyproject.toml --extra postgres \
	  --group build -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --quiet pyproject.toml --extra postgres \
	  --group build --group dev -c requirements.lock -o requirements-dev.lock

clean:
	rm -rf .venv
