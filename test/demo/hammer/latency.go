package hammer

import (
	"math/bits"
	"time"
)

// latencies counts durations in buckets that are a 64th wide: small, however long a load lasts.
type latencies [64 * 64]int

func (l *latencies) add(d time.Duration) { l[bucket(d)]++ }

// bucket joins the place of the highest bit of d with the six bits below it.
func bucket(d time.Duration) int {
	n := uint64(max(d, 64))
	high := bits.Len64(n) - 1
	return high*64 + int(n>>(high-6)&63)
}

// quantile returns the upper bound of the bucket that holds the q-quantile, 0 where nothing was added.
func (l *latencies) quantile(q float64) time.Duration {
	total := 0
	for _, n := range l {
		total += n
	}
	left := int(q * float64(total))
	for i, n := range l {
		if left -= n; left < 0 {
			return time.Duration((65 + i&63) << (i >> 6) >> 6)
		}
	}
	return 0
}
