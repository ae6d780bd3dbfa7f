package control

import (
	"fmt"
	"strconv"
	"time"
)

// ParseDuration reads a time limit: a number of seconds ("10", "0.5") or a Go duration ("1m30s").
// It must be more than 0.
func ParseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if seconds, numErr := strconv.ParseFloat(text, 64); numErr == nil {
		d, err = time.Duration(seconds*float64(time.Second)), nil
		if !(seconds < float64(1<<63-1)/float64(time.Second)) {
			err = strconv.ErrRange
		}
	}
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration: give seconds (10) or a Go duration (1m30s)", text)
	}
	if d <= 0 {
		return 0, fmt.Errorf("%q: a duration must be more than 0", text)
	}
	return d, nil
}
