package history

import (
	"time"

	"golang.org/x/sys/unix"
)

func boottime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // only an unknown clock makes it fail
	}
	return time.Duration(t.Nano())
}
