package attach

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"hacluster/blockdev/frontend/fuse"
)

// PR_SET_IO_FLUSHER and MCL_ONFAULT, which package unix has under other names on some systems.
const (
	prSetIOFlusher = 57
	mclOnFault     = 4
)

// ProtectMemory keeps a process that a local device needs from waiting for that device: memory that it asks for is never made by
// writing to a device of this kind (PR_SET_IO_FLUSHER), and what it has touched is never swapped out. What is refused is logged: the
// device works all the same, until memory runs out.
func ProtectMemory(log *slog.Logger) {
	if err := ioFlusher(); err != nil {
		log.Warn("memory pressure may stop the device", "error", err)
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | mclOnFault); err != nil {
		log.Warn("memory pressure may stop the device: its memory can be swapped out", "error", fmt.Errorf("mlockall: %w: CAP_IPC_LOCK and LimitMEMLOCK=infinity are wanted", err))
	}
}

// ioFlusher sets the property of every thread; those that they make inherit it.
func ioFlusher() (err error) {
	defer func() {
		if p := recover(); p != nil { // the runtime's word that threads differ
			err = fmt.Errorf("PR_SET_IO_FLUSHER: %v", p)
		}
	}()
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, prSetIOFlusher, 1, 0)
	if errno == 0 {
		return nil
	}
	if errors.Is(errno, syscall.ENOTSUP) {
		return errors.New("PR_SET_IO_FLUSHER: not possible in a program built with cgo")
	}
	return fmt.Errorf("PR_SET_IO_FLUSHER: %w: CAP_SYS_RESOURCE and Linux 5.6 or newer are wanted", errno)
}

// preallocate touches what requests in flight may take, so that it is there when memory is short, and bounds what the collector lets
// the process grow to beside it.
func preallocate() {
	const bytes = 2 * fuse.MaxInFlight // from the kernel, and to it
	p := make([]byte, bytes)
	for i := 0; i < len(p); i += 4096 {
		p[i] = 1
	}
	debug.SetMemoryLimit(2 * bytes)
}
