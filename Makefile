# What there is to do here. Go and make are all that is needed, but for the e2e targets; bin/ is all that is written.

GO      ?= go
CGO     := $(shell $(GO) env CGO_ENABLED)
CC_BIN  := $(shell command -v $$($(GO) env CC) 2>/dev/null)
# The race detector needs cgo and a C compiler.
RACE    := $(if $(and $(filter 1,$(CGO)),$(CC_BIN)),-race,)
LDFLAGS := -s -w
STATIC  := CGO_ENABLED=0 $(GO) build -trimpath -ldflags='$(LDFLAGS)'

GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := bin/golangci-lint-$(GOLANGCI_LINT_VERSION)

# Modules of their own, so that crank's has few dependencies.
MODULES := test/clients test/manifests test/seccomp

.DEFAULT_GOAL := help

## help: show this
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST) | awk -F': ' '{printf "make %-10s %s\n", $$1, $$2}'

## build: crank, crankctl and crankx into bin/, static
build:
	@mkdir -p bin
	$(STATIC) -o bin/ ./cmd/crank ./cmd/crankctl
	@ln -sf crankctl bin/crankx

## demo: swap an app 20 times under load on loopback, and print what the clients saw
demo: build
	@$(STATIC) -o bin/ ./test/app
	@$(GO) run ./test/demo -bin bin

## test: everything that needs no container engine (with the race detector where cgo is available), or only PACKAGES and MODULES
# -count=1: the test cache does not know the programs that the tests build.
PACKAGES ?= ./...
test:
	@mkdir -p bin
	@echo "$(GO) build ./test/runner"; $(GO) build -o bin/runner ./test/runner
	@bin/runner -log bin/test.log -modules "$(MODULES)" -first "$(RACE) -timeout 50m" -- -count=1 $(PACKAGES)

## servers: swap every real server that is installed under load, not only those that test has
servers:
	$(GO) test -count=1 -timeout 30m -v ./test/servers -all

## apps: swap the apps of docs/apps.md 20 times each, beside the usual ways
apps:
	$(GO) test -count=1 -timeout 30m -v ./test/apps -all

## load: the proof that nothing is lost, ten times as long as in test: every kind of client, 3,000 swaps (LOAD_FLAGS=-update)
LOAD_FLAGS ?=
load:
	$(GO) test -count=1 -timeout 60m -v -run TestEverything ./test/load -long $(LOAD_FLAGS)

## soak: 10,000 swaps and 1,000,000 notifications: descriptors, goroutines, threads, memory stay (SOAK_FLAGS=-update)
SOAK_FLAGS ?=
soak:
	$(GO) test -count=1 -timeout 60m -v -run TestFlat ./test/load -soak $(SOAK_FLAGS)

## faults: every fault in every moment of crank's life; root makes more of them (FAULTS_FLAGS=-update)
FAULTS_FLAGS ?=
faults:
	@mkdir -p bin
	$(GO) test -c -o bin/faults ./test/faults
	cd test/faults && ../../bin/faults -test.timeout 40m -all $(FAULTS_FLAGS)

## chaos: random events under load for CHAOS (2m); SEED=N replays the events of a seed (CHAOS_FLAGS=-update)
CHAOS ?= 2m
SEED  ?=
CHAOS_FLAGS ?=
chaos:
	$(GO) test -count=1 -timeout 0 -v ./test/chaos -chaos $(CHAOS) $(if $(SEED),-seed $(SEED)) $(CHAOS_FLAGS)

## bench: crank beside its peers, as ratios from one run, in ten minutes (BENCH_FLAGS=-quick, -only start,swap, -markdown FILE)
# The peers, from Debian: tini dumb-init catatonit s6 runit supervisor libserver-starter-perl starlet gunicorn nginx-light haproxy systemd
BENCH_FLAGS ?=
bench:
	@$(GO) run ./test/bench $(BENCH_FLAGS)

## e2e: the image in a Docker engine (needs a docker client and an engine that answers)
e2e:
	$(GO) test -tags e2e -count=1 -timeout 30m -v ./test/e2e/docker

## e2e-k8s: the chart on the cluster of KUBECONFIG (needs kubectl, helm, docker; see test/e2e/kubernetes)
# IN_CLUSTER runs a command where the cluster's addresses can be reached; LOAD_IMAGE takes the names of images
# and brings them from the Docker engine to the cluster's nodes.
IN_CLUSTER ?=
LOAD_IMAGE ?=
e2e-k8s:
	@mkdir -p bin
	$(GO) test -tags e2e -c -o bin/e2e-kubernetes ./test/e2e/kubernetes
	CRANK_E2E_LOAD_IMAGE="$(LOAD_IMAGE)" $(IN_CLUSTER) bin/e2e-kubernetes -test.v -test.timeout 40m

VERSION  := $(shell git describe --tags --always 2>/dev/null || echo devel)
REVISION := $(shell git rev-parse HEAD 2>/dev/null)
IMAGE    ?= crank
BUILD_FLAGS ?=

## image: crank's own image, as IMAGE
image:
	docker build $(BUILD_FLAGS) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) \
		--build-arg CREATED=$$(date -u +%Y-%m-%dT%H:%M:%SZ) -t $(IMAGE) .

## vet: go vet for Linux on every architecture, and crankctl for macOS
vet:
	$(GO) vet ./...
	$(GO) vet -tags e2e ./test/e2e/...
	@for module in $(MODULES); do (cd $$module && echo "$$module: $(GO) vet ./..." && $(GO) vet ./...) || exit 1; done
	@for arch in amd64 arm64 arm ppc64le s390x riscv64; do \
		echo "GOARCH=$$arch go build ./cmd/..."; \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -o /dev/null ./cmd/crank && \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -o /dev/null ./cmd/crankctl || exit 1; \
	done
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 $(GO) vet ./cmd/crankctl

## lint: gofmt and golangci-lint
lint: $(GOLANGCI_LINT)
	@test -z "$$(gofmt -l cmd pkg test)" || { echo "not gofmt-ed:"; gofmt -l cmd pkg test; exit 1; }
	$(GOLANGCI_LINT) run --build-tags e2e ./...
	@for module in $(MODULES); do \
		(cd $$module && echo "$$module: lint" && $(CURDIR)/$(GOLANGCI_LINT) run --config $(CURDIR)/.golangci.yml ./...) || exit 1; \
	done

$(GOLANGCI_LINT):
	@mkdir -p bin
	GOBIN=$(CURDIR)/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv bin/golangci-lint $@

## golden: write the generated documents again (docs/configuration.md, docs/metrics.md, docs/sockets.md, docs/man)
golden:
	$(GO) test ./pkg/config ./pkg/metrics ./pkg/sockets ./cmd/crankctl -update

## fuzz: each fuzz test for FUZZ executions (default 20000x)
FUZZ ?= 20000x
fuzz:
	@$(GO) list ./... | while read -r pkg; do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZ) -fuzzminimizetime 1000x $$pkg || exit 1; \
		done; \
	done

## clean: remove bin/
clean:
	rm -rf bin

.PHONY: help build demo test servers apps load soak faults chaos bench e2e e2e-k8s image vet lint golden fuzz clean
