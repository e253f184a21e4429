package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
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
		Generation: 0, Epoch: 8, Stream: 3, LastSeq: 4711, Flags: ReplicaInconsistent | ReplicaFresh,
	}
}

func buf(data []byte) *blockdev.Buf {
	b := blockdev.NewBuf(len(data))
	copy(b.Bytes(), data)
	return b
}

func write(seq uint64, off int64, data []byte) Frame {
	return Frame{Kind: Write, Seq: seq, Stable: seq - 1, Range: blockdev.Range{Off: off, Len: int64(len(data))}, Sum: Sum([][]byte{data}), Buf: buf(data)}
}

func sampleBatch() Batch {
	a, c := write(10, 4096, []byte("first payload")), write(12, 0, []byte("second"))
	a.Flags, c.Flags = FUA, Resync
	return Batch{Epoch: 7, Stream: 3, Frames: []Frame{
		{Kind: Begin, Flags: Resync, ID: 10, Stable: 9},
		a,
		{Kind: Zero, Flags: FUA | Unmap, Seq: 11, Stable: 9, Range: blockdev.Range{Off: 8192, Len: 5 << 30}},
		{Kind: Ping, ID: 77, Stable: 9},
		c,
		{Kind: Flush, Seq: 13, Stable: 9},
		{Kind: Close, Seq: 14, Stable: 9},
		{Kind: Digest, ID: 78, Stable: 9, Range: blockdev.Range{Off: 4096, Len: 8192}},
	}}
}

func sampleReplies() Replies {
	sum := sha256.Sum256([]byte("x"))
	return Replies{Epoch: 7, Stream: 3, Items: []Reply{
		{Kind: Ack, Seq: 14},
		{Kind: Pong, ID: 77},
		{Kind: DigestReply, ID: 78, Range: blockdev.Range{Off: 4096, Len: 8192}, Digests: sum[:]},
		{Kind: DigestReply, ID: 79, Range: blockdev.Range{Off: 0, Len: 4096}, Code: ReadFailed, Text: "input/output error"},
		{Kind: Nack, Seq: 15, Code: BadChecksum, Text: "payload of frame 15"},
	}}
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
	return Batch{Epoch: b.Epoch, Stream: b.Stream, Frames: frames}
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
	return Batch{Epoch: b.Epoch, Stream: b.Stream, Frames: frames}
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
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	for name, msg := range map[string][]byte{
		"hello": hello, "helloreply": reply, "batch": encode(t, sampleBatch(), 20<<30), "replies": replies,
	} {
		golden(t, name, msg)
	}
}

func golden(t *testing.T, name string, msg []byte) {
	t.Helper()
	file := filepath.Join("testdata", fmt.Sprintf("%s.v%d.hex", name, Version))
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
	b := Batch{Epoch: rnd.Uint64(), Stream: rnd.Uint64()}
	seq := rnd.Uint64N(1<<40) + 1
	for range 1 + rnd.IntN(20) {
		f := Frame{Kind: Kind(1 + rnd.IntN(int(Begin))), Stable: rnd.Uint64()}
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

// Any single changed byte of a head is an error; none is taken for another message.
func TestEveryFlippedHeadByteIsRefused(t *testing.T) {
	hello, _ := AppendHello(nil, sampleHello())
	reply, _ := AppendHelloReply(nil, sampleReply())
	replies, _ := AppendReplies(nil, sampleReplies())
	batch := encode(t, sampleBatch(), 20<<30)
	head := HeaderSize + len(sampleBatch().Frames)*FrameSize
	for name, c := range map[string]struct {
		msg    []byte
		heads  int
		decode func([][]byte) error
	}{
		"hello":       {hello, len(hello), func(s [][]byte) error { _, err := DecodeHello(s); return err }},
		"hello reply": {reply, len(reply), func(s [][]byte) error { _, err := DecodeHelloReply(s); return err }},
		"replies":     {replies, len(replies), new(Replies).Decode},
		"batch":       {batch, head, func(s [][]byte) error { return new(Batch).Decode(s, 20<<30) }},
	} {
		for i := range c.heads {
			bad := bytes.Clone(c.msg)
			bad[i] ^= 0x41
			if err := c.decode([][]byte{bad}); err == nil {
				t.Errorf("%s: byte %d changed and nobody noticed", name, i)
			}
		}
		for n := range c.msg {
			if err := c.decode([][]byte{c.msg[:n]}); err == nil {
				t.Errorf("%s: the first %d of %d bytes are accepted", name, n, len(c.msg))
			}
		}
		if err := c.decode([][]byte{c.msg, {0}}); err == nil {
			t.Errorf("%s: a byte behind it is accepted", name)
		}
	}
}

// Each frame that must not be: refused by whoever sends it and by whoever receives it.
func TestFramesBeyondTheRulesAreRefused(t *testing.T) {
	const size = 1 << 20
	rng := func(off, n int64) blockdev.Range { return blockdev.Range{Off: off, Len: n} }
	for name, c := range map[string]struct {
		frame Frame
		want  error
	}{
		"N18 write past the end":            {Frame{Kind: Write, Seq: 1, Range: rng(size-4096, 8192)}, ErrLimit},
		"N18 write at the end":              {Frame{Kind: Write, Seq: 1, Range: rng(size, 1)}, ErrLimit},
		"N18 offset and length wrap":        {Frame{Kind: Zero, Seq: 1, Range: rng(math.MaxInt64-1, 4096)}, ErrLimit},
		"negative offset":                   {Frame{Kind: Zero, Seq: 1, Range: rng(-4096, 4096)}, ErrLimit},
		"negative length":                   {Frame{Kind: Zero, Seq: 1, Range: rng(4096, -4096)}, ErrLimit},
		"zero larger than the volume":       {Frame{Kind: Zero, Seq: 1, Range: rng(0, size+1)}, ErrLimit},
		"empty write":                       {Frame{Kind: Write, Seq: 1, Range: rng(0, 0)}, ErrMalformed},
		"G47 write over the largest":        {Frame{Kind: Write, Seq: 1, Range: rng(0, MaxWrite+1)}, ErrLimit},
		"flush with a range":                {Frame{Kind: Flush, Seq: 1, Range: rng(0, 4096)}, ErrMalformed},
		"unknown kind":                      {Frame{Kind: 99, Seq: 1}, ErrMalformed},
		"kind zero":                         {Frame{Seq: 1}, ErrMalformed},
		"write with unmap":                  {Frame{Kind: Write, Flags: Unmap, Seq: 1, Range: rng(0, 1)}, ErrMalformed},
		"unknown flag":                      {Frame{Kind: Write, Flags: 0x80, Seq: 1, Range: rng(0, 1)}, ErrMalformed},
		"write without number":              {Frame{Kind: Write, Range: rng(0, 1)}, ErrMalformed},
		"write with an id":                  {Frame{Kind: Write, Seq: 1, ID: 1, Range: rng(0, 1)}, ErrMalformed},
		"begin at zero":                     {Frame{Kind: Begin}, ErrMalformed},
		"begin with a range":                {Frame{Kind: Begin, ID: 1, Range: rng(0, 4096)}, ErrMalformed},
		"ping with a number":                {Frame{Kind: Ping, Seq: 1}, ErrMalformed},
		"zero with a sum":                   {Frame{Kind: Zero, Seq: 1, Sum: 1, Range: rng(0, 1)}, ErrMalformed},
		"digest of half a block":            {Frame{Kind: Digest, Range: rng(0, 2048)}, ErrMalformed},
		"digest not at a block":             {Frame{Kind: Digest, Range: rng(512, 4096)}, ErrMalformed},
		"digest of too much":                {Frame{Kind: Digest, Range: rng(0, MaxDigestRange+4096)}, ErrLimit},
		"digest past the end of the volume": {Frame{Kind: Digest, Range: rng(size, 4096)}, ErrLimit},
	} {
		t.Run(name, func(t *testing.T) {
			limit := int64(size)
			if strings.Contains(name, "largest") || strings.Contains(name, "too much") {
				limit = NoSize
			}
			if _, err := AppendBatch(nil, Batch{Frames: []Frame{c.frame}}, limit); !errors.Is(err, c.want) {
				t.Errorf("sending: %v, want %v", err, c.want)
			}
			err := new(Batch).Decode([][]byte{raw(Batch{}, c.frame)}, limit)
			var fe *FrameError
			if !errors.Is(err, c.want) || !errors.As(err, &fe) {
				t.Errorf("receiving: %v, want a %T with %v", err, fe, c.want)
			}
		})
	}
}

// raw encodes frames without the checks that AppendBatch makes.
func raw(b Batch, frames ...Frame) []byte {
	msg := appendHeader(nil, header{version: Version, kind: KindBatch, epoch: b.Epoch, stream: b.Stream, count: uint32(len(frames))})
	for i := range frames {
		msg = appendFrame(msg, &frames[i])
	}
	return msg
}

func TestLastShortBlockMayBeDigested(t *testing.T) {
	const size = 3*4096 + 100
	f := Frame{Kind: Digest, ID: 1, Range: blockdev.Range{Off: 8192, Len: 4196}}
	if err := new(Batch).Decode([][]byte{raw(Batch{}, f)}, size); err != nil {
		t.Error(err)
	}
	if n := Digests(f.Range); n != 2 {
		t.Errorf("%d digests, want 2", n)
	}
}

// faults.md G46: a gap is refused within a message and from one message to the next; so is a repetition.
func TestG46GapInSequenceIsRefused(t *testing.T) {
	flush := func(seqs ...uint64) (fs []Frame) {
		for _, s := range seqs {
			fs = append(fs, Frame{Kind: Flush, Seq: s})
		}
		return fs
	}
	for name, c := range map[string]struct {
		first, second []Frame
		want          *OrderError
	}{
		"in order":                  {flush(4, 5), flush(6), nil},
		"gap in a message":          {flush(4, 6), nil, &OrderError{Want: 5, Got: 6}},
		"repetition in a message":   {flush(4, 4), nil, &OrderError{Want: 5, Got: 4}},
		"gap between messages":      {flush(4), flush(6), &OrderError{Want: 5, Got: 6}},
		"message again":             {flush(4), flush(4), &OrderError{Want: 5, Got: 4}},
		"unsequenced frames beside": {append(flush(4), Frame{Kind: Ping}), append([]Frame{{Kind: Ping}}, flush(5)...), nil},
	} {
		var o Order
		err := errors.Join(o.Check(c.first), o.Check(c.second))
		var got *OrderError
		if errors.As(err, &got) != (c.want != nil) || (got != nil && *got != *c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	err := new(Batch).Decode([][]byte{raw(Batch{}, flush(4, 6)...)}, NoSize)
	if !errors.Is(err, ErrOrder) {
		t.Errorf("decoding a gap: %v", err)
	}
	o := Order{last: 4}
	if o.Check(flush(5, 6, 8)) == nil || o.Last() != 4 {
		t.Errorf("after a refused message the last frame is %d, want 4", o.Last())
	}
}

// faults.md G47: what a message claims to hold is held against limits before anything is allocated for it.
func TestG47ClaimsBeyondLimitsAllocateNothing(t *testing.T) {
	head := func(kind MessageKind, count uint32) [][]byte {
		return [][]byte{appendHeader(nil, header{version: Version, kind: kind, count: count})}
	}
	manyBig := make([]Frame, 3)
	for i := range manyBig {
		manyBig[i] = Frame{Kind: Write, Seq: uint64(i + 1), Range: blockdev.Range{Len: 2 << 20}}
	}
	for name, c := range map[string]struct {
		decode func([][]byte) error
		msg    [][]byte
	}{
		"frames":   {func(s [][]byte) error { return new(Batch).Decode(s, NoSize) }, head(KindBatch, math.MaxUint32)},
		"replies":  {new(Replies).Decode, head(KindReplies, math.MaxUint32)},
		"greeting": {func(s [][]byte) error { _, err := DecodeHello(s); return err }, head(KindHello, math.MaxUint32)},
		"payload":  {func(s [][]byte) error { return new(Batch).Decode(s, NoSize) }, [][]byte{raw(Batch{}, manyBig...)}},
	} {
		if err := c.decode(c.msg); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: %v, want %v", name, err, ErrLimit)
		}
	}
	big := head(KindReplies, 1)
	if err := new(Replies).Decode(append(big, make([]byte, ReplySize+MaxBlobs+1))); !errors.Is(err, ErrLimit) {
		t.Errorf("blobs: %v, want %v", err, ErrLimit)
	}
}

// faults.md G54: another version is refused by number, with both sides' numbers; a later one that still speaks ours
// may have more fields.
func TestG54VersionsAreNegotiatedOrRefused(t *testing.T) {
	versions := func(lo, hi uint16, extra int) [][]byte {
		h := sampleHello()
		h.VersionMin, h.VersionMax = lo, hi
		msg, err := AppendHello(nil, h)
		if err != nil {
			t.Fatal(err)
		}
		body := append(msg[HeaderSize:len(msg)-4:len(msg)-4], make([]byte, extra+4)...)
		head := appendHeader(nil, header{version: hi, kind: KindHello, epoch: h.Epoch, stream: h.Stream, count: uint32(len(body))})
		return [][]byte{head, seal(body)}
	}
	var ve *VersionError
	if _, err := DecodeHello(versions(Version+1, Version+3, 40)); !errors.As(err, &ve) || ve.Min != Version+1 || ve.Max != Version+3 {
		t.Errorf("newer only: %v", err)
	}
	if h, err := DecodeHello(versions(Version, Version+1, 40)); err != nil || h.VolumeName != "pgdata" {
		t.Errorf("newer that speaks ours, with more fields: %v", err)
	}
	if _, err := DecodeHello(versions(Version, Version, 40)); !errors.Is(err, ErrMalformed) {
		t.Errorf("our version with fields that it does not have: %v", err)
	}
	two := versions(Version, Version, 0)
	two[0] = appendHeader(nil, header{version: Version + 1, kind: KindHello, count: uint32(len(two[1]))})
	if _, err := DecodeHello(two); !errors.Is(err, ErrMalformed) {
		t.Errorf("header and body that name different versions: %v", err)
	}
	msg := raw(Batch{}, Frame{Kind: Flush, Seq: 1})
	other := appendHeader(nil, header{version: Version + 1, kind: KindBatch, count: 1})
	if err := new(Batch).Decode([][]byte{other, msg[HeaderSize:]}, NoSize); !errors.Is(err, ErrVersion) {
		t.Errorf("batch of another version: %v", err)
	}
}

func TestGreetingsBeyondTheRulesAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Hello){
		"no version":         func(h *Hello) { h.VersionMin = 0 },
		"versions reversed":  func(h *Hello) { h.VersionMin = 2 },
		"no size":            func(h *Hello) { h.Size = 0 },
		"negative size":      func(h *Hello) { h.Size = -1 },
		"no block size":      func(h *Hello) { h.BlockSize = 0 },
		"no volume":          func(h *Hello) { h.VolumeName = "" },
		"long volume":        func(h *Hello) { h.VolumeName = strings.Repeat("v", MaxVolumeName+1) },
		"newline in a name":  func(h *Hello) { h.Primary = "al\npha" },
		"target not UTF-8":   func(h *Hello) { h.Target = "\xff" },
		"NUL in volume name": func(h *Hello) { h.VolumeName = "a\x00b" },
	} {
		h := sampleHello()
		change(&h)
		if _, err := AppendHello(nil, h); err == nil {
			t.Errorf("hello with %s is sent", name)
		}
	}
	r := sampleReply()
	r.Text = strings.Repeat("ä", MaxText) + "\n"
	msg, err := AppendHelloReply(nil, r)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeHelloReply([][]byte{msg}); err != nil || len(got.Text) > MaxText || !strings.HasPrefix(r.Text, got.Text) {
		t.Errorf("a long text is not cut to its field: %v, %d bytes", err, len(got.Text))
	}
	for name, change := range map[string]func(*HelloReply){
		"unknown code":      func(r *HelloReply) { r.Code = refusals },
		"unknown flag":      func(r *HelloReply) { r.Flags = 0x80 },
		"long attachment":   func(r *HelloReply) { r.Attachment = strings.Repeat("a", MaxAttachment+1) },
		"versions reversed": func(r *HelloReply) { r.VersionMin = 9 },
	} {
		r := sampleReply()
		change(&r)
		if _, err := AppendHelloReply(nil, r); err == nil {
			t.Errorf("hello reply with %s is sent", name)
		}
	}
}

// A greeting that was made outside of this package, with a right checksum, is checked like any other.
func TestForgedGreetingsAreRefused(t *testing.T) {
	good, _ := AppendHello(nil, sampleHello())
	for name, change := range map[string]func(body []byte){
		"name longer than its field": func(b []byte) { b[helloNameLen] = 200 },
		"bytes behind a name":        func(b []byte) { b[helloPrimary+20] = 'x' },
		"reserved bytes":             func(b []byte) { b[helloZero] = 1 },
		"size of zero":               func(b []byte) { clear(b[helloSize : helloSize+8]) },
		"name with a newline":        func(b []byte) { b[helloName] = '\n' },
	} {
		msg := bytes.Clone(good)
		change(msg[HeaderSize:])
		seal(msg[HeaderSize:])
		if h, err := DecodeHello([][]byte{msg}); err == nil || !cmp.Equal(h, Hello{}) {
			t.Errorf("%s: %v, %+v", name, err, h)
		}
	}
}

func TestRepliesBeyondTheRulesAreRefused(t *testing.T) {
	r4k := blockdev.Range{Len: 4096}
	for name, r := range map[string]Reply{
		"unknown kind":             {Kind: 9},
		"ack of nothing":           {Kind: Ack},
		"ack with an id":           {Kind: Ack, Seq: 1, ID: 1},
		"ack with a code":          {Kind: Ack, Seq: 1, Code: WriteFailed},
		"ack with a text":          {Kind: Ack, Seq: 1, Text: "x"},
		"nack without a code":      {Kind: Nack, Seq: 1},
		"nack with a range":        {Kind: Nack, Seq: 1, Code: Stalled, Range: r4k},
		"nack with unknown code":   {Kind: Nack, Seq: 1, Code: codes},
		"pong with a number":       {Kind: Pong, Seq: 1},
		"digests too few":          {Kind: DigestReply, Range: r4k, Digests: make([]byte, 8)},
		"digests too many":         {Kind: DigestReply, Range: r4k, Digests: make([]byte, 32)},
		"digests and an error":     {Kind: DigestReply, Range: r4k, Digests: make([]byte, 16), Code: ReadFailed},
		"digests of nothing":       {Kind: DigestReply},
		"digests beyond the limit": {Kind: DigestReply, Range: blockdev.Range{Len: MaxDigestRange * 2}, Code: ReadFailed},
	} {
		if _, err := AppendReplies(nil, Replies{Items: []Reply{r}}); err == nil {
			t.Errorf("%s is sent", name)
		}
		msg := appendReply(appendHeader(nil, header{version: Version, kind: KindReplies, count: 1}), &r)
		msg = append(append(msg, r.Digests...), r.Text...)
		if err := new(Replies).Decode([][]byte{msg}); err == nil {
			t.Errorf("%s is received", name)
		}
	}
}

// A decoder takes any bytes: it returns an error or a message that encodes to the very same bytes, and says so twice.
func FuzzDecodePrimary(f *testing.F) {
	hello, _ := AppendHello(nil, sampleHello())
	f.Add(hello, int64(20<<30))
	f.Add(encode(f, sampleBatch(), 20<<30), int64(20<<30))
	f.Add(raw(Batch{}, Frame{Kind: Write, Seq: 1, Range: blockdev.Range{Len: 1 << 40}}), int64(NoSize))
	f.Fuzz(func(t *testing.T, msg []byte, size int64) {
		if h, err := DecodeHello(halves(msg)); err == nil && h.VersionMax <= Version {
			again, err := AppendHello(nil, h)
			sameBytes(t, msg, again, err)
		}
		var b Batch
		if b.Decode(halves(fix(msg)), size) != nil {
			return
		}
		payload := 0
		for i := range b.Frames {
			fr := &b.Frames[i]
			if fr.Kind != Flush && fr.Kind != Close && fr.Kind != Ping && fr.Kind != Begin && !fr.Range.Within(size) {
				t.Fatalf("%v is accepted for %d bytes", fr.Range, size)
			}
			payload += total(fr.Payload)
			if fr.Payload != nil {
				fr.Buf = buf(bytes.Join(fr.Payload, nil))
			}
		}
		if payload > len(msg) {
			t.Fatalf("%d payload bytes out of a message of %d", payload, len(msg))
		}
		sameBytes(t, fix(msg), encode(t, b, size), nil)
	})
}

func FuzzDecodeStandby(f *testing.F) {
	reply, _ := AppendHelloReply(nil, sampleReply())
	replies, _ := AppendReplies(nil, sampleReplies())
	f.Add(reply)
	f.Add(replies)
	f.Fuzz(func(t *testing.T, msg []byte) {
		if r, err := DecodeHelloReply(halves(msg)); err == nil && r.VersionMax <= Version {
			again, err := AppendHelloReply(nil, r)
			sameBytes(t, msg, again, err)
		}
		var r Replies
		if r.Decode(halves(fix(msg))) == nil {
			again, err := AppendReplies(nil, r)
			sameBytes(t, fix(msg), again, err)
		}
	})
}

func halves(msg []byte) [][]byte { return [][]byte{msg[:len(msg)/2], msg[len(msg)/2:]} }

// fix gives a mutated message the checksums that it should have, so that fuzzing gets behind them.
func fix(msg []byte) []byte {
	msg = bytes.Clone(msg)
	if len(msg) < HeaderSize {
		return msg
	}
	put := func(b []byte, crc int) {
		sum := Sum([][]byte{b[:crc]})
		b[crc], b[crc+1], b[crc+2], b[crc+3] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
	}
	put(msg, headCRC)
	size, crc := FrameSize, frameCRC
	if MessageKind(msg[headKind]) == KindReplies {
		size, crc = ReplySize, recCRC
	}
	rest := msg[HeaderSize:]
	for i := 0; i < int(msg[headCount]) && len(rest) >= size; i++ {
		put(rest, crc)
		rest = rest[size:]
	}
	return msg
}

func sameBytes(t *testing.T, want, got []byte, err error) {
	t.Helper()
	if err != nil || !bytes.Equal(want, got) {
		t.Fatalf("decoded, but encodes to something else: %v\nwas %x\nis  %x", err, want, got)
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
