package wire

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"hacluster/blockdev"
)

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
		"fence of what may be lost":         {Frame{Kind: Write, Flags: Fence, Seq: 1, Range: rng(0, 1)}, ErrMalformed},
		"unknown flag":                      {Frame{Kind: Write, Flags: 0x80, Seq: 1, Range: rng(0, 1)}, ErrMalformed},
		"write without number":              {Frame{Kind: Write, Range: rng(0, 1)}, ErrMalformed},
		"copy with a place":                 {Frame{Kind: Write, Flags: Resync, Seq: 1, ID: 1, Range: rng(0, 1)}, ErrMalformed},
		"begin at zero":                     {Frame{Kind: Begin}, ErrMalformed},
		"begin with a range":                {Frame{Kind: Begin, ID: 1, Range: rng(0, 4096)}, ErrMalformed},
		"ping with a number":                {Frame{Kind: Ping, Seq: 1}, ErrMalformed},
		"zero with a sum":                   {Frame{Kind: Zero, Seq: 1, Sum: 1, Range: rng(0, 1)}, ErrMalformed},
		"digest of half a block":            {Frame{Kind: Digest, Range: rng(0, 2048)}, ErrMalformed},
		"digest not at a block":             {Frame{Kind: Digest, Range: rng(512, 4096)}, ErrMalformed},
		"digest of too much":                {Frame{Kind: Digest, Range: rng(0, MaxDigestRange+4096)}, ErrLimit},
		"read of too much":                  {Frame{Kind: Read, ID: 1, Range: rng(0, MaxRead+1)}, ErrLimit},
		"read of nothing":                   {Frame{Kind: Read, ID: 1}, ErrMalformed},
		"read past the end of the volume":   {Frame{Kind: Read, ID: 1, Range: rng(size-1, 2)}, ErrLimit},
		"read with a number":                {Frame{Kind: Read, Seq: 1, Range: rng(0, 4096)}, ErrMalformed},
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

func TestRepliesBeyondTheRulesAreRefused(t *testing.T) {
	r4k := blockdev.Range{Len: 4096}
	for name, r := range map[string]Reply{
		"unknown kind":             {Kind: 9},
		"ack of nothing":           {Kind: Ack},
		"ack with an id":           {Kind: Ack, Seq: 1, ID: 1},
		"ack with a code":          {Kind: Ack, Seq: 1, Code: WriteFailed},
		"ack with a text":          {Kind: Ack, Seq: 1, Text: "x"},
		"receipt of nothing":       {Kind: Received},
		"receipt with an id":       {Kind: Received, Seq: 1, ID: 1},
		"receipt with a code":      {Kind: Received, Seq: 1, Code: WriteFailed},
		"nack without a code":      {Kind: Nack, Seq: 1},
		"nack with a range":        {Kind: Nack, Seq: 1, Code: Stalled, Range: r4k},
		"nack with unknown code":   {Kind: Nack, Seq: 1, Code: codes},
		"pong with a number":       {Kind: Pong, Seq: 1},
		"digests too few":          {Kind: DigestReply, Range: r4k, Digests: make([]byte, 8)},
		"digests too many":         {Kind: DigestReply, Range: r4k, Digests: make([]byte, 32)},
		"digests and an error":     {Kind: DigestReply, Range: r4k, Digests: make([]byte, 16), Code: ReadFailed},
		"digests of nothing":       {Kind: DigestReply},
		"content too short":        {Kind: ReadReply, Range: r4k, Data: make([]byte, 8)},
		"content and an error":     {Kind: ReadReply, Range: r4k, Data: make([]byte, 4096), Code: ReadFailed},
		"content of nothing":       {Kind: ReadReply},
		"content of a pong":        {Kind: Pong, ID: 1, Data: make([]byte, 8)},
		"content beyond the limit": {Kind: ReadReply, Range: blockdev.Range{Len: MaxRead + 1}, Data: make([]byte, MaxRead+1)},
		"digests beyond the limit": {Kind: DigestReply, Range: blockdev.Range{Len: MaxDigestRange * 2}, Code: ReadFailed},
	} {
		if _, err := AppendReplies(nil, Replies{Items: []Reply{r}}); err == nil {
			t.Errorf("%s is sent", name)
		}
		msg := appendReply(appendHeader(nil, header{version: Version, kind: KindReplies, count: 1}), &r)
		msg = append(append(append(msg, r.Digests...), r.Data...), r.Text...)
		if err := new(Replies).Decode([][]byte{msg}); err == nil {
			t.Errorf("%s is received", name)
		}
	}
}
