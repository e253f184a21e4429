package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hacluster/blockdev"
)

var update = flag.Bool("update", false, "write the golden files anew: only for a new protocol version")

func sampleHello() Hello {
	return Hello{
		VersionMin: VersionMin, VersionMax: Version,
		Cluster: ID{1, 2, 3, 15: 0xff}, Volume: ID{4, 5, 6, 15: 0xfe}, VolumeName: "pgdata",
		Size: 20 << 30, BlockSize: blockdev.BlockSize, Generation: 0, Epoch: 7,
		Primary: "alpha", Process: 41, Stream: 3, Target: "beta",
	}
}

func sampleReply() HelloReply {
	return HelloReply{
		VersionMin: VersionMin, VersionMax: Version, Code: RefusedOlderEpoch, Text: "the volume is in epoch 8",
		Node: "beta", Boot: ID{9, 8, 7, 15: 1}, Attachment: "8:16/ino 12", Process: 12,
		Generation: 0, Epoch: 8, Stream: 3, LastSeq: 4711, Flags: ReplicaInconsistent | ReplicaFresh, Promised: 12, Clearing: 11,
	}
}

func buf(data []byte) *blockdev.Buf {
	b := blockdev.NewBuf(len(data))
	copy(b.Bytes(), data)
	return b
}

func write(seq uint64, off int64, data []byte) Frame {
	return Frame{Kind: Write, Seq: seq, Range: blockdev.Range{Off: off, Len: int64(len(data))}, Sum: Sum([][]byte{data}), Buf: buf(data)}
}

func promise(n uint64, payload []byte) Frame {
	return Frame{Kind: Promise, ID: n, Range: blockdev.Range{Len: int64(len(payload))}, Sum: Sum([][]byte{payload}), Buf: buf(payload)}
}

func sampleBatch() Batch {
	a, c := write(10, 4096, []byte("first payload")), write(12, 0, []byte("second"))
	a.Flags, c.Flags = FUA, Resync
	return Batch{Epoch: 7, Stream: 3, Version: Version, Frames: []Frame{
		{Kind: Begin, Flags: Resync, ID: 10},
		a,
		{Kind: Zero, Flags: FUA | Unmap, Seq: 11, Range: blockdev.Range{Off: 8192, Len: 5 << 30}},
		{Kind: Ping, ID: 77},
		c,
		{Kind: Flush, Seq: 13},
		{Kind: Close, Seq: 14},
		{Kind: Digest, ID: 78, Range: blockdev.Range{Off: 4096, Len: 8192}},
		{Kind: Marks, ID: 1 << 20},
		promise(12, AppendClearing(nil, Clearing{Set: 7, Cover: 1, Regions: []byte("regions")})),
		{Kind: Settled, ID: 12},
	}}
}

func sampleReplies() Replies {
	sum := sha256.Sum256([]byte("x"))
	return Replies{Epoch: 7, Stream: 3, Version: Version, Items: []Reply{
		{Kind: Ack, Seq: 14},
		{Kind: Pong, ID: 77},
		{Kind: DigestReply, ID: 78, Range: blockdev.Range{Off: 4096, Len: 8192}, Digests: sum[:]},
		{Kind: DigestReply, ID: 79, Range: blockdev.Range{Off: 0, Len: 4096}, Code: ReadFailed, Text: "input/output error"},
		{Kind: MarksReply, ID: 1 << 20, Map: []byte("a piece")},
		{Kind: MarksReply, Code: NoMap, Text: "it was restored"},
		{Kind: Promised, ID: 12},
		{Kind: Nack, Seq: 15, Code: BadChecksum, Text: "payload of frame 15"},
	}}
}

func sampleRead() Batch {
	return Batch{Epoch: 7, Stream: 3, Version: Version, Frames: []Frame{{Kind: Read, ID: 15, Range: blockdev.Range{Off: 4096, Len: 512}}}}
}

func sampleSums() Batch {
	return Batch{Epoch: 7, Stream: 3, Version: Version, Frames: []Frame{{Kind: Digest, Flags: Sums, ID: 80, Range: blockdev.Range{Off: 4096, Len: 8192}}}}
}

func sampleAhead() Batch {
	return Batch{Epoch: 7, Stream: 3, Version: Version, Frames: []Frame{
		{Kind: Digest, Flags: Ahead, ID: 84, Range: blockdev.Range{Off: 4096, Len: 8192}},
		{Kind: Digest, Flags: Sums | Ahead, ID: 85, Range: blockdev.Range{Off: 12288, Len: 4096}}}}
}

func sampleAsked() Batch {
	return Batch{Epoch: 7, Stream: 3, Version: Version, Frames: []Frame{{Kind: Read, ID: 86 | Asked, Range: blockdev.Range{Off: 4096, Len: 8192}}}}
}

func sampleFence() Batch {
	w := write(81, 4096, []byte("payload"))
	w.Flags = FUA | Fence
	return Batch{Epoch: 7, Stream: 3, Version: Version, Frames: []Frame{w, {Kind: Zero, Flags: FUA | Fence, Seq: 82, Range: blockdev.Range{Len: 4096}}, {Kind: Flush, Flags: Fence, Seq: 83}}}
}

func samplePlace() Batch {
	w := write(81, 4096, []byte("payload"))
	w.ID = 70
	return Batch{Epoch: 7, Stream: 3, Version: Version, Frames: []Frame{w, {Kind: Flush, Seq: 82, ID: 71}, {Kind: Close, Seq: 83, ID: 71}}}
}

func sampleData() Replies {
	return Replies{Epoch: 7, Stream: 3, Version: Version, Items: []Reply{
		{Kind: ReadReply, ID: 15, Range: blockdev.Range{Off: 4096, Len: 7}, Data: []byte("content")},
		{Kind: ReadReply, ID: 16, Range: blockdev.Range{Off: 4096, Len: 512}, Code: ReadFailed, Text: "input/output error"},
	}}
}

func sampleReceived() Replies {
	return Replies{Epoch: 7, Stream: 3, Items: []Reply{{Kind: Ack, Seq: 14}, {Kind: Received, Seq: 15}}}
}

// encode returns a batch as it travels: the head with the payloads behind it.
func encode(t testing.TB, b Batch, size int64) []byte {
	t.Helper()
	msg, err := AppendBatch(nil, b, size)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range b.Frames {
		if f.Buf != nil {
			msg = append(msg, f.Buf.Bytes()...)
		}
	}
	return msg
}

// cut splits a message as a transport might: at random places, with empty pieces.
func cut(rnd *rand.Rand, msg []byte) [][]byte {
	var out [][]byte
	for len(msg) > 0 {
		n := min(rnd.IntN(40), len(msg))
		out = append(out, msg[:n:n])
		msg = msg[n:]
	}
	return append(out, nil)
}

// received makes of a sent batch what the receiver should see.
func received(b Batch) Batch {
	frames := make([]Frame, len(b.Frames))
	for i, f := range b.Frames {
		if f.Buf != nil {
			f.Payload = [][]byte{bytes.Clone(f.Buf.Bytes())}
		}
		f.Buf = nil
		frames[i] = f
	}
	return Batch{Epoch: b.Epoch, Stream: b.Stream, Version: b.Version, Frames: frames}
}

// flat joins the payload segments of what was received.
func flat(b Batch) Batch {
	frames := make([]Frame, len(b.Frames))
	for i, f := range b.Frames {
		if f.Payload != nil {
			f.Payload = [][]byte{bytes.Join(f.Payload, nil)}
		}
		frames[i] = f
	}
	return Batch{Epoch: b.Epoch, Stream: b.Stream, Version: b.Version, Frames: frames}
}

func sameBatch(t testing.TB, got, want Batch) {
	t.Helper()
	if d := cmp.Diff(flat(want), flat(got), cmp.AllowUnexported(Batch{})); d != "" {
		t.Errorf("batch differs (-want +got):\n%s", d)
	}
}

// The bytes of every message are pinned: a change of them is a new protocol version.
func TestGoldenBytes(t *testing.T) {
	hello, err1 := AppendHello(nil, sampleHello())
	reply, err2 := AppendHelloReply(nil, sampleReply())
	replies, err3 := AppendReplies(nil, sampleReplies())
	data, err4 := AppendReplies(nil, sampleData())
	received, err5 := AppendReplies(nil, sampleReceived())
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		t.Fatal(err)
	}
	for name, msg := range map[string][]byte{
		"hello": hello, "helloreply": reply, "batch": encode(t, sampleBatch(), 20<<30), "replies": replies,
		"read": encode(t, sampleRead(), 20<<30), "data": data, "received": received, "sums": encode(t, sampleSums(), 20<<30), "fence": encode(t, sampleFence(), 20<<30),
		"place": encode(t, samplePlace(), 20<<30),
		"ahead": encode(t, sampleAhead(), 20<<30),
		"asked": encode(t, sampleAsked(), 20<<30),
	} {
		golden(t, name, Version, msg)
	}
}

// What a stream of an older version carries is what it was when that was the newest.
func TestGoldenBytesOfOlderVersions(t *testing.T) {
	for v := VersionMin; v < Version; v++ {
		batch, read, replies, data := sampleBatch(), sampleRead(), sampleReplies(), sampleData()
		batch.Version, read.Version, replies.Version, data.Version = uint16(v), uint16(v), uint16(v), uint16(v)
		r, err1 := AppendReplies(nil, replies)
		d, err2 := AppendReplies(nil, data)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		for name, msg := range map[string][]byte{"batch": encode(t, batch, 20<<30), "read": encode(t, read, 20<<30), "replies": r, "data": d} {
			golden(t, name, v, msg)
		}
		var got Batch
		if err := got.Decode([][]byte{encode(t, batch, 20<<30)}, 20<<30); err != nil {
			t.Error(err)
		}
		sameBatch(t, got, received(batch))
	}
	sums, received := sampleSums(), sampleReceived()
	sums.Version, received.Version = 4, 4
	r, err := AppendReplies(nil, received)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "sums", 4, encode(t, sums, 20<<30))
	golden(t, "received", 4, r)
	fence := sampleFence()
	fence.Version = 5
	golden(t, "fence", 5, encode(t, fence, 20<<30))
	place := samplePlace()
	place.Version = 6
	golden(t, "place", 6, encode(t, place, 20<<30))
}

// What an older version does not know is neither sent in it nor taken.
func TestOlderVersionsLackWhatCameLater(t *testing.T) {
	for what, c := range map[string]struct {
		batch Batch
		since int
	}{"a request for sums": {sampleSums(), VersionSums}, "a fence": {sampleFence(), VersionFence}, "a place": {samplePlace(), VersionPlace}, "what follows": {sampleAhead(), VersionAhead}, "a read of a client": {sampleAsked(), VersionAsked}} {
		for v := VersionMin; v < c.since; v++ {
			old := c.batch
			old.Version = uint16(v)
			if _, err := AppendBatch(nil, old, 20<<30); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s is sent in version %d: %v", what, v, err)
			}
			head := appendHeader(nil, header{version: uint16(v), kind: KindBatch, epoch: 7, stream: 3, count: uint32(len(old.Frames))})
			var got Batch
			if err := got.Decode([][]byte{head, encode(t, c.batch, 20<<30)[HeaderSize:]}, 20<<30); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s is taken in version %d: %v", what, v, err)
			}
		}
	}
	for _, v := range []uint16{VersionMin - 1, Version + 1} {
		head := appendHeader(nil, header{version: v, kind: KindBatch, epoch: 7, stream: 3, count: 1})
		var got Batch
		if err := got.Decode([][]byte{head, encode(t, sampleRead(), 20<<30)[HeaderSize:]}, 20<<30); !errors.Is(err, ErrVersion) {
			t.Errorf("a message of version %d: %v", v, err)
		}
	}
}

func golden(t *testing.T, name string, version int, msg []byte) {
	t.Helper()
	file := filepath.Join("testdata", fmt.Sprintf("%s.v%d.hex", name, version))
	dump := hex.Dump(msg)
	if *update {
		if err := os.WriteFile(file, []byte(dump), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), dump); d != "" {
		t.Errorf("%s changed (-golden +now):\n%s", file, d)
	}
}

func TestSamplesComeBackWhereverTheyAreCut(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		msg, _ := AppendHello(nil, sampleHello())
		hello, err := DecodeHello(cut(rnd, msg))
		if d := cmp.Diff(sampleHello(), hello); err != nil || d != "" {
			t.Fatalf("seed %d: hello: %v %s", seed, err, d)
		}
		msg, _ = AppendHelloReply(nil, sampleReply())
		reply, err := DecodeHelloReply(cut(rnd, msg))
		if d := cmp.Diff(sampleReply(), reply); err != nil || d != "" {
			t.Fatalf("seed %d: hello reply: %v %s", seed, err, d)
		}
		msg, _ = AppendReplies(nil, sampleReplies())
		var replies Replies
		if err := replies.Decode(cut(rnd, msg)); err != nil || !cmp.Equal(sampleReplies(), replies) {
			t.Fatalf("seed %d: replies: %v %s", seed, err, cmp.Diff(sampleReplies(), replies))
		}
		var b Batch
		if err := b.Decode(cut(rnd, encode(t, sampleBatch(), 20<<30)), 20<<30); err != nil {
			t.Fatalf("seed %d: batch: %v", seed, err)
		}
		sameBatch(t, b, received(sampleBatch()))
	}
}

// One Batch decodes message after message; nothing of an earlier one may shine through.
func TestRandomBatchesRoundTripThroughOneBatch(t *testing.T) {
	var b Batch
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		want := randomBatch(rnd)
		if err := b.Decode(cut(rnd, encode(t, want, NoSize)), NoSize); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		sameBatch(t, b, received(want))
		for i := range b.Frames {
			if err := b.Frames[i].Verify(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func randomBatch(rnd *rand.Rand) Batch {
	b := Batch{Epoch: rnd.Uint64(), Stream: rnd.Uint64(), Version: VersionMin + uint16(rnd.IntN(Version-VersionMin+1))}
	seq := rnd.Uint64N(1<<40) + 1
	for range 1 + rnd.IntN(20) {
		f := Frame{Kind: Kind(1 + rnd.IntN(int(Begin)))}
		f.Flags = Flags(rnd.IntN(8)) & allowedFlags[f.Kind]
		switch f.Kind {
		case Write:
			data := make([]byte, 1+rnd.IntN(200))
			for i := range data {
				data[i] = byte(rnd.Uint32())
			}
			w := write(1, rnd.Int64N(1<<50), data)
			f.Range, f.Sum, f.Buf = w.Range, w.Sum, w.Buf
		case Zero:
			f.Range = blockdev.Range{Off: rnd.Int64N(1 << 62), Len: 1 + rnd.Int64N(1<<62)}
		case Digest:
			f.Range = blockdev.Range{Off: rnd.Int64N(1<<40) * 4096, Len: (1 + rnd.Int64N(4096)) * 4096}
		}
		if f.Kind.Sequenced() {
			f.Seq = seq
			seq++
			if b.Version >= VersionPlace && f.Flags&Resync == 0 {
				f.ID = rnd.Uint64N(3) * f.Seq
			}
		} else {
			f.ID = 1 + rnd.Uint64N(1<<60)
		}
		b.Frames = append(b.Frames, f)
	}
	return b
}

func TestPayloadIsHandedOnWithoutACopy(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1024)
	msg := encode(t, Batch{Frames: []Frame{write(1, 0, data)}}, NoSize)
	parts := [][]byte{msg[:5000], msg[5000:9000], msg[9000:]}
	var b Batch
	if err := b.Decode(parts, NoSize); err != nil {
		t.Fatal(err)
	}
	p := b.Frames[0].Payload
	if len(p) != 3 || &p[1][0] != &msg[5000] || &p[2][0] != &msg[9000] {
		t.Fatalf("payload came in %d segments that are not those of the message", len(p))
	}
	if allocs := testing.AllocsPerRun(100, func() {
		if err := b.Decode(parts, NoSize); err != nil {
			t.Fatal(err)
		}
	}); allocs != 0 {
		t.Errorf("decoding again allocates %v times, want 0", allocs)
	}
}

func TestLargestWriteGoesAlone(t *testing.T) {
	f := write(1, 0, make([]byte, MaxWrite))
	msg := encode(t, Batch{Frames: []Frame{f}}, NoSize)
	var b Batch
	if err := b.Decode([][]byte{msg}, NoSize); err != nil {
		t.Fatal(err)
	}
	if len(msg) > MaxMessage {
		t.Errorf("message of %d bytes, the limit says %d", len(msg), MaxMessage)
	}
	two := Batch{Frames: []Frame{f, {Kind: Flush, Seq: 2}}}
	if _, err := AppendBatch(nil, two, NoSize); !errors.Is(err, ErrLimit) {
		t.Errorf("largest write in company: %v, want %v", err, ErrLimit)
	}
}

// faults.md G49: a changed payload is found by the receiver, and only that one.
func TestG49ChangedPayloadFailsVerify(t *testing.T) {
	msg := encode(t, Batch{Frames: []Frame{write(5, 0, []byte("good")), write(6, 0, []byte("evil"))}}, NoSize)
	msg[len(msg)-1] ^= 1
	var b Batch
	if err := b.Decode([][]byte{msg[:100], msg[100:]}, NoSize); err != nil {
		t.Fatal(err)
	}
	if err := b.Frames[0].Verify(); err != nil {
		t.Errorf("the good one: %v", err)
	}
	var sum *ChecksumError
	for name, err := range map[string]error{"verify": b.Frames[1].Verify(), "copy": b.Frames[1].CopyTo(make([]byte, 4))} {
		if !errors.As(err, &sum) || sum.Seq != 6 || !errors.Is(err, ErrChecksum) {
			t.Errorf("%s: the changed one: %v", name, err)
		}
	}
	if p := make([]byte, 4); b.Frames[0].CopyTo(p) != nil || string(p) != "good" {
		t.Errorf("copied %q", p)
	}
}

// Expected: a few hundred nanoseconds for each message and nothing allocated; the payload is not touched.
func BenchmarkDecodeBatch(b *testing.B) {
	var batch Batch
	for i := range 32 {
		batch.Frames = append(batch.Frames, write(uint64(i+1), int64(i)*4096, make([]byte, 4096)))
	}
	msg := encode(b, batch, NoSize)
	var segs [][]byte
	for p := msg; len(p) > 0; {
		n := min(16<<10, len(p))
		segs, p = append(segs, p[:n:n]), p[n:]
	}
	var got Batch
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		if err := got.Decode(segs, NoSize); err != nil {
			b.Fatal(err)
		}
	}
}
