package nbd_test

import (
	"fmt"
	"sync"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/blockdev/frontend/nbd/nbdproto"
	"hacluster/blockdev/frontend/nbd/nbdtest"
)

// nullExport does nothing, so that what is measured is the frontend. With workers, Done is called from another
// goroutine, as a volume does.
type nullExport struct {
	*nbdtest.Export
	jobs chan *blockdev.Request
}

func (e *nullExport) Submit(r *blockdev.Request) {
	r.Err = nil
	if e.jobs != nil {
		e.jobs <- r
		return
	}
	r.Done(r)
}

// raw is a client that sends prepared requests and counts the bytes of their answers: it costs little and allocates
// nothing, so that allocs/op are the server's.
func benchRaw(b *testing.B, e nbd.Export, cmd nbdproto.Cmd, size uint32, depth int) {
	r := newRigTap(b, e)
	w := r.session()
	w.nc.SetDeadline(patienceNever)
	n := depth
	var out []byte
	for i := range n {
		q := req(cmd, 0, uint64(i), uint64(i)*uint64(size)%(testSize/2), size)
		if cmd == nbdproto.CmdWrite {
			q = append(q, make([]byte, size)...)
		}
		out = append(out, q...)
	}
	answer := nbdproto.SimpleLen
	if cmd == nbdproto.CmdRead {
		answer += int(size)
	}
	one := len(out) / n
	in := make([]byte, 1<<20)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	var sender sync.WaitGroup
	room := make(chan struct{}, depth)
	for range depth {
		room <- struct{}{}
	}
	b.ResetTimer()
	sender.Go(func() {
		for i := 0; i < b.N; {
			<-room
			k := 1
			for k < depth-i%depth && i+k < b.N && len(room) > 0 {
				<-room
				k++
			}
			w.push(out[i%depth*one : (i%depth+k)*one])
			i += k
		}
	})
	got, done := 0, 0
	for done < b.N {
		n, err := w.nc.Read(in)
		if err != nil {
			b.Fatal(err)
		}
		got += n
		for ; got >= (done+1)*answer; done++ {
			room <- struct{}{}
		}
	}
	sender.Wait()
}

// BenchmarkServer expects no allocation per request, and at depth 1 about two wake-ups (server's reader, client): some
// ten microseconds on a unix socket.
func BenchmarkServer(b *testing.B) {
	for _, cmd := range []nbdproto.Cmd{nbdproto.CmdRead, nbdproto.CmdWrite} {
		for _, size := range []uint32{4096, 65536, 1 << 20} {
			for _, depth := range []int{1, 32} {
				for _, workers := range []int{0, 1} {
					name := fmt.Sprintf("%s/%dK/qd%d/workers%d", map[nbdproto.Cmd]string{0: "read", 1: "write"}[cmd], size>>10, depth, workers)
					b.Run(name, func(b *testing.B) {
						e := &nullExport{Export: nbdtest.SyncExport(nbdtest.NewMem(testSize), 0)}
						var wg sync.WaitGroup
						if workers > 0 {
							e.jobs = make(chan *blockdev.Request, 256)
							wg.Go(func() {
								for r := range e.jobs {
									r.Done(r)
								}
							})
							defer wg.Wait()
							defer close(e.jobs)
						}
						benchRaw(b, e, cmd, size, depth)
					})
				}
			}
		}
	}
}

// BenchmarkClient adds our own client, one goroutine per request in flight.
func BenchmarkClient(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("write/4K/qd%d", depth), func(b *testing.B) {
			r := newRigTap(b, &nullExport{Export: nbdtest.SyncExport(nbdtest.NewMem(testSize), 0)})
			c := r.client()
			benchClient(b, c, depth)
		})
	}
}

func benchClient(b *testing.B, c *nbdclient.Client, depth int) {
	b.SetBytes(4096)
	b.ReportAllocs()
	var wg sync.WaitGroup
	for g := range depth {
		wg.Go(func() {
			p := make([]byte, 4096)
			for i := g; i < b.N; i += depth {
				if _, err := c.WriteAt(p, int64(g)*4096); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
