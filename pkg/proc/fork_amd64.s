#include "textflag.h"

#define SYS_clone 56

// func rawClone(flags uintptr, pidfd *int32) (pid int)
//
// clone(flags, stack, parent_tid, child_tid, tls); the return address is at 0(SP).
TEXT ·rawClone(SB),NOSPLIT|NOFRAME,$0-24
	MOVQ	flags+0(FP), DI
	XORL	SI, SI
	MOVQ	pidfd+8(FP), DX
	XORL	R10, R10
	XORL	R8, R8
	MOVL	$SYS_clone, AX
	MOVQ	0(SP), R12	// the kernel keeps it; RCX and R11 it does not
	SYSCALL
	MOVQ	R12, 0(SP)	// the parent's was overwritten by the child's calls
	MOVQ	AX, pid+16(FP)
	RET
