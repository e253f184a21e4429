//go:build !race

package nbd_test

import (
	"io"
	"testing"

	"hacluster/blockdev/frontend/nbd"
	"hacluster/blockdev/frontend/nbd/nbdproto"
	"hacluster/blockdev/frontend/nbd/nbdtest"
)

// Serving a request allocates nothing once the connection is warm: reads and writes, answered by Done itself (with
// TryGate) and by the writer goroutine. The race detector makes pools forget, so it is not looked at there.
func TestServingAllocatesNothing(t *testing.T) {
	for name, wrap := range map[string]func(*nbdtest.Export) nbd.Export{
		"direct": func(e *nbdtest.Export) nbd.Export { return e },
		"writer": func(e *nbdtest.Export) nbd.Export { return blockingGate{e} },
	} {
		t.Run(name, func(t *testing.T) {
			e := nbdtest.SyncExport(nbdtest.NewMem(testSize), 1)
			t.Cleanup(e.Close)
			w := newRigTap(t, wrap(e)).session()
			read := req(nbdproto.CmdRead, 0, 1, 0, 16<<10)
			write := req(nbdproto.CmdWrite, 0, 2, 0, 16<<10, make([]byte, 16<<10)...)
			in := make([]byte, nbdproto.SimpleLen+16<<10)
			turn := func(out, in []byte) {
				w.nc.Write(out)
				if _, err := io.ReadFull(w.nc, in); err != nil {
					t.Fatal(err)
				}
			}
			n := testing.AllocsPerRun(2000, func() {
				turn(read, in)
				turn(write, in[:nbdproto.SimpleLen])
			})
			if n > 0 {
				t.Fatalf("%v allocations for a read and a write", n)
			}
		})
	}
}
