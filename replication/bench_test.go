package replication

import (
	"fmt"
	"os"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/filedev"
	"hacluster/heartbeat/cluster"
)

// A write through both replicas, over loopback: from Submit to Done. Expected: at depth 1 the cost of one message each
// way and of waking both readers; at depth 32 several writes share a message. Neither side allocates.
func BenchmarkMirror4K(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("QD%d", depth), func(b *testing.B) { benchmarkMirror(b, true, depth, 4096, "a", "b") })
	}
}

// The same in async, within a bound of 32 MiB. Expected: at depth 1 what the local backing costs, for nothing waits for the standby until
// half of the bound is used; from there on, and at depth 32 soon, the speed of the standby.
func BenchmarkMirror4KAsync(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("QD%d", depth), func(b *testing.B) {
			benchmarkLab(b, labConfig{inline: true, size: 64 << 20, tmpfs: true, mode: cluster.ModeAsync, bound: wide}, depth, 4096, "a", "b")
		})
	}
}

// The same with a worker for each operation, as on a backing that waits for its disk: two more changes of goroutine on
// each side.
func BenchmarkMirror4KWorkers(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("QD%d", depth), func(b *testing.B) { benchmarkMirror(b, false, depth, 4096, "a", "b") })
	}
}

// Expected: bound by copying through the loopback and by the checksum on the standby.
func BenchmarkMirror1M(b *testing.B) {
	for _, depth := range []int{1, 8} {
		b.Run(fmt.Sprintf("QD%d", depth), func(b *testing.B) { benchmarkMirror(b, true, depth, 1<<20, "a", "b") })
	}
}

// The same without a second replica: what deciding and the local backing cost.
func BenchmarkLone4K(b *testing.B) { benchmarkMirror(b, true, 1, 4096, "a") }

func benchmarkMirror(b *testing.B, inline bool, depth, size int, names ...string) {
	benchmarkLab(b, labConfig{inline: inline, size: 64 << 20, tmpfs: true}, depth, size, names...)
}

// What marking costs: the difference to BenchmarkMirror4K. Expected: within the noise, for the regions are hot.
func BenchmarkMirror4KUnmarked(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("QD%d", depth), func(b *testing.B) {
			benchmarkLab(b, labConfig{inline: true, size: 64 << 20, tmpfs: true, unmarked: true}, depth, 4096, "a", "b")
		})
	}
}

func benchmarkLab(b *testing.B, conf labConfig, depth, size int, names ...string) {
	l := formed(b, conf, names...)
	a := l.nodes["a"]
	ten := a.serving()
	for _, n := range names[1:] {
		a.connected(n)
	}
	done := make(chan *blockdev.Request, depth)
	e := ten.Export()
	reqs := make([]*blockdev.Request, depth)
	for i := range reqs {
		reqs[i] = writeReq(int64(i*size), pattern(size, byte(i)))
		reqs[i].Done = func(r *blockdev.Request) { done <- r }
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	started, ended := 0, 0
	for _, r := range reqs {
		if started < b.N {
			started++
			e.Submit(r)
		}
	}
	for ended < b.N {
		r := <-done
		if ended++; r.Err != nil {
			b.Fatal(r.Err)
		}
		if started < b.N {
			started++
			e.Submit(r)
		}
	}
	b.StopTimer()
}

// tmpfs is a backing in a file whose writes end in memory.
func tmpfs(tb testing.TB, size int64) blockdev.Device {
	dir, err := os.MkdirTemp("/dev/shm", "replication")
	if err != nil {
		dir = tb.TempDir()
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	d, err := filedev.Open(dir+"/backing", filedev.Config{Size: size, Mode: filedev.Buffered, Create: true})
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// What a write needs without a peer allocates nothing.
func TestWriteOfALoneMemberAllocatesNothing(t *testing.T) {
	for _, inline := range []bool{true, false} {
		l := newLab(t, labConfig{inline: inline}, "a", "b")
		a := l.nodes["a"]
		l.nodes["b"].cable.cut()
		l.form("a")
		l.promote("a", cluster.BasisFirst)
		a.grant()
		e := a.serving().Export()
		done := make(chan error, 1)
		req := writeReq(0, pattern(4096, 1))
		req.Done = func(r *blockdev.Request) { done <- r.Err }
		write := func() {
			e.Submit(req)
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		for range 100 {
			write()
		}
		if n := testing.AllocsPerRun(2000, write); n >= 1 && !raceEnabled {
			t.Errorf("inline=%t: %v allocations for a write", inline, n)
		}
	}
}
