package e2e

import (
	"time"

	"golang.org/x/sys/unix"
)

// Monotonic is a clock that all processes of this machine share and that nobody sets.
func Monotonic() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // only an unknown clock makes it fail
	}
	return time.Duration(t.Nano())
}
