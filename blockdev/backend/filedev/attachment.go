package filedev

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Attachment identifies the backing as it is attached now: part of an incarnation (R25). What was written and not
// flushed may be gone when it changes, and it changes whenever the disk was detached in between.
//
//	blk:MAJOR:MINOR:SEQ               block device
//	file:MAJOR.MINOR:INODE.BIRTH:SEQ  file on that filesystem
//
// BIRTH is when the file was created, in hexadecimal nanoseconds, since inode numbers are given out again; a filesystem
// that does not know leaves out ".BIRTH". SEQ is the kernel's number of this attachment of the disk (diskseq). Before
// Linux 5.15 it is "s" and the number of the disk's directory in sysfs, which is new with each attachment as well. A
// file on no one disk (network, btrfs, memory) leaves out ":SEQ".
func (d *Dev) Attachment() string { return d.attachment }

func (s system) attachmentOf(fd int) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", fmt.Errorf("find its attachment: %w", err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		seq := s.diskseq(st.Rdev)
		if seq == "" {
			return "", fmt.Errorf("find its attachment: sysfs does not know block device %d:%d: mount sysfs on /sys", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		return fmt.Sprintf("blk:%d:%d:%s", unix.Major(st.Rdev), unix.Minor(st.Rdev), seq), nil
	}
	out := fmt.Sprintf("file:%d.%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	if birth := birthOf(fd); birth != 0 {
		out += fmt.Sprintf(".%x", birth)
	}
	if seq := s.diskseq(st.Dev); seq != "" {
		out += ":" + seq
	}
	return out, nil
}

func birthOf(fd int) int64 {
	var st unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st) != nil || st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
}

// diskseq is the number of this attachment of a disk, of a partition that of its disk; "" when there is no such disk.
func (s system) diskseq(number uint64) string {
	dir := wholeDisk(s.blockDir(number))
	if text, err := os.ReadFile(filepath.Join(dir, "diskseq")); err == nil {
		return strings.TrimSpace(string(text))
	}
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return ""
	}
	return fmt.Sprintf("s%d", st.Ino)
}
