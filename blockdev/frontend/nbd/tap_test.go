package nbd_test

import (
	"hash/crc32"
	"net"
	"path/filepath"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/blockdev/frontend/nbd/nbdproto"
	"hacluster/blockdev/frontend/nbd/nbdtest"
)

// tapExport lets a test see, hold or swallow what is submitted: tap, when set, comes before the device; with hold set a
// request is not handed on but given to hold.
type tapExport struct {
	*nbdtest.Export
	tap  func(*blockdev.Request)
	hold func(*blockdev.Request) bool
}

func (e *tapExport) Submit(r *blockdev.Request) {
	if e.tap != nil {
		e.tap(r)
	}
	if e.hold != nil && e.hold(r) {
		return
	}
	e.Export.Submit(r)
}

// single is a set of one export that is no *nbdtest.Export.
type single struct {
	name string
	e    nbd.Export
}

func (s single) Lookup(name string) (nbd.Export, error) {
	if name != s.name {
		return nil, nbd.ErrUnknownExport
	}
	return s.e, nil
}

func (s single) Names() []string { return []string{s.name} }

// newRigTap serves e as "vol".
func newRigTap(t testing.TB, e nbd.Export) *rig { return newRigTapWith(t, nbd.Config{}, e) }

func newRigTapWith(t testing.TB, cfg nbd.Config, e nbd.Export) *rig {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "nbd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, cfg, single{"vol", e}, l)
}

func checksum(p []byte) uint32 { return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) }

func clientOp(cmd nbdproto.Cmd, fl nbdproto.CmdFlags, off, n int64) nbdclient.Op {
	return nbdclient.Op{Cmd: cmd, Flags: fl, Range: blockdev.Range{Off: off, Len: n}}
}

func rangeOf(off, n int64) blockdev.Range { return blockdev.Range{Off: off, Len: n} }
