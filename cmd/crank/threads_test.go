package main

import (
	"math"
	"testing"
)

// TestPlanThreads: with few processes free it takes few, and with enough it takes all that it needs.
func TestPlanThreads(t *testing.T) {
	for _, c := range []struct {
		free, processors int
		want             threads
	}{
		{-3, 2, threads{1, 0}}, {0, 2, threads{1, 0}}, {3, 8, threads{1, 1}}, {14, 2, threads{1, 7}}, {19, 2, threads{1, 9}},
		{20, 2, threads{2, 10}}, {63, 8, threads{2, 10}}, {20, 1, threads{1, 9}}, {64, 8, threads{4, 12}}, {math.MaxInt, 2, threads{2, 10}},
	} {
		if got := planThreads(c.free, c.processors); got != c.want {
			t.Errorf("%d free, %d processors: %+v, want %+v", c.free, c.processors, got, c.want)
		}
	}
}
