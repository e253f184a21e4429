package joindev

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/blocktest"
)

func mem(size int64) *memdev.Dev { return memdev.New(memdev.Config{Size: size}) }

func TestConformance(t *testing.T) {
	blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device {
		first := size / 3 / blockdev.BlockSize * blockdev.BlockSize
		return New(mem(first), mem(blockdev.BlockSize), mem(size-first-blockdev.BlockSize))
	})
}

type plain struct{ blockdev.Device }

func TestConformanceOverDevicesWithoutVectorsAndExtents(t *testing.T) {
	blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device {
		return New(plain{mem(blockdev.BlockSize)}, plain{mem(size - blockdev.BlockSize)})
	})
}

func TestConformanceOfOne(t *testing.T) {
	blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device { return New(mem(size)) })
}

// What lies at the end of one device and the beginning of the next is on both, each at its place.
func TestAWriteOverTheEndOfADeviceGoesToBoth(t *testing.T) {
	a, b := mem(2*blockdev.BlockSize), mem(2*blockdev.BlockSize)
	d := New(a, b)
	data := bytes.Repeat([]byte("ab"), blockdev.BlockSize)
	if _, err := d.WriteVAt([][]byte{data[:100], data[100:5000], data[5000:]}, blockdev.BlockSize); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, blockdev.BlockSize)
	for _, c := range []struct {
		dev  blockdev.Device
		at   int64
		want []byte
	}{{a, blockdev.BlockSize, data[:blockdev.BlockSize]}, {b, 0, data[blockdev.BlockSize:]}} {
		if _, err := c.dev.ReadAt(got, c.at); err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("at %d of its device: %v, the content is right: %t", c.at, err, bytes.Equal(got, c.want))
		}
	}
	for _, c := range []struct {
		dev blockdev.Device
		at  int64
	}{{a, 0}, {b, blockdev.BlockSize}} {
		if _, err := c.dev.ReadAt(got, c.at); err != nil || !bytes.Equal(got, make([]byte, blockdev.BlockSize)) {
			t.Errorf("what lies beside the write was changed (%v)", err)
		}
	}
}

var errDisk = errors.New("disk is broken")

// A flush that failed on one of the devices has failed, and the others were flushed all the same: what it was for is durable there.
func TestAFlushThatFailsOnOneHasFailed(t *testing.T) {
	for broken := range 3 {
		parts, mems := []blockdev.Device{}, []*memdev.Dev{}
		for i := range 3 {
			m := mem(blockdev.BlockSize)
			f := faultdev.New(m)
			if i == broken {
				f.Add(faultdev.Rule{Op: blockdev.OpFlush, Fail: true, Err: errDisk})
			}
			parts, mems = append(parts, f), append(mems, m)
		}
		d := New(parts...)
		for i := range 3 {
			if _, err := d.WriteAt([]byte{1}, int64(i)*blockdev.BlockSize); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Flush(); !errors.Is(err, errDisk) {
			t.Errorf("device %d does not flush: the flush of all says %v", broken, err)
		}
		for i, m := range mems {
			after, p := m.Clone(memdev.CrashOptions{}), make([]byte, 1)
			if _, err := after.ReadAt(p, 0); err != nil || i != broken && p[0] != 1 {
				t.Errorf("device %d, which flushes, lost what was written to it (%v)", i, err)
			}
		}
	}
}

// One that hangs holds the flush of all, and no other operation of the others.
func TestAFlushWaitsForEveryDevice(t *testing.T) {
	hold := make(chan struct{})
	d := New(held{mem(blockdev.BlockSize), hold}, mem(blockdev.BlockSize))
	done := make(chan error, 1)
	go func() { done <- d.Flush() }()
	if _, err := d.WriteAt([]byte{1}, blockdev.BlockSize); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		t.Fatalf("the flush returned (%v) while one device had not", err)
	case <-time.After(20 * time.Millisecond):
	}
	close(hold)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

type held struct {
	*memdev.Dev
	until chan struct{}
}

func (h held) Flush() error { <-h.until; return h.Dev.Flush() }
