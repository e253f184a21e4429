package filedev

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
)

// Clear has r of the backing at path read as zeroes, durably. It is for what lies behind the end of the device that is in use, so
// the backing may be held meanwhile: nobody else reads or writes there. It may be done again after an error or a crash, which
// leave any part of it cleared. Space is given back where the backing can.
func Clear(path string, r blockdev.Range) error {
	if err := clearRange(path, r); err != nil {
		return fmt.Errorf("clear %v of backing %s: %w", r, path, err)
	}
	return nil
}

func clearRange(path string, r blockdev.Range) error {
	if _, err := lookAt(path, false); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := zeroOut(f, r); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

// zeroOut tries the ways in order of cost. All of them guarantee zeroes.
func zeroOut(f *os.File, r blockdev.Range) error {
	for _, mode := range []uint32{unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE} {
		err := unix.EINTR
		for errors.Is(err, unix.EINTR) {
			err, _ = unix.Fallocate(int(f.Fd()), mode|unix.FALLOC_FL_KEEP_SIZE, r.Off, r.Len).(unix.Errno)
		}
		if err == 0 {
			return nil
		}
		if !unsupported(err) {
			return err
		}
	}
	return overwrite(f, r)
}

func overwrite(f *os.File, r blockdev.Range) error {
	for r.Len > 0 {
		n, err := f.WriteAt(zeroes()[:min(r.Len, bounceLen)], r.Off)
		if err != nil {
			return err
		}
		r.Off, r.Len = r.Off+int64(n), r.Len-int64(n)
	}
	return nil
}
