package loop

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// User is who uses a device.
type User struct {
	PID     int    // of the process; with a mount: one that sees it where we do not; 0: none
	Command string // of the process
	Mount   string // where it is mounted; with a process that has something of it open, if Inside
	Inside  bool
	Holder  string // a device that is made of it, or "swap"
}

func (u User) String() string {
	switch {
	case u.Holder != "":
		return "used by the kernel for " + u.Holder
	case u.Inside:
		return fmt.Sprintf("pid %d (%s) is in %s", u.PID, u.Command, u.Mount)
	case u.Mount != "" && u.PID != 0:
		return fmt.Sprintf("mounted at %s in the mount namespace of pid %d (%s)", u.Mount, u.PID, u.Command)
	case u.Mount != "":
		return "mounted at " + u.Mount
	}
	return fmt.Sprintf("open in pid %d (%s)", u.PID, u.Command)
}

// maxUsers bounds what is listed: it is for people.
const maxUsers = 8

// Users tells who uses the device beside this process: mounts in every mount namespace, open files, devices made of it. It reads
// /proc, which waits for nobody's I/O. Nobody found does not mean that there is nobody: Detach tells for sure.
func (d Device) Users() (all []User) {
	holders, _ := filepath.Glob(fmt.Sprintf("/sys/block/loop%d/holders/*", d.Number))
	for _, h := range holders {
		all = append(all, User{Holder: filepath.Base(h)})
	}
	if b, err := os.ReadFile("/proc/swaps"); err == nil && strings.Contains(string(b), d.Path+" ") {
		all = append(all, User{Holder: "swap"})
	}
	ours, _ := os.Readlink("/proc/self/ns/mnt")
	mounts := d.mounts("/proc/self/mountinfo")
	for _, at := range mounts {
		all = append(all, User{Mount: at})
	}
	seen := map[string]bool{ours: true} // mount namespaces
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if len(all) >= maxUsers {
			return all
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		ns, err := os.Readlink(dir + "/ns/mnt")
		if err != nil || pid == os.Getpid() {
			continue
		}
		if !seen[ns] {
			seen[ns] = true
			for _, at := range d.mounts(dir + "/mountinfo") {
				all = append(all, User{PID: pid, Command: command(dir), Mount: at})
			}
		}
		open, at := d.openIn(dir, mounts)
		if open {
			all = append(all, User{PID: pid, Command: command(dir)})
		} else if at != "" {
			all = append(all, User{PID: pid, Command: command(dir), Mount: at, Inside: true})
		}
	}
	return all
}

func command(dir string) string {
	b, _ := os.ReadFile(dir + "/comm")
	return strings.TrimSpace(string(b))
}

// mounts lists where a namespace has the device, by its number or by its name: some file systems have a number of their own.
func (d Device) mounts(mountinfo string) (at []string) {
	f, err := os.Open(mountinfo)
	if err != nil {
		return nil
	}
	defer f.Close()
	number := fmt.Sprintf("%d:%d", major, d.Number)
	for in := bufio.NewScanner(f); in.Scan(); {
		words := strings.Fields(in.Text())
		source := ""
		for i, w := range words {
			if w == "-" && i+2 < len(words) {
				source = words[i+2]
			}
		}
		if len(words) > 4 && (words[2] == number || source == d.Path) {
			at = append(at, unescape(words[4]))
		}
	}
	return at
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// openIn tells whether a process has the device open, and else in which of the mounts it has a file open or stands. It looks at
// links only: what a foreign file system would have to answer might take for ever.
func (d Device) openIn(dir string, mounts []string) (device bool, in string) {
	links := []string{dir + "/cwd", dir + "/root", dir + "/exe"}
	fds, _ := os.ReadDir(dir + "/fd")
	for _, f := range fds {
		links = append(links, dir+"/fd/"+f.Name())
	}
	for _, l := range links {
		path, err := os.Readlink(l)
		if err != nil {
			continue
		}
		if path == d.Path || strings.HasPrefix(path, "/dev/") && d.is(path) {
			return true, ""
		}
		for _, at := range mounts {
			if path == at || strings.HasPrefix(path, at+"/") {
				in = at
			}
		}
	}
	return false, in
}

func (d Device) is(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == d.rdev()
}
