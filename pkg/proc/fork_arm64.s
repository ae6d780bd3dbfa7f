#include "textflag.h"

#define SYS_clone 220

// func rawClone(flags uintptr, pidfd *int32) (pid int)
//
// clone(flags, stack, parent_tid, tls, child_tid); the return address is in R30, and stays there: without a frame it is
// not stored.
TEXT ·rawClone(SB),NOSPLIT|NOFRAME,$0-24
	MOVD	flags+0(FP), R0
	MOVD	ZR, R1
	MOVD	pidfd+8(FP), R2
	MOVD	ZR, R3
	MOVD	ZR, R4
	MOVD	$SYS_clone, R8
	SVC
	MOVD	R0, pid+16(FP)
	RET
