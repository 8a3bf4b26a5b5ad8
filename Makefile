# The front door. On a fresh Debian 12 (root) `make demo` and `make test` do all set-up themselves.
BUILD := build-release
CI_BUILD := build-ci
ISOLINE := $(BUILD)/apps/isoline/isoline
CMAKE_FLAGS := -DCMAKE_CXX_COMPILER_LAUNCHER=ccache

.PHONY: help setup build demo serve-demo lab-demo lab-statistics test parity bench fuzz asan format format-check clean
help:
	@echo "make demo    phantom scan -> labels, Dice and a picture in out/demo"
	@echo "make serve-demo  the server with the bundled models: a photo, a scan and a benchmark, in out/serve-demo"
	@echo "make lab-demo  sweep of settings on eight phantoms -> verdicts and a report in out/lab-demo"
	@echo "make test    build with -Werror, check layers and format, run all tests"
	@echo "make parity  compare every stage with official nnU-Net (installs it into .venv-parity)"
	@echo "make bench   official nnU-Net beside Isoline on this machine, written to docs/measurements"
	@echo "make fuzz    libFuzzer targets, FUZZ_SECONDS each (default 600)"
	@echo "make asan    unit tests under AddressSanitizer and UBSan"

setup:
	@sh tools/setup.sh

build: setup
	@cmake --preset release $(CMAKE_FLAGS) >/dev/null
	@cmake --build --preset release

demo: build
	@python3 tools/demo.py --isoline $(ISOLINE) --out out/demo

serve-demo: build
	@rm -rf out/serve-demo
	@python3 tools/serve_demo.py --isoline $(ISOLINE) --out out/serve-demo

lab-demo: build
	@rm -rf out/lab-demo
	@python3 tools/lab_demo.py --isoline $(ISOLINE) --out out/lab-demo

# Simulated error rates of the lab's decisions, written to docs/measurements.
lab-statistics: build
	@python3 tools/lab_statistics.py $(BUILD)/src/isoline/stats/stats_simulation

test: setup
	@cmake --preset ci $(CMAKE_FLAGS) >/dev/null
	@cmake --build --preset ci
	@python3 tools/check_layers.py
	@$(MAKE) --no-print-directory format-check
	@ctest --test-dir $(CI_BUILD) --output-on-failure

format format-check: setup
	@git ls-files '*.h' '*.cpp' | xargs clang-format $(if $(filter format,$@),-i,--dry-run -Werror)

parity: build .venv-parity/stamp
	@test -f out/parity/.made || (.venv-parity/bin/python tools/parity/make_goldens.py --set full -o out/parity && touch out/parity/.made)
	@.venv-parity/bin/python tools/parity/run_parity.py --isoline $(ISOLINE) --backend openvino --backend native \
	  --report docs/measurements/$$(date +%F)-parity.md tests/goldens/parity out/parity

bench: build .venv-parity/stamp
	@.venv-parity/bin/python bench/bench_engine.py --isoline $(ISOLINE)

# Official nnU-Net for comparisons; never needed to build, run or test Isoline.
.venv-parity/stamp: tools/parity/requirements.txt | setup
	@python3 -m venv .venv-parity
	@.venv-parity/bin/python -m pip install --quiet -r tools/parity/requirements.txt
	@touch $@

FUZZ_SECONDS ?= 600
fuzz: setup
	@sh tools/fuzz.sh $(FUZZ_SECONDS)

# Not with sanitizers: find_package and deploy look at what others need to link; lab_demo takes more than half an hour, and
# server_segmentations has bounds of time and memory that do not hold there.
asan: setup
	@cmake --preset asan $(CMAKE_FLAGS) >/dev/null
	@cmake --build --preset asan
	@ISOLINE_SANITIZED=1 ctest --test-dir build-asan --output-on-failure -E '^(deploy|find_package|lab_demo|server_segmentations)$$'

clean:
	rm -rf build-* out
