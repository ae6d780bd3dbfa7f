//go:build amd64 || arm64

package proc

import "syscall"

// cloneMemory makes clone(2) a vfork(2): the child has the parent's memory, which waits meanwhile.
const cloneMemory = syscall.CLONE_VM | syscall.CLONE_VFORK

// rawClone is clone(2) with the caller's own stack. It returns twice, with 0 in the child and with the pid, or
// -errno, in the parent.
//
// It is assembly of this package for two reasons. The child returns first and makes other calls, whose return addresses come to
// lie where rawClone's own was: so that has to be in a register meanwhile, of which each process has
// its own. And no function may lie between clone and this one, since its return address would be lost likewise. The compiler
// calls assembly directly in its own package, but by linkname, say syscall.rawVforkSyscall, through a wrapper.
func rawClone(flags uintptr, pidfd *int32) (pid int)
