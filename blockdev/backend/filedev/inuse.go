package filedev

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// system is where the kernel tells about itself; tests put trees of their own in its place.
type system struct{ proc, sys string }

var host = system{proc: "/proc", sys: "/sys"}

// inUse refuses a backing that the kernel uses already. For block devices the hold would refuse most of it too, but not
// say by what. What is on a device counts for its partitions, and for the disk of a partition.
func (s system) inUse(t target) error {
	u := usage{system: s, target: t}
	if t.isBlock {
		u.devices = s.family(t.st.Rdev)
	}
	for _, check := range []func() error{u.mounted, u.swap, u.held, u.loop} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

type usage struct {
	system
	target
	devices []relative // of a block device: itself and what shares its bytes
}

// relative is a block device that shares bytes with the target.
type relative struct {
	number uint64
	dir    string // in sysfs
	what   string // "it", "its partition sda1", "its disk sda"
}

// family lists the device itself, its partitions, and the disk that it is a partition of.
func (s system) family(number uint64) []relative {
	dir := s.blockDir(number)
	out := []relative{{number, dir, "it"}}
	parts, _ := filepath.Glob(filepath.Join(dir, "*", "partition")) // the pattern is well-formed
	for _, p := range parts {
		part := filepath.Dir(p)
		if n, ok := deviceNumber(part); ok {
			out = append(out, relative{n, part, "its partition " + filepath.Base(part)})
		}
	}
	if disk := wholeDisk(dir); disk != dir {
		if n, ok := deviceNumber(disk); ok {
			out = append(out, relative{n, disk, "its disk " + filepath.Base(disk)})
		}
	}
	return out
}

// blockDir is the directory of a block device in sysfs, links resolved so that its parent is its disk.
func (s system) blockDir(number uint64) string {
	link := filepath.Join(s.sys, "dev/block", fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number)))
	if dir, err := filepath.EvalSymlinks(link); err == nil {
		return dir
	}
	return link
}

// wholeDisk is the directory of the disk of a partition, and of everything else itself.
func wholeDisk(dir string) string {
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		return filepath.Dir(dir)
	}
	return dir
}

func deviceNumber(dir string) (uint64, bool) {
	text, err := os.ReadFile(filepath.Join(dir, "dev"))
	if err != nil {
		return 0, false
	}
	return parseNumber(strings.TrimSpace(string(text)), 10)
}

// parseNumber reads MAJOR:MINOR.
func parseNumber(text string, base int) (uint64, bool) {
	major, minor, ok := strings.Cut(text, ":")
	ma, err1 := strconv.ParseUint(major, base, 32)
	mi, err2 := strconv.ParseUint(minor, base, 32)
	return unix.Mkdev(uint32(ma), uint32(mi)), ok && err1 == nil && err2 == nil
}

// find returns the relative with that number.
func (u *usage) find(number uint64) (relative, bool) {
	for _, r := range u.devices {
		if r.number == number {
			return r, true
		}
	}
	return relative{}, false
}

// names reports whether path names the target or a relative of it, and which.
func (u *usage) names(path string) (string, bool) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return "", false // not ours to judge: it names nothing
	}
	if u.isBlock {
		r, ok := u.find(st.Rdev)
		return r.what, ok && st.Mode&unix.S_IFMT == unix.S_IFBLK
	}
	return "it", st.Dev == u.st.Dev && st.Ino == u.st.Ino
}

// mounted looks at the device number of each mount and at its source: some filesystems (btrfs) have numbers of their
// own. Only sources below /dev are looked at: others may hang, as those of a dead server do.
func (u *usage) mounted() error {
	if !u.isBlock {
		return nil
	}
	return u.lines("self/mountinfo", func(f []string) error {
		tail := len(f)
		for i := range f {
			if f[i] == "-" {
				tail = i
				break
			}
		}
		if len(f) < 5 || tail+2 >= len(f) {
			return nil
		}
		number, _ := parseNumber(f[2], 10)
		r, found := u.find(number)
		what := r.what
		if source := unescape(f[tail+2]); !found && strings.HasPrefix(source, "/dev/") {
			what, found = u.names(source)
		}
		if !found {
			return nil
		}
		return fmt.Errorf("%w: %s is mounted on %s: unmount that, or name another device", ErrInUse, what, unescape(f[4]))
	})
}

func (u *usage) swap() error {
	return u.lines("swaps", func(f []string) error {
		if !strings.HasPrefix(f[0], "/") { // the heading
			return nil
		}
		what, found := u.names(unescape(f[0]))
		if !found {
			return nil
		}
		return fmt.Errorf("%w: %s is used as swap: swapoff it, or name another device", ErrInUse, what)
	})
}

// held looks for what is stacked upon the device: device mapper (LVM, crypt, multipath), md, bcache.
func (u *usage) held() error {
	for _, r := range u.devices {
		holders, err := os.ReadDir(filepath.Join(r.dir, "holders"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look for what is stacked upon it: %w", err)
		}
		if len(holders) > 0 {
			return fmt.Errorf("%w: %s is part of %s: name that device instead, or take this one out of it", ErrInUse, r.what, u.holderName(holders[0].Name()))
		}
	}
	return nil
}

func (u *usage) holderName(name string) string {
	dir := filepath.Join(u.sys, "block", name)
	if text, err := os.ReadFile(filepath.Join(dir, "dm/name")); err == nil {
		return fmt.Sprintf("%s (device mapper or LVM: %s)", name, strings.TrimSpace(string(text)))
	}
	if text, err := os.ReadFile(filepath.Join(dir, "md/level")); err == nil {
		return fmt.Sprintf("%s (RAID, md: %s)", name, strings.TrimSpace(string(text)))
	}
	return name
}

// loop looks for loop devices whose content the target is.
func (u *usage) loop() error {
	files, _ := filepath.Glob(filepath.Join(u.sys, "block/loop*/loop/backing_file")) // the pattern is well-formed
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // detached since the listing
		}
		if what, found := u.names(strings.TrimSuffix(string(text), "\n")); found {
			dev := filepath.Base(filepath.Dir(filepath.Dir(f)))
			return fmt.Errorf("%w: %s is what the loop device /dev/%s shows: losetup -d /dev/%s, or name another backing", ErrInUse, what, dev, dev)
		}
	}
	return nil
}

// lines calls fn with the fields of each line of a file in proc that is not empty.
func (s system) lines(name string, fn func(fields []string) error) error {
	f, err := os.Open(filepath.Join(s.proc, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without it has no users of that kind
	}
	if err != nil {
		return fmt.Errorf("look for users of it: %w", err)
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20) // overlay mounts have long lines
	for in.Scan() {
		if fields := strings.Fields(in.Text()); len(fields) > 0 {
			if err := fn(fields); err != nil {
				return err
			}
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("look for users of it in %s: %w", f.Name(), err)
	}
	return nil
}

// unescape undoes the kernel's \ooo of blanks in paths.
func unescape(path string) string {
	var out strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+3 < len(path) {
			if c, err := strconv.ParseUint(path[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		out.WriteByte(path[i])
	}
	return out.String()
}
