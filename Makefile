# Every target sets up by itself what it needs: see scripts/setup. No virtual environment has to be active.

# 1 in CI: warnings are errors there. Here a newer compiler's warning must not spoil a visitor's command.
export TACHYON_WERROR ?= 0
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
SETUP := PYTHON="$(PYTHON)" scripts/setup
VENV := .venv/bin
# .venv has a CMake of its own only where the system's is too old.
IN_VENV := PATH="$(CURDIR)/$(VENV):$$PATH"
CMAKE := $(IN_VENV) cmake
CTEST := $(IN_VENV) ctest
JOBS := $(shell nproc 2>/dev/null || echo 2)
PYTEST_ARGS ?=
BENCH_ARGS ?=
SOAK_ARGS ?=
SOAK_SHORT = --kills 600 --hostile-minutes 0.5 --interrupts 840 --signal-seconds 11 --sleeps 280 --most-minutes 0.7
CXX_SOURCES = $(shell find cxx examples cmake tests/consumer_cmake tests/consumer_pkgconfig tests/soak -name '*.hpp' -o -name '*.cpp')

.PHONY: help demo test test-cxx test-python lint format bench soak soak-short sanitize sanitize-python wheels check-wheel check-macos clean

help:
	@echo 'make demo      see it work: a stream, round trips, and how fast it is beside a pipe and a socket'
	@echo 'make test      the C++ tests, then the Python tests (PYTEST_ARGS="-k cli")'
	@echo 'make lint      formatting, clang-tidy, ruff, cython-lint, mypy, stubtest'
	@echo 'make format    put the formatting right'
	@echo 'make bench     measure, and compare with the targets (BENCH_ARGS="--only 1,2,16")'
	@echo 'make soak      kill, attack, interrupt for hours (SOAK_ARGS="--only kills --kills 1000"); make soak-short: two minutes'
	@echo 'make sanitize  the C++ tests under ASan + UBSan, then under TSan'
	@echo 'make sanitize-python  the Python tests about memory under ASan + UBSan (PYTEST_ARGS=tests: all)'
	@echo 'make wheels    a source distribution and wheels for every CPython found (ARCHS="x86_64 aarch64")'
	@echo 'make check-wheel  build one here, and use it from Python, C++ and Cython in a fresh environment'
	@echo 'make check-macos  compile the core for macOS; nothing is run'
	@echo 'make clean     remove everything that was built, .venv too'

demo:
	@$(SETUP) demo
	@$(VENV)/python -m tachyon demo

test: test-cxx test-python

test-cxx:
	@$(SETUP) core
	$(CMAKE) --preset release -DTACHYON_WERROR=$(TACHYON_WERROR)
	$(CMAKE) --build --preset release -j $(JOBS)
	$(CTEST) --preset release

test-python:
	@$(SETUP) test
	$(VENV)/python -m pytest $(PYTEST_ARGS)

lint:
	@$(SETUP) lint
	$(VENV)/clang-format --dry-run --Werror $(CXX_SOURCES)
	@mkdir -p build
	$(CMAKE) --preset release -B build/lint -DTACHYON_TESTS=OFF >build/lint.log || { cat build/lint.log; exit 1; }
	find cxx/src cxx/bench -name '*.cpp' ! -name '*_macos.cpp' -print0 | xargs -0 -n 1 -P $(JOBS) $(VENV)/clang-tidy -p build/lint --quiet
	$(VENV)/python scripts/stub_docs --check
	$(VENV)/ruff check
	$(VENV)/ruff format --check
	$(IN_VENV) cython-lint tachyon
	$(VENV)/mypy
	$(VENV)/mypy tests/soak
	$(VENV)/mypy tests/mutants
	$(VENV)/stubtest tachyon --allowlist tests/stubtest_allowlist.txt --ignore-unused-allowlist

format:
	@$(SETUP) lint
	$(VENV)/clang-format -i $(CXX_SOURCES)
	$(VENV)/python scripts/stub_docs
	$(VENV)/ruff check --fix-only
	$(VENV)/ruff format

bench:
	@$(SETUP) core
	@$(SETUP) bench
	$(CMAKE) --preset release -DTACHYON_WERROR=$(TACHYON_WERROR)
	$(CMAKE) --build --preset release --target tachyon_bench -j $(JOBS)
	$(VENV)/python bench $(BENCH_ARGS)

soak:
	@$(SETUP) core
	@$(SETUP) test
	$(CMAKE) --preset release -DTACHYON_WERROR=$(TACHYON_WERROR)
	$(CMAKE) --build --preset release --target soak_victim -j $(JOBS)
	$(VENV)/python tests/soak $(SOAK_ARGS)

soak-short:
	@$(MAKE) soak SOAK_ARGS="$(SOAK_SHORT) $(SOAK_ARGS)"

# TSan maps its shadow at fixed places, which some kernels' address randomisation is too strong for; hence setarch.
sanitize:
	@$(SETUP) core
	for preset in asan-ubsan tsan; do \
	  $(CMAKE) --preset $$preset -DTACHYON_WERROR=$(TACHYON_WERROR) && $(CMAKE) --build --preset $$preset -j $(JOBS) && \
	  setarch "$$(uname -m)" -R env $(CTEST) --preset $$preset || exit 1; \
	done

sanitize-python:
	@$(SETUP) test
	scripts/sanitize_python $(PYTEST_ARGS)

wheels:
	@$(SETUP) wheels
	scripts/wheels

check-wheel:
	@$(SETUP) test
	scripts/check_wheel

check-macos:
	@$(SETUP) wheels
	scripts/check_macos

clean:
	rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache *.egg-info tachyon/_tachyon.cpp tachyon/_tachyon.html
	rm -rf tachyon/_bench.cpp tachyon/_*.so tachyon/include tachyon/lib
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
