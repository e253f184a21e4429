package config

import (
	"fmt"
	"os"
	"syscall"
)

// deviceIdentity is equal for two paths that lead to one device or file on this machine: through symbolic links, hard
// links, or two device nodes of one disk. Nothing is opened.
func deviceIdentity(path string) string {
	path = resolve(path)
	info, err := os.Stat(path)
	if err != nil {
		return path
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return path
	case info.Mode()&os.ModeDevice != 0:
		return fmt.Sprintf("device %v %d", info.Mode()&os.ModeCharDevice != 0, st.Rdev)
	}
	return fmt.Sprintf("file %d %d", st.Dev, st.Ino)
}
