package filedev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxNamed is how many processes a message names.
const maxNamed = 4

// errFound ends a walk through the lines of a file.
var errFound = errors.New("found")

// What /proc/locks calls the kinds of lock that exclude each other.
var (
	flocks     = []string{"FLOCK"}
	rangeLocks = []string{"POSIX", "OFDLCK"}
)

// lockHolder names who has a lock of one of the kinds on the file, as far as the kernel tells: of open-file-description
// locks it does not. Kinds that the caller has itself by now must not be asked for.
//
// A line of /proc/locks: "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF", numbers of the device in hexadecimal.
// Who only waits for a lock has "->" in the place of its kind.
func (s system) lockHolder(t *target, kinds []string) string {
	who := "somebody whom the kernel does not name"
	err := s.lines("locks", func(f []string) error {
		if len(f) < 8 || !slices.Contains(kinds, f[1]) {
			return nil
		}
		device, inode, _ := cutLast(f[5], ":")
		number, ok := parseNumber(device, 16)
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 && ok && number == t.st.Dev && inode == strconv.FormatUint(t.st.Ino, 10) {
			who = s.processName(pid)
			return errFound
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFound) {
		return fmt.Sprintf("somebody (%v)", err)
	}
	return who
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func (s system) processName(pid int) string {
	name := "unknown"
	if text, err := os.ReadFile(filepath.Join(s.proc, strconv.Itoa(pid), "comm")); err == nil {
		name = strings.TrimSpace(string(text))
	}
	if pid == os.Getpid() {
		return fmt.Sprintf("this process itself (%d, %s)", pid, name)
	}
	return fmt.Sprintf("process %d (%s)", pid, name)
}

// openers names the processes that have the block device open: for O_EXCL the kernel keeps no list. Empty when none is
// to be seen; the user is then the kernel or in another container.
func (s system) openers(t target) string {
	var names []string
	fds, _ := filepath.Glob(filepath.Join(s.proc, "[0-9]*/fd")) // the pattern is well-formed
	for _, dir := range fds {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		if err == nil && hasOpen(dir, t) {
			names = append(names, s.processName(pid))
		}
		if len(names) == maxNamed {
			break
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "; it is open in " + strings.Join(names, ", ")
}

// hasOpen looks through the descriptors of a process. Only those below /dev are looked at closely: others may hang.
func hasOpen(dir string, t target) bool {
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false // gone, or not ours to see
	}
	for _, fd := range fds {
		link := filepath.Join(dir, fd.Name())
		if to, err := os.Readlink(link); err != nil || !strings.HasPrefix(to, "/dev/") {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(link, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == t.st.Rdev {
			return true
		}
	}
	return false
}
