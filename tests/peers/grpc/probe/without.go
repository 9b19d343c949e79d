package main

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

var deniable = map[string]uint32{"io_uring_setup": unix.SYS_IO_URING_SETUP}

// offsetNr is where struct seccomp_data holds the number of the system call.
const offsetNr = 0

// runWithout becomes another program, as a container's seccomp profile would let it run: the named
// system call fails with EPERM, for it and for all that it starts.
func runWithout(args []string) {
	if len(args) < 3 || args[1] != "--" {
		fail("usage: probe without SYSTEM_CALL -- PROGRAM ARG...")
	}
	number, known := deniable[args[0]]
	if !known {
		fail("without knows no system call " + args[0])
	}
	path, err := exec.LookPath(args[2])
	must(err)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offsetNr},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: number},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// Both are set for this thread, which is the one that becomes the program.
	runtime.LockOSThread()
	must(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	must(unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER,
		uintptr(unsafe.Pointer(&program)), 0, 0))
	must(syscall.Exec(path, args[2:], os.Environ()))
}
