# Every target is explained by `make help`. What a target needs beyond make is installed by scripts/setup.sh, which says
# so first.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help build demo test test-host kernel-test cluster-test bench lint cover fuzz-short clean

# Set-up puts a Go here when the machine's is too old.
export PATH := $(CURDIR)/.cache/bin:$(PATH)
export GOTOOLCHAIN := auto

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
STATIC  := CGO_ENABLED=0 go build -buildvcs=false -ldflags '$(LDFLAGS)'
FUZZTIME ?= 20s

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

build: ## bin/rds-csi and bin/rds-sim, static
	@scripts/setup.sh build
	$(STATIC) -o bin/ ./cmd/rds-csi ./cmd/rds-sim

demo: ## the driver's main job on real parts in a QEMU guest, narrated; under two minutes
	@scripts/setup.sh demo
	@echo "demo: building the driver, the simulator and the demo"
	@$(STATIC) -o bin/ ./cmd/rds-csi ./cmd/rds-sim ./test/demo ./test/guest
	@rm -rf .cache/demo
	@bin/guest run --quiet --timeout 25m --out .cache/demo --file bin/rds-csi:/usr/bin/rds-csi --file bin/rds-sim:/usr/bin/rds-sim \
		--file bin/demo:/usr/bin/demo --file "$$(ls .cache/prometheus/usr/bin/prometheus 2>/dev/null || command -v prometheus):/usr/bin/prometheus" -- demo --logs /out; status=$$?; \
		if [ $$status -ne 0 ]; then echo "logs of all processes: $(CURDIR)/.cache/demo"; fi; exit $$status

test: ## everything: tiers 1 to 3 with counts; race detector on the host, not in the guest
	@scripts/setup.sh test
	@$(STATIC) -o bin/ ./cmd/rds-csi ./cmd/rds-sim
	@$(MAKE) --no-print-directory bin/helm
	@go run ./test/tally

test-host: ## tiers 1 and 2 only: no QEMU
	@go run ./test/tally --tier 1,2

kernel-test: ## tier 3 only: the tests in the QEMU guest; ARGS='--run TestX' picks some
	@scripts/setup.sh demo
	@$(STATIC) -o bin/ ./cmd/rds-csi
	@go run ./test/tally --tier 3 $(ARGS)

# The control plane is built from its Go modules and kept in the user's cache.
cluster-test: bin/helm ## tier 4 only: a real Kubernetes control plane on this host (first time: ten minutes to build it)
	@scripts/setup.sh cluster
	@go run ./test/cluster
	@go run ./test/tally --tier 4 $(ARGS)

bench: build ## the control plane at 0, 1 and 50 ms to the RDS, as a table and as .cache/bench.json
	@mkdir -p .cache
	@$(STATIC) -o bin/ ./test/bench
	@bin/bench --json .cache/bench.json

lint: bin/golangci-lint ## golangci-lint with the house rules
	bin/golangci-lint run --allow-parallel-runners ./...

# Built from its own module (tools/go.mod), so that its hundreds of dependencies stay out of the driver's go.mod.
# It reads no code that is newer than the Go it was built with.
bin/golangci-lint: tools/go.mod tools/go.sum go.mod
	@scripts/setup.sh lint
	cd tools && go build -buildvcs=false -o ../bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint

# The real helm, from a module of its own too: the tests render the chart with it.
bin/helm: tools/helm/go.mod tools/helm/go.sum
	@scripts/setup.sh build
	@echo "helm: building it from its module, once; one or two minutes"
	@mkdir -p bin
	@cd tools/helm && CGO_ENABLED=0 go build -buildvcs=false -ldflags '-s -w' -o ../../bin/helm.$$$$ helm.sh/helm/v4/cmd/helm && mv ../../bin/helm.$$$$ ../../bin/helm

cover: ## statement coverage of the host tests, by package; the profile is .cache/cover.out
	@mkdir -p .cache
	go test -coverprofile=.cache/cover.out ./...
	@go tool cover -func=.cache/cover.out | tail -n 1

fuzz-short: ## every fuzz test for FUZZTIME (20s) each
	@set -e; for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package; \
		done; done

clean: ## what the other targets made here (the kernels in the user's cache stay)
	rm -rf bin .cache
