module github.com/crankctl/crank/test/seccomp

go 1.26.0

require (
	github.com/crankctl/crank v0.0.0-00010101000000-000000000000
	github.com/moby/profiles/seccomp v0.3.0
	github.com/opencontainers/runtime-spec v1.2.1
	golang.org/x/sys v0.49.0
)

replace github.com/crankctl/crank => ../..
