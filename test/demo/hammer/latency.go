package hammer

import (
	"math/bits"
	"time"
)

// latencies counts durations in buckets that are an eighth wide: small, however long a load lasts.
type latencies [64 * 8]int

func (l *latencies) add(d time.Duration) { l[bucket(d)]++ }

// bucket joins the place of the highest bit of d with the three bits below it.
func bucket(d time.Duration) int {
	n := uint64(max(d, 8))
	high := bits.Len64(n) - 1
	return high*8 + int(n>>(high-3)&7)
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
			return time.Duration((9 + i&7) << (i >> 3) >> 3)
		}
	}
	return 0
}
