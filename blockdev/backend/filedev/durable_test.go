package filedev

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// traffic is what the kernel counts of a disk: sectors that were written to it and flushes that it was sent.
type traffic struct{ sectors, flushes int }

func trafficOf(t *testing.T, dev string) traffic {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(dev), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(text))
	if len(f) < 17 {
		t.Skipf("the kernel does not count the flushes of %s: that takes Linux 5.5: %q", dev, text)
	}
	number := func(i int) int {
		n, err := strconv.Atoi(f[i])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return traffic{sectors: number(6), flushes: number(15)}
}

// Whether it is durable shows below: the data, and then a flush, have reached the disk when the call returns. The
// loop device has no durable writes of its own, so each needs its flush.
func TestR20DurableMeansThatDataAndFlushReachedTheDisk(t *testing.T) {
	for _, c := range []struct {
		name  string
		mode  Mode
		dsync bool // the kernel has durable writes
		do    func(d *Dev) error
	}{
		{"FUA buffered", Buffered, true, func(d *Dev) error { _, err := d.WriteFUA(fill(8192, 1), 4096); return err }},
		{"FUA direct", Auto, true, func(d *Dev) error { _, err := d.WriteFUA(fill(8192, 1), 4096); return err }},
		{"FUA buffered without RWF_DSYNC", Buffered, false, func(d *Dev) error { _, err := d.WriteFUA(fill(8192, 1), 4096); return err }},
		{"FUA direct without RWF_DSYNC", Auto, false, func(d *Dev) error { _, err := d.WriteFUA(fill(8192, 1), 4096); return err }},
		{"flush buffered", Buffered, true, writeAndFlush},
		{"flush direct", Auto, true, writeAndFlush},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := loopDevice(t, image(t, mib))
			d := open(t, dev, Config{Size: mib, Mode: c.mode})
			d.missing.dsync.Store(!c.dsync)
			before := trafficOf(t, dev)
			if err := c.do(d); err != nil {
				t.Fatal(err)
			}
			after := trafficOf(t, dev)
			if after.sectors-before.sectors < 16 || after.flushes == before.flushes {
				t.Errorf("before %+v, after %+v: want 16 sectors and a flush", before, after)
			}
		})
	}
}

func writeAndFlush(d *Dev) error {
	if _, err := d.WriteAt(fill(8192, 1), 4096); err != nil {
		return err
	}
	return d.Flush()
}
