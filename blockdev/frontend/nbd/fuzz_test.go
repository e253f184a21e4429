package nbd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd"
	"hacluster/blockdev/frontend/nbd/nbdproto"
	"hacluster/blockdev/frontend/nbd/nbdtest"
)

// Seeds under testdata/fuzz were recorded from qemu, libnbd and fio; TestRecordSeeds says how.

const (
	fuzzSize    = 256 << 10
	fuzzPayload = 64 << 10
)

// script is a connection whose client has said everything already and reads everything.
type script struct {
	mu   sync.Mutex
	said *bytes.Reader
	out  bytes.Buffer
	shut bool
}

func (s *script) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut {
		return 0, net.ErrClosed
	}
	return s.said.Read(p)
}

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut {
		return 0, net.ErrClosed
	}
	return s.out.Write(p)
}

func (s *script) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut = true
	return nil
}

func (s *script) LocalAddr() net.Addr              { return &net.UnixAddr{Name: "fuzz", Net: "unix"} }
func (s *script) RemoteAddr() net.Addr             { return s.LocalAddr() }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// converse gives the bytes to a server and returns what it said, and the device.
func converse(t testing.TB, said []byte) ([]byte, *nbdtest.Mem) {
	dev := nbdtest.NewMem(fuzzSize)
	x := nbdtest.NewExports()
	x.Serve("vol", nbdtest.SyncExport(dev, 0))
	x.Leave("other", "beta")
	s, err := nbd.New(x, nbd.Config{MaxPayload: fuzzPayload, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c := &script{said: bytes.NewReader(said)}
	s.ServeConn(context.Background(), c)
	if st := s.Stats(); st.BytesInFlight != 0 {
		t.Fatalf("%d bytes are still held", st.BytesInFlight)
	}
	return c.out.Bytes(), dev
}

// FuzzHandshake: whatever a client says, the server ends the connection, holds nothing, and speaks only whole answers.
func FuzzHandshake(f *testing.F) {
	f.Add(binary.BigEndian.AppendUint32(nil, 3))
	f.Fuzz(func(t *testing.T, said []byte) {
		out, _ := converse(t, said)
		wholeAnswers(t, out)
	})
}

// wholeAnswers fails the test unless a server greeted and answered options in whole, and returns the last answer.
func wholeAnswers(t testing.TB, out []byte) (last nbdproto.OptReplyHeader) {
	t.Helper()
	if len(out) < 18 {
		t.Fatalf("no greeting: %q", out)
	}
	for out = out[18:]; len(out) >= nbdproto.OptReplyLen; {
		h := nbdproto.ParseOptReply(out)
		if h.Magic != nbdproto.MagicOptReply {
			return last // the transmission phase, or EXPORT_NAME's answer
		}
		out = out[nbdproto.OptReplyLen:]
		if int(h.Len) > len(out) {
			t.Fatalf("answer %+v has %d bytes left", h, len(out))
		}
		out, last = out[h.Len:], h
	}
	return last
}

func fuzzPrefix(structured bool) []byte {
	b := binary.BigEndian.AppendUint32(nil, 3)
	if structured {
		b = nbdproto.AppendOption(b, nbdproto.OptStructuredReply, nil)
		b = nbdproto.AppendOption(b, nbdproto.OptSetMetaContext, metaData("vol", nbdproto.BaseAllocation))
	}
	return nbdproto.AppendOption(b, nbdproto.OptGo, goData("vol"))
}

// FuzzRequests: the answers, and the device's content, are byte for byte those of a model that does one request after
// the other. When the client must be hung up on, they are a beginning of it.
func FuzzRequests(f *testing.F) {
	f.Add(true, req(nbdproto.CmdRead, nbdproto.CmdDF, 1, 0, 512))
	f.Add(false, req(nbdproto.CmdWrite, nbdproto.CmdFUA, 1, 512, 3, []byte("abc")...))
	greeting := map[bool][]byte{}
	for _, s := range []bool{false, true} {
		greeting[s], _ = converse(f, fuzzPrefix(s))
	}
	f.Fuzz(func(t *testing.T, structured bool, said []byte) {
		out, dev := converse(t, append(fuzzPrefix(structured), said...))
		out, ok := bytes.CutPrefix(out, greeting[structured])
		if !ok {
			t.Fatal("the handshake was answered in another way")
		}
		m := newModel(structured)
		whole := m.run(said)
		if !bytes.HasPrefix(m.out, out) || (whole && len(out) != len(m.out)) {
			t.Fatalf("answers differ (hung up on: %v)\n got %x\nwant %x", !whole, out, m.out)
		}
		if !bytes.Equal(m.data, dev.Snapshot()) {
			t.Fatal("the device's content differs")
		}
	})
}

// model does requests one after the other.
type model struct {
	structured bool
	data       []byte
	hole       [fuzzSize / blockdev.BlockSize]bool
	out        []byte
}

func newModel(structured bool) *model {
	m := &model{structured: structured, data: make([]byte, fuzzSize)}
	for i := range m.hole {
		m.hole[i] = true
	}
	return m
}

// run returns false when the client must be hung up on, or leaves within a request.
func (m *model) run(b []byte) bool {
	for len(b) >= nbdproto.RequestLen {
		r := nbdproto.ParseRequest(b)
		b = b[nbdproto.RequestLen:]
		switch {
		case r.Magic != nbdproto.MagicRequest:
			return false
		case r.Cmd == nbdproto.CmdDisc:
			return true
		case r.Cmd == nbdproto.CmdWrite && (r.Len > fuzzPayload || int(r.Len) > len(b)):
			return false
		}
		var payload []byte
		if r.Cmd == nbdproto.CmdWrite {
			payload, b = b[:r.Len], b[r.Len:]
		}
		m.answer(r, payload)
	}
	return len(b) == 0
}

func (m *model) answer(r nbdproto.Request, payload []byte) {
	ok := map[nbdproto.Cmd]nbdproto.CmdFlags{0: 5, 1: 1, 3: 1, 4: 1, 5: 1, 6: 1 | 2 | 16, 7: 9}
	fl, known := ok[r.Cmd]
	end := r.Offset + uint64(r.Len)
	in := r.Cmd == nbdproto.CmdFlush || (end >= r.Offset && end <= fuzzSize)
	switch {
	case !known || r.Flags&^fl != 0 || (r.Flags&4 != 0 && !m.structured):
		m.err(r, nbdproto.EINVAL)
	case !in && r.Cmd == nbdproto.CmdWrite:
		m.err(r, nbdproto.ENOSPC)
	case !in, r.Cmd == nbdproto.CmdRead && r.Len > fuzzPayload:
		m.err(r, nbdproto.EINVAL)
	case r.Cmd == nbdproto.CmdBlockStatus:
		if !m.structured || r.Len == 0 {
			m.err(r, nbdproto.EINVAL)
			return
		}
		m.status(r)
	case r.Cmd == nbdproto.CmdWriteZeroes && r.Flags&nbdproto.CmdFastZero != 0 && r.Len > 0:
		m.err(r, nbdproto.ENOTSUP)
	case r.Cmd == nbdproto.CmdRead:
		m.read(r)
	default:
		switch r.Cmd {
		case nbdproto.CmdWrite:
			copy(m.data[r.Offset:], payload)
		case nbdproto.CmdTrim, nbdproto.CmdWriteZeroes:
			clear(m.data[r.Offset:end])
		}
		m.change(r)
		m.err(r, nbdproto.OK)
	}
}

// change keeps account of holes: trims and zeroings give back the blocks that they cover wholly, unless told not to.
func (m *model) change(r nbdproto.Request) {
	unmap := r.Cmd == nbdproto.CmdTrim || (r.Cmd == nbdproto.CmdWriteZeroes && r.Flags&nbdproto.CmdNoHole == 0)
	if r.Len == 0 || (r.Cmd != nbdproto.CmdWrite && r.Cmd != nbdproto.CmdWriteZeroes && !unmap) {
		return
	}
	g := blockdev.Range{Off: int64(r.Offset), Len: int64(r.Len)}
	for i := range m.hole {
		blk := blockdev.Range{Off: int64(i) * blockdev.BlockSize, Len: blockdev.BlockSize}
		switch {
		case unmap && g.Off <= blk.Off && g.End() >= blk.End():
			m.hole[i] = true
		case !unmap && g.Overlaps(blk):
			m.hole[i] = false
		}
	}
}

func (m *model) status(r nbdproto.Request) {
	var b []byte
	end := int64(r.Offset) + int64(r.Len)
	for off := int64(r.Offset); off < end; {
		i := off / blockdev.BlockSize
		next := (i + 1) * blockdev.BlockSize
		for next < end && m.hole[next/blockdev.BlockSize] == m.hole[i] {
			next += blockdev.BlockSize
		}
		next = min(next, end)
		b = binary.BigEndian.AppendUint32(b, uint32(next-off))
		state := uint32(0)
		if m.hole[i] {
			state = nbdproto.StateHole | nbdproto.StateZero
		}
		b = binary.BigEndian.AppendUint32(b, state)
		off = next
		if r.Flags&nbdproto.CmdReqOne != 0 {
			break
		}
	}
	m.out = nbdproto.AppendChunk(m.out, nbdproto.Chunk{Flags: 1, Type: 5, Cookie: r.Cookie, Len: uint32(4 + len(b))})
	m.out = append(binary.BigEndian.AppendUint32(m.out, 1), b...)
}

func (m *model) read(r nbdproto.Request) {
	data := m.data[r.Offset:][:r.Len]
	switch {
	case !m.structured:
		m.out = nbdproto.AppendSimple(m.out, nbdproto.OK, r.Cookie)
	case r.Len == 0:
		m.out = nbdproto.AppendChunk(m.out, nbdproto.Chunk{Flags: 1, Cookie: r.Cookie})
	default:
		m.out = nbdproto.AppendChunk(m.out, nbdproto.Chunk{Flags: 1, Type: 1, Cookie: r.Cookie, Len: 8 + r.Len})
		m.out = binary.BigEndian.AppendUint64(m.out, r.Offset)
	}
	m.out = append(m.out, data...)
}

func (m *model) err(r nbdproto.Request, e nbdproto.Errno) {
	if !m.structured || (r.Cmd != nbdproto.CmdRead && r.Cmd != nbdproto.CmdBlockStatus) {
		m.out = nbdproto.AppendSimple(m.out, e, r.Cookie)
		return
	}
	text := e.Error()
	m.out = nbdproto.AppendChunk(m.out, nbdproto.Chunk{Flags: 1, Type: 0x8001, Cookie: r.Cookie, Len: uint32(6 + len(text))})
	m.out = binary.BigEndian.AppendUint32(m.out, uint32(e))
	m.out = binary.BigEndian.AppendUint16(m.out, uint16(len(text)))
	m.out = append(m.out, text...)
}
