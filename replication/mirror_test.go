package replication

import (
	"bytes"
	"fmt"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/memdev"
)

// R33: overlapping operations of many clients end the same on both sides.
func TestRandomOverlappingOperationsEndTheSameOnBoth(t *testing.T) {
	for _, inline := range []bool{true, false} {
		t.Run(fmt.Sprintf("inline=%t", inline), func(t *testing.T) {
			l := formed(t, labConfig{inline: inline}, "a", "b")
			w := startLoad(t, l.nodes["a"].serving(), 6)
			w.more(l, 2000)
			w.end()
			l.same("a", "b")
			if n := l.drops(); n != 0 {
				t.Errorf("%d drops without a fault", n)
			}
		})
	}
}

// R20: what was acknowledged by a flush, or as FUA, survives the power loss of both.
func TestFlushedAndForcedWritesSurvivePowerLossOnBoth(t *testing.T) {
	for _, inline := range []bool{true, false} {
		t.Run(fmt.Sprintf("inline=%t", inline), func(t *testing.T) {
			l := formed(t, labConfig{inline: inline}, "a", "b")
			c := l.nodes["a"].serving().client(t)
			want := make([]byte, volumeSize)
			put := func(off int64, p []byte, fua bool) {
				req := writeReq(off, p)
				req.FUA = fua
				if err := c.do(req); err != nil {
					t.Fatal(err)
				}
				copy(want[off:], p)
			}
			put(0, pattern(8192, 1), false)
			put(100_000, pattern(3000, 2), false)
			if err := c.do(&blockdev.Request{Op: blockdev.OpZero, Range: blockdev.Range{Off: 4096, Len: 4096}, Unmap: true}); err != nil {
				t.Fatal(err)
			}
			clear(want[4096:8192])
			if err := c.flush(); err != nil {
				t.Fatal(err)
			}
			put(1<<20, pattern(70_000, 3), true) // several segments
			put(2<<20, pattern(512, 4), true)
			put(3<<20, pattern(4096, 5), true)
			if err := c.do(&blockdev.Request{Op: blockdev.OpZero, Range: blockdev.Range{Off: 3 << 20, Len: 512}, FUA: true}); err != nil {
				t.Fatal(err)
			}
			clear(want[3<<20 : 3<<20+512])
			for _, n := range []string{"a", "b"} {
				after := l.nodes[n].mem.Clone(memdev.CrashOptions{})
				got := make([]byte, volumeSize)
				if _, err := after.ReadAt(got, 0); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%s lost what was acknowledged as durable", n)
				}
			}
		})
	}
}
