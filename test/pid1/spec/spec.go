// Package spec is what a test tells the process that prepares a container.
package spec

import "syscall"

// Spec is what the init under test is to find. The zero value: a /proc of its own, and all else as
// the test program has it.
type Spec struct {
	Argv        []string // the init under test, with its arguments; a path
	Env         []string // all of it
	Dir         string   // the working directory
	NoProc      bool     // /proc is empty
	ReadOnly    bool     // every file system
	Terminal    bool     // stdin becomes the controlling terminal of a new session
	Limits      map[int][2]uint64
	Umask, Nice int
	Ignore      []syscall.Signal
	Block       []syscall.Signal
	Close       []int // descriptors
	Leak        int   // so many are open besides
	CloseOnExec []int
}
