# Every target sets itself up: `make demo` or `make test` may be the first command after cloning.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

NATIVE_SOURCES := $(shell find csrc -type f \( -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \) 2>/dev/null)

EMULATION_SOURCES := $(wildcard tests/cuda_on_host/*.h tests/cuda_on_host/*.cpp tests/emulated_tiles/cpu/gram/*.h tests/other_compilers/*.cpp \
	tests/cpu_sanitizers/*.h tests/cpu_sanitizers/*.cpp tests/ptx/cuda/* tests/ptx/samples/* tests/*.h)

# Shared tests that take a backend, on the CUDA kernels' host build.
CUDA_ON_HOST := ITRD_CUDA_ON_HOST=1 $(PYTEST) -n 2 --backend cuda -k cuda \
	tests/test_correlation.py tests/test_gram.py tests/test_loss.py tests/test_modes.py tests/test_precision_setting.py \
	tests/test_schedules.py tests/test_terms.py tests/properties

# The oldest torch and Triton that pyproject.toml promises, in an environment of their own.
OLDEST := .venv-oldest
OLDEST_TESTS := $(filter-out tests/test_benchmarks.py tests/test_demo.py tests/test_gpu.py,$(wildcard tests/test_*.py)) tests/triton

# What asks about vulnerabilities, whose own packages are none of the project's.
AUDIT := .venv-audit

# What `make fuzz` draws from; the same number draws the same cases.
SEED ?= $(shell $(PYTHON) -c 'import secrets; print(secrets.randbelow(10**9))')

.PHONY: setup demo test test-full ptx fuzz oldest cuda-on-host emulated-tiles sanitize bench bench-gpu lint format install-check audit clean

setup: $(VENV)/.ready

$(VENV)/.dependencies: constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "development needs Python >= 3.11; set PYTHON="'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned environment into $(VENV) (minutes the first time)"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch torchvision setuptools wheel ninja
	touch $@

$(VENV)/.ready: $(VENV)/.dependencies setup.py pyproject.toml $(NATIVE_SOURCES)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt -e '.[dev,distill]'
	@$(BIN)/python -m itrd_kernels
	touch $@

demo: setup
	$(BIN)/itrd-distill demo

test: setup cuda-on-host emulated-tiles
	$(PYTEST) -n 2 -m 'not slow and not gpu'
	$(CUDA_ON_HOST) -m 'not slow and not gpu'

test-full: setup cuda-on-host emulated-tiles
	$(PYTEST) -n 2 -m 'not gpu'
	$(CUDA_ON_HOST) -m 'not gpu'

# The GPU kernels' sm_80 PTX on the CPU, all of it; `make test` runs a small part.
ptx: setup
	$(PYTEST) -n 2 tests/ptx

# Ten thousand generated cases on all backends; a failure is shrunk, and printed as a line for tests/properties/delicate.py.
fuzz: setup cuda-on-host
	TRITON_INTERPRET=1 ITRD_CUDA_ON_HOST=1 OMP_NUM_THREADS=1 $(PYTEST) -n 2 -W ignore::RuntimeWarning \
		--hypothesis-profile=fuzz --hypothesis-seed=$(SEED) tests/properties

$(OLDEST)/.dependencies: constraints-oldest.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "development needs Python >= 3.11; set PYTHON="'
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@echo "Installing the oldest supported torch and Triton into $(OLDEST) (minutes the first time)"
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check -c constraints-oldest.txt \
		torch numpy setuptools wheel ninja pytest pytest-xdist
	touch $@

# As a user installs it, but with a build folder of its own: the other one holds what the newest torch has compiled.
$(OLDEST)/.ready: $(OLDEST)/.dependencies setup.py pyproject.toml $(NATIVE_SOURCES) $(shell find itrd_kernels -name '*.py')
	ITRD_REQUIRE_NATIVE=1 TORCH_CUDA_ARCH_LIST="$${TORCH_CUDA_ARCH_LIST:-8.0}" $(OLDEST)/bin/pip install --quiet \
		--disable-pip-version-check --no-build-isolation --no-deps --force-reinstall \
		--config-settings=--build-option="build --build-base=$(OLDEST)/build" .
	touch $@

# PYTHONSAFEPATH: the package is the one that is installed there, and not the checkout's. What takes long and depends
# little on torch and Triton is left to `make test`.
oldest: $(OLDEST)/.ready
	PYTHONSAFEPATH=1 $(OLDEST)/bin/python -m itrd_kernels
	PYTHONSAFEPATH=1 $(OLDEST)/bin/python -m pytest -n 2 -m 'not slow and not gpu' \
		-k 'not (hard_inputs or planted_bugs or leave_the_caches or reference-inductor or avx or amx or portable or test_launches or sm_90 or gfx942)' $(OLDEST_TESTS)

# Evidence from the GPU that is here: with the environment's Python, or the system's where there is none; nothing is
# installed.
bench-gpu:
	$(if $(wildcard $(VENV)/.ready),$(BIN)/python,$(PYTHON)) benchmarks/gpu_day.py --out runs/gpu_day

# The CUDA kernels as host C++, for ITRD_CUDA_ON_HOST=1.
cuda-on-host: setup
	$(BIN)/python tests/cuda_on_host/compile_on_host.py

# The CPU kernels with AMX's tiles emulated, for ITRD_EMULATED_TILES=1.
emulated-tiles: setup
	$(BIN)/python tests/emulated_tiles/compile_emulated.py

# The CUDA and the CPU kernels under AddressSanitizer, UBSan and ThreadSanitizer, and planted bugs.
sanitize: setup
	$(PYTEST) -n 2 tests/cuda_on_host/test_sanitizers.py tests/cpu_sanitizers

bench: setup $(VENV)/.keops
	$(PYTEST) benchmarks/ --benchmark-only

$(VENV)/.keops: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt pykeops \
		|| echo "pykeops cannot be installed: its comparison is left out"
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(NATIVE_SOURCES) $(EMULATION_SOURCES) $(wildcard benchmarks/*.cpp)

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE_SOURCES) $(EMULATION_SOURCES) $(wildcard benchmarks/*.cpp)

install-check: setup
	$(BIN)/python tests/install_check.py

$(AUDIT)/.ready: constraints-audit.txt
	test -x $(AUDIT)/bin/python || $(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install --quiet --disable-pip-version-check -c constraints-audit.txt pip-audit \
		&& touch $@ || echo "pip-audit cannot be installed"

# Exit status 1 where a vulnerability of a pinned version is known; a line says where no database can be reached.
audit: $(AUDIT)/.ready
	$(AUDIT)/bin/python tests/audit.py

clean:
	rm -rf build dist runs *.egg-info itrd_kernels/*.so $(OLDEST)/build $(VENV)/.ready $(OLDEST)/.ready .benchmarks .hypothesis .pytest_cache .ruff_cache .mypy_cache
