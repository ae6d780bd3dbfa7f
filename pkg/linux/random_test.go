package linux

import (
	"regexp"
	"testing"
)

func TestRandomName(t *testing.T) {
	form := regexp.MustCompile("^[A-Z2-7]{26}$")
	seen := map[string]bool{}
	for range 1000 {
		name := RandomName()
		if !form.MatchString(name) || seen[name] {
			t.Fatalf("%q, after %d others", name, len(seen))
		}
		seen[name] = true
	}
}
