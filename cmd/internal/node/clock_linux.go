package node

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"hacluster/heartbeat/cluster"
)

// bootTime reads CLOCK_BOOTTIME: it counts suspend, and no person or time service sets it. The call never blocks, and the
// runtime need not know of it: its watching thread would wake up for it.
func bootTime() cluster.Instant {
	var ts unix.Timespec
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		panic("node: CLOCK_BOOTTIME cannot be read: " + errno.Error()) // since Linux 2.6.39 it always can
	}
	return cluster.Instant(ts.Nano())
}

// wallClock is the time of day, for what people read: events, records, messages. It may stand still, step or run
// backwards; nothing is decided by it but when a verify begins that a schedule asks for, and which rate a calendar allows. Tests make it do so.
var wallClock = time.Now

// bootIDFile is read at each start, and nothing else tells the boot id (R25).
const bootIDFile = "/proc/sys/kernel/random/boot_id"

func readBootID() (id [16]byte, err error) {
	b, err := os.ReadFile(bootIDFile)
	if err != nil {
		return id, fmt.Errorf("read the boot id: %w", err)
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(b)), "-", ""))
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("%s holds %q, a UUID is expected", bootIDFile, b)
	}
	copy(id[:], raw)
	return id, nil
}
