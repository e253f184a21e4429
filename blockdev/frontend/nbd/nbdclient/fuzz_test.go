package nbdclient_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// agreed is what a good server says in the handshake: structured replies, base:allocation, testSize bytes.
func agreed() []byte {
	be := binary.BigEndian
	b := be.AppendUint64(nil, nbdproto.MagicInit)
	b = be.AppendUint64(b, nbdproto.MagicOption)
	b = be.AppendUint16(b, 3)
	b = nbdproto.AppendOptReply(b, nbdproto.OptStructuredReply, nbdproto.RepAck, nil)
	ctx := append(be.AppendUint32(nil, 1), nbdproto.BaseAllocation...)
	b = nbdproto.AppendOptReply(b, nbdproto.OptSetMetaContext, nbdproto.RepMetaContext, ctx)
	b = nbdproto.AppendOptReply(b, nbdproto.OptSetMetaContext, nbdproto.RepAck, nil)
	info := be.AppendUint64(be.AppendUint16(nil, 0), testSize)
	b = nbdproto.AppendOptReply(b, nbdproto.OptGo, nbdproto.RepInfo, be.AppendUint16(info, uint16(nbdproto.HasFlags)))
	return nbdproto.AppendOptReply(b, nbdproto.OptGo, nbdproto.RepAck, nil)
}

// FuzzServer: whatever a server says, in the handshake or afterwards, every call ends, and nothing is written around
// the caller's buffer.
func FuzzServer(f *testing.F) {
	good := agreed()
	f.Add(false, good[:40])
	f.Add(true, nbdproto.AppendSimple(nil, nbdproto.EIO, 3))
	data := nbdproto.AppendChunk(nil, nbdproto.Chunk{Flags: 1, Type: nbdproto.ChunkOffsetData, Cookie: 1, Len: 8 + 512})
	data = append(binary.BigEndian.AppendUint64(data, 4096), fill(512, 7)...)
	f.Add(true, data)
	hole := nbdproto.AppendChunk(nil, nbdproto.Chunk{Type: nbdproto.ChunkOffsetHole, Cookie: 1, Len: 12})
	hole = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(hole, 4096), 512)
	f.Add(true, nbdproto.AppendChunk(hole, nbdproto.Chunk{Flags: 1, Cookie: 1}))
	status := nbdproto.AppendChunk(nil, nbdproto.Chunk{Flags: 1, Type: nbdproto.ChunkBlockStatus, Cookie: 2, Len: 12})
	f.Add(true, append(status, 0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0, 3))

	l, err := net.Listen("unix", filepath.Join(f.TempDir(), "s"))
	if err != nil {
		f.Fatal(err)
	}
	var say atomic.Pointer[[]byte]
	f.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			nc.SetDeadline(time.Now().Add(patience))
			nc.Write(*say.Load())
			nc.(*net.UnixConn).CloseWrite()
			io.Copy(io.Discard, nc)
			nc.Close()
		}
	}()
	f.Fuzz(func(t *testing.T, handshaken bool, said []byte) {
		if handshaken {
			said = append(agreed(), said...)
		}
		say.Store(&said)
		c, err := nbdclient.Dial(t.Context(), "nbd+unix:///vol?socket="+l.Addr().String())
		if err != nil {
			return
		}
		defer c.Close()
		around := fill(512+2*16, 0xee)
		calls := []*nbdclient.Call{
			c.Start(nbdclient.Op{Cmd: nbdproto.CmdRead, Range: blockdev.Range{Off: 4096, Len: 512}, Data: around[16:][:512]}),
			c.Start(nbdclient.Op{Cmd: nbdproto.CmdBlockStatus, Range: blockdev.Range{Len: 512}}),
			c.Start(nbdclient.Op{Cmd: nbdproto.CmdFlush}),
		}
		for _, k := range calls {
			k.Wait()
		}
		if !bytes.Equal(around[:16], fill(16, 0xee)) || !bytes.Equal(around[528:], fill(16, 0xee)) {
			t.Fatal("a read wrote around its buffer")
		}
	})
}
