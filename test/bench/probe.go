package main

import (
	"context"
	"syscall"
)

// probe measures an exec probe, beside a program in Go that only says something. The crank is the only one in the
// runtime directory, as in a container, and crankctl has to find it.
func probe(ctx context.Context, b *bench) error {
	i, err := b.startCrank(ctx, options{}, nil, "sleep", "infinity")
	if err != nil {
		return err
	}
	defer i.stop(syscall.SIGTERM)
	ready := &contestant{name: "crankctl ready", argv: []string{b.program("crankctl"), "-prefix", i.prefix, "ready"}}
	hello := &contestant{name: "a Go hello world", argv: []string{b.program("hello")}}
	if err := b.inTurns(ctx, b.number(500, 40), ready, hello); err != nil {
		return err
	}
	b.reach("probe", compare(ready, hello))
	return nil
}
