//go:build e2e

package images

import "testing"

func TestBuild(t *testing.T) {
	if err := Build(All...); err != nil {
		t.Fatal(err)
	}
}
