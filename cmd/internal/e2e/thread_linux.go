package e2e

import "runtime"

// lockThread keeps the calling goroutine on its thread until it ends.
func lockThread() { runtime.LockOSThread() }
