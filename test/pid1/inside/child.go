//go:build amd64 || arm64

package main

// child is vfork and exit, the cheapest process there is. It returns a pid or -errno. It is assembly for the child not to come back
// into Go, on a stack that is its parent's.
//
//go:noescape
func child() int
