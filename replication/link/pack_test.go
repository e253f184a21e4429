package link

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/s2"

	"hacluster/blockdev"
	"hacluster/replication/shape"
	"hacluster/replication/wire"
)

// text is a payload that compresses, noise one that does not.
func text(n int, seed byte) *blockdev.Buf {
	b := blockdev.NewBuf(n)
	for i := range b.Bytes() {
		b.Bytes()[i] = seed + byte(i>>7)
	}
	return b
}

func noise(n int) *blockdev.Buf {
	b := blockdev.NewBuf(n)
	rand.NewChaCha8([32]byte{1}).Read(b.Bytes())
	return b
}

func compressing(how shape.Compress) *Line {
	l := NewLine()
	l.Set(shape.Settings{Compress: how}, 0)
	return l
}

// arrived collects the payloads of a stream, checked, and whether their messages were compressed.
type arrived struct {
	data   []byte
	packed bool
}

func collect(got chan arrived) handlerFunc {
	return func(_ context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		for {
			b, err := s.Recv()
			if err != nil {
				return err
			}
			r := arrived{packed: b.Packed}
			for i := range b.Frames {
				if err := b.Frames[i].Verify(); err != nil {
					return err
				}
				r.data = append(r.data, bytes.Join(b.Frames[i].Payload, nil)...)
			}
			b.Free()
			got <- r
		}
	}
}

// R21: what arrives is what was sent, whatever happened to it on the way; its checksum is of that.
func TestCompressedMessagesArriveAsTheyWere(t *testing.T) {
	got := make(chan arrived, 1)
	addr := serve(t, collect(got))
	for _, c := range []struct {
		name   string
		sizes  []int
		make   func(int) *blockdev.Buf
		packed bool
	}{
		{"a block", []int{4096}, func(n int) *blockdev.Buf { return text(n, 1) }, true},
		{"many blocks", []int{4096, 4096, 512, 65536, 8192}, func(n int) *blockdev.Buf { return text(n, 2) }, true},
		{"a megabyte", []int{1 << 20}, func(n int) *blockdev.Buf { return text(n, 3) }, true},
		{"the largest that is compressed", []int{maxPacked}, func(n int) *blockdev.Buf { return text(n, 4) }, true},
		{"a larger one", []int{maxPacked + 4096}, func(n int) *blockdev.Buf { return text(n, 5) }, false},
		{"noise", []int{4096, 1 << 20}, noise, false},
		{"noise and text", []int{64 << 10, 64 << 10}, func(n int) *blockdev.Buf { return text(n, 6) }, true},
		{"little", []int{64}, func(n int) *blockdev.Buf { return text(n, 7) }, false},
	} {
		line := compressing(shape.On)
		s := dialOn(t, addr, line)
		var frames []wire.Frame
		var want []byte
		off := int64(0)
		for i, n := range c.sizes {
			b := c.make(n)
			if c.name == "noise and text" && i == 0 {
				b = noise(n)
			}
			f := writeFrame(uint64(i+1), b)
			f.Range.Off, off = off, off+int64(n)
			frames, want = append(frames, f), append(want, b.Bytes()...)
		}
		if err := s.Send(frames); err != nil {
			t.Fatal(err)
		}
		r := receive(t, c.name, got)
		if !bytes.Equal(r.data, want) {
			t.Errorf("%s: something else arrived", c.name)
		}
		f := line.Figures()
		if r.packed != c.packed || r.packed != (f.Sent < f.Plain) || f.Plain < uint64(len(want)) || f.Sent > f.Plain {
			t.Errorf("%s: compressed %t, figures %+v", c.name, r.packed, f)
		}
		if s.packer.out != nil {
			t.Errorf("%s: its memory is kept", c.name)
		}
		s.Close()
	}
}

func TestPeerOfAnOlderVersionIsSentNothingCompressed(t *testing.T) {
	packed := make(chan bool, 1)
	addr := serve(t, func(_ context.Context, s *Session) error {
		if err := s.Reply(wire.HelloReply{Node: "beta", VersionMin: wire.VersionMin, VersionMax: wire.VersionPacked - 1}); err != nil {
			return err
		}
		b, err := s.Recv()
		if err != nil {
			return err
		}
		packed <- b.Packed
		b.Free()
		return nil
	})
	s := dialOn(t, addr, compressing(shape.On))
	if err := s.Send([]wire.Frame{writeFrame(1, text(1<<20, 1))}); err != nil {
		t.Fatal(err)
	}
	if receive(t, "the message", packed) {
		t.Error("it was compressed")
	}
}

// packedMessage is one write of n bytes, as it is, whose compressed payload is block.
func packedMessage(t *testing.T, s *Sender, data, block []byte) []byte {
	t.Helper()
	buf := blockdev.NewBuf(len(data))
	copy(buf.Bytes(), data)
	f := wire.Frame{Kind: wire.Write, Seq: 1, Range: blockdev.Range{Len: int64(len(data))}, Sum: crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)), Buf: buf}
	head, err := wire.AppendBatch(make([]byte, prefixSize), wire.Batch{Epoch: s.hello.Epoch, Stream: s.hello.Stream, Version: s.version, Frames: []wire.Frame{f}}, wire.NoSize)
	if err != nil {
		t.Fatal(err)
	}
	wire.Pack(head[prefixSize:])
	putPrefix(head, len(head)-prefixSize, len(block))
	return append(head, block...)
}

// R28, R21: a block that comes to more or less than the frames demand, or to nothing, ends the stream before anything of it is
// written; one that was changed on the way does, or fails its checksum.
func TestCompressedBlockThatIsWrongIsRefused(t *testing.T) {
	ended := make(chan error, 1)
	addr := serve(t, func(_ context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		b, err := s.Recv()
		if err == nil {
			err = b.Frames[0].Verify()
			b.Free()
		}
		ended <- err
		return err
	})
	data := text(64<<10, 1).Bytes()
	good := s2.Encode(nil, data)
	try := func(name string, block []byte) error {
		t.Helper()
		s := dial(t, addr)
		defer s.Close()
		if _, err := s.conn.Write(packedMessage(t, s, data, block)); err != nil {
			t.Fatal(err)
		}
		return receive(t, name, ended)
	}
	if err := try("as it was", good); err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string][]byte{
		"a bomb":          s2.Encode(nil, make([]byte, 1<<30)),
		"one byte more":   s2.Encode(nil, append(bytes.Clone(data), 0)),
		"one byte less":   s2.Encode(nil, data[1:]),
		"cut off":         good[:len(good)-1],
		"no block at all": bytes.Repeat([]byte{0xff}, 100),
		"length alone":    good[:3],
	} {
		if err := try(name, block); !errors.Is(err, ErrProtocol) || !errors.Is(err, wire.ErrChecksum) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for bit := range 8 * len(good) {
		block := bytes.Clone(good)
		block[bit/8] ^= 1 << (bit % 8)
		if plain, err := s2.Decode(nil, block); err == nil && bytes.Equal(plain, data) {
			continue // it says the same in other words
		}
		if err := try("a flipped bit", block); !errors.Is(err, wire.ErrChecksum) {
			t.Fatalf("with bit %d flipped: %v", bit, err)
		}
	}
}

// A line that is limited is worth compressing for, as long as the data can be.
func TestCompressionBeginsByItselfOnALimitedLine(t *testing.T) {
	got := make(chan arrived, 1)
	addr := serve(t, collect(got))
	for _, c := range []struct {
		name string
		make *blockdev.Buf
		want bool
	}{{"text", text(256<<10, 1), true}, {"noise", noise(256 << 10), false}} {
		line := NewLine()
		line.Set(shape.Settings{Rate: 50 << 20, Compress: shape.Auto}, 0)
		s := dialOn(t, addr, line)
		packed := false
		for seq := range uint64(32) {
			f := writeFrame(seq+1, c.make)
			f.Range.Off = 0
			if err := s.Send([]wire.Frame{f}); err != nil {
				t.Fatal(err)
			}
			packed = receive(t, "a message", got).packed
		}
		if packed != c.want || s.packer.on.Load() != c.want {
			t.Errorf("%s: compressed %t", c.name, packed)
		}
		line.Set(shape.Settings{}, 0)
		f := writeFrame(33, c.make)
		f.Range.Off = 0
		if err := s.Send([]wire.Frame{f}); err != nil {
			t.Fatal(err)
		}
		if receive(t, "a message", got).packed {
			t.Errorf("%s: compressed although it is off", c.name)
		}
	}
}

// What a message costs on a line: without settings nothing that can be measured beside no line at all (BenchmarkRoundTrip); with
// compression some 1 to 2 ns a byte on either side. No allocation in any case.
func BenchmarkLine(b *testing.B) {
	for _, c := range []struct {
		name string
		line *Line
		buf  *blockdev.Buf
	}{
		{"none", nil, text(64<<10, 1)}, {"unset", NewLine(), text(64<<10, 1)}, {"auto", compressing(shape.Auto), text(64<<10, 1)},
		{"on", compressing(shape.On), text(64<<10, 1)}, {"on-noise", compressing(shape.On), noise(64 << 10)},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := dialOn(b, serve(b, boxedStandby), c.line)
			roundTrips(b, s, c.buf, 8)
		})
	}
}
