# What there is to do here. Go and make are all that is needed; bin/ is all that is written.

GO      ?= go
CGO     := $(shell $(GO) env CGO_ENABLED)
CC_BIN  := $(shell command -v $$($(GO) env CC) 2>/dev/null)
# The race detector needs cgo and a C compiler.
RACE    := $(if $(and $(filter 1,$(CGO)),$(CC_BIN)),-race,)
LDFLAGS := -s -w
STATIC  := CGO_ENABLED=0 $(GO) build -trimpath -ldflags='$(LDFLAGS)'

GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := bin/golangci-lint-$(GOLANGCI_LINT_VERSION)

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

## test: everything that needs no container engine (with the race detector where cgo is there)
test:
	@[ "$$(id -u)" = 0 ] || echo "NOT TESTED without root: other users, full disks (grep -rn 'only root\|\[root\]\|\[mount\]' pkg test)"
	@command -v systemd-notify >/dev/null || echo "NOT TESTED without systemd-notify: pkg/notify TestSystemdNotify"
	@for init in tini dumb-init catatonit; do command -v $$init >/dev/null || echo "NOT COMPARED, not installed: $$init"; done
	$(GO) test $(RACE) -count=1 -timeout 25m ./... # not from the cache: it does not know the programs that the tests build

## vet: go vet for Linux on every architecture, and crankctl for macOS
vet:
	$(GO) vet ./...
	@for arch in amd64 arm64 arm ppc64le s390x riscv64; do \
		echo "GOARCH=$$arch go build ./cmd/..."; \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -o /dev/null ./cmd/crank && \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -o /dev/null ./cmd/crankctl || exit 1; \
	done
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 $(GO) vet ./cmd/crankctl

## lint: gofmt and golangci-lint
lint: $(GOLANGCI_LINT)
	@test -z "$$(gofmt -l cmd pkg test)" || { echo "not gofmt-ed:"; gofmt -l cmd pkg test; exit 1; }
	$(GOLANGCI_LINT) run ./...

$(GOLANGCI_LINT):
	@mkdir -p bin
	GOBIN=$(CURDIR)/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv bin/golangci-lint $@

## golden: write the generated documents again (docs/configuration.md, docs/metrics.md, docs/man)
golden:
	$(GO) test ./pkg/config ./pkg/metrics ./cmd/crankctl -update

## fuzz: each fuzz test for FUZZ executions (default 20000x)
FUZZ ?= 20000x
fuzz:
	@$(GO) list ./... | while read -r pkg; do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZ) $$pkg || exit 1; \
		done; \
	done

## clean: remove bin/
clean:
	rm -rf bin

.PHONY: help build demo test vet lint golden fuzz clean
