# Every target is explained by `make help`. Set-up is part of the targets that need more than Go: see scripts/setup.sh.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help kernel-test

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 18

kernel-test: ## only the tests in the QEMU guest
	CGO_ENABLED=0 go test -c -tags kernel -o bin/kernel.test ./test/kernel
	go run ./test/guest run --file bin/kernel.test:/usr/bin/kernel.test -- kernel.test -test.v -test.timeout 8m $(ARGS)
