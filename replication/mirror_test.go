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
			zero := func(off, n int64, fua bool) {
				if err := c.do(&blockdev.Request{Op: blockdev.OpZero, Range: blockdev.Range{Off: off, Len: n}, Unmap: true, FUA: fua}); err != nil {
					t.Fatal(err)
				}
				clear(want[off : off+n])
			}
			survives := func(what string) {
				t.Helper()
				for _, n := range []string{"a", "b"} {
					got := make([]byte, volumeSize)
					if _, err := l.nodes[n].mem.Clone(memdev.CrashOptions{}).ReadAt(got, 0); err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(got, want) {
						t.Errorf("%s lost %s", n, what)
					}
				}
			}
			put(0, pattern(8192, 1), false)
			put(100_000, pattern(3000, 2), false)
			zero(4096, 4096, false)
			if err := c.flush(); err != nil {
				t.Fatal(err)
			}
			survives("what was flushed")
			put(1<<20, pattern(70_000, 3), true)
			survives("a forced write of several segments")
			put(2<<20, pattern(512, 4), true)
			survives("a forced write of a sector")
			zero(1<<20, 4096, true)
			survives("a forced zeroing")
		})
	}
}
