package main

import (
	"fmt"
	"math"
	"slices"
)

// sample is a number of measurements of one thing, in one unit.
type sample []float64

// quantile returns the smallest measurement that at least the share q of all does not exceed.
func (s sample) quantile(q float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

func (s sample) median() float64 { return s.quantile(0.5) }

// quartiles is "2.31 ms (2.20 to 2.45)": the median and the middle half of all.
func (s sample) quartiles(u unit) string { return s.spread(u, s.quantile(0.25), s.quantile(0.75)) }

// extremes is quartiles with the smallest and the largest in their place, for few measurements.
func (s sample) extremes(u unit) string { return s.spread(u, s.quantile(0), s.quantile(1)) }

func (s sample) spread(u unit, low, high float64) string {
	return fmt.Sprintf("%s (%s to %s)", u.text(s.median()), u.number(low), u.number(high))
}

// unit is how measurements are shown.
type unit struct {
	name string
	size float64 // of one, in what is measured
}

var (
	milliseconds = unit{"ms", 1e6}
	microseconds = unit{"µs", 1e3}
	mebibytes    = unit{"MiB", 1 << 20}
	thousands    = unit{"thousand/s", 1e3}
)

func (u unit) text(v float64) string { return u.number(v) + " " + u.name }

// number has three digits that mean something.
func (u unit) number(v float64) string { return digits(v / u.size) }

func digits(v float64) string {
	switch size := math.Abs(v); {
	case size >= 100:
		return fmt.Sprintf("%.0f", v)
	case size >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
