package nbd

import (
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// A batch's pieces point into its header buffer, which therefore must never grow.
func TestFullestBatchFitsItsHeaderBuffer(t *testing.T) {
	errnos := []nbdproto.Errno{
		nbdproto.OK, nbdproto.EPERM, nbdproto.EIO, nbdproto.ENOMEM, nbdproto.EINVAL, nbdproto.ENOSPC, nbdproto.EOVERFLOW,
		nbdproto.ENOTSUP, nbdproto.ESHUTDOWN,
	}
	for _, e := range errnos {
		b := batch{hdr: make([]byte, 0, maxBatch*maxHeader)}
		b.reset()
		first := &b.hdr[:1][0]
		for range maxBatch {
			r := &request{errno: e, wire: nbdproto.Request{Cmd: nbdproto.CmdRead}}
			if e == nbdproto.OK {
				r.Buf = blockdev.NewBuf(1)
			}
			b.add(r, true)
		}
		if &b.hdr[0] != first || len(b.pieces) > maxPieces {
			t.Errorf("%v: %d bytes of headers, %d pieces", e, len(b.hdr), len(b.pieces))
		}
	}
}

func TestBatchJoinsHeadersAndAdvancesOverPieces(t *testing.T) {
	b := batch{hdr: make([]byte, 0, maxBatch*maxHeader)}
	b.reset()
	read := &request{wire: nbdproto.Request{Cmd: nbdproto.CmdRead, Cookie: 2}}
	read.Buf = blockdev.NewBuf(100)
	for _, r := range []*request{{wire: nbdproto.Request{Cmd: nbdproto.CmdWrite}}, read, {wire: nbdproto.Request{Cmd: nbdproto.CmdFlush}}} {
		b.add(r, false)
	}
	if len(b.pieces) != 3 || len(b.pieces[0]) != 32 || len(b.pieces[1]) != 100 || len(b.pieces[2]) != 16 {
		t.Fatalf("pieces %v", b.pieces)
	}
	for _, n := range []int{31, 1, 100, 15} {
		b.advance(n)
		if !b.pending() {
			t.Fatalf("done too early, after %d more", n)
		}
	}
	if b.advance(1); b.pending() {
		t.Fatal("bytes left over")
	}
}
