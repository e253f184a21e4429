//go:build !race

package identity

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func rawTransfer(call, fd uintptr, p []byte) (n, _ uintptr, errno syscall.Errno) {
	return unix.RawSyscall(call, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
}
