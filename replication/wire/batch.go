package wire

import (
	"cmp"
	"encoding/binary"
	"hash/crc32"

	"hacluster/blockdev"
)

// Batch is one message from the primary: frames in the order in which they take effect.
//
//	header | record of each frame | payload of each write and promise, in the same order
//
// In a packed one all payloads together are one compressed block, shorter than they are: whoever receives it asks for the length that
// the records demand, takes memory for that, and refuses a block that comes to another. Checksums are of what was compressed (R21).
type Batch struct {
	Epoch, Stream uint64
	Version       uint16 // of the stream; 0, when it is sent: the newest
	Packed        bool   // of one that was received: its payloads are compressed
	Frames        []Frame

	segments [][]byte // what the frames' Payload are cut from; kept for the next Decode
	payload  int      // bytes of payload that the records demand
}

// AppendBatch appends the message without its payloads to dst. They follow on the wire, each Write's Buf in turn.
// size is the volume's, or NoSize. An error means that b cannot be said in this protocol.
func AppendBatch(dst []byte, b Batch, size int64) ([]byte, error) {
	if err := checkCount("frames", len(b.Frames)); err != nil {
		return dst, err
	}
	version := cmp.Or(b.Version, Version)
	t := tally{frames: len(b.Frames), version: version}
	dst = appendHeader(dst, header{version: version, kind: KindBatch, epoch: b.Epoch, stream: b.Stream, count: uint32(len(b.Frames))})
	for i := range b.Frames {
		f := &b.Frames[i]
		if err := t.add(f, size); err != nil {
			return dst, frameError(i, f, err)
		}
		if err := checkBuf(f); err != nil {
			return dst, frameError(i, f, err)
		}
		dst = appendFrame(dst, f)
	}
	return dst, nil
}

// Pack says in a message that AppendBatch made that its payloads are compressed.
func Pack(msg []byte) { setPacked(msg, 1) }

// Lend says in a message that AppendBatch made that its payloads do not follow: whoever relays it has them, by the places of the writes
// that they are of, and sends the message on as if nothing had been said (Unlend). A standby takes no such message.
func Lend(msg []byte) { setPacked(msg, lentMark) }

// Unlend takes that back; false: nothing was said.
func Unlend(msg []byte) bool {
	if len(msg) < HeaderSize || msg[headPacked] != lentMark {
		return false
	}
	setPacked(msg, 0)
	return true
}

const lentMark = 2

func setPacked(msg []byte, to byte) {
	msg[headPacked] = to
	binary.LittleEndian.PutUint32(msg[headCRC:], crc32.Checksum(msg[:headCRC], castagnoli))
}

// DecodeRecords decodes a message without regard to what payload follows.
func (b *Batch) DecodeRecords(head []byte, size int64) error {
	segments := [1][]byte{head}
	c := newCursor(segments[:])
	err := b.decode(&c, size)
	if err == nil && c.left != 0 {
		err = malformed("%d bytes follow the records of %d frames", c.left, len(b.Frames))
	}
	if err != nil {
		b.Reset()
	}
	return err
}

// IsPacked reports whether the payloads behind a message are compressed, by its header alone; the receiver checks the rest.
func IsPacked(msg []byte) bool { return len(msg) >= HeaderSize && msg[headPacked] == 1 }

// PayloadLen is how many bytes of payload the frames have, when they are not compressed.
func (b *Batch) PayloadLen() int { return b.payload }

func checkBuf(f *Frame) error {
	have := -1
	if f.Buf != nil {
		have = len(f.Buf.Bytes())
	}
	if f.Kind.bears() && have != f.PayloadLen() {
		return malformed("a payload buffer of %d bytes for the range %v", have, f.Range)
	}
	if !f.Kind.bears() && f.Buf != nil {
		return malformed("a %v with a payload", f.Kind)
	}
	return nil
}

// Decode decodes a whole message for a volume of the given size. b's memory is used again. The payloads are cut from
// segments, which therefore must stay as they are while the frames are in use. After an error b holds nothing.
func (b *Batch) Decode(segments [][]byte, size int64) error {
	c := newCursor(segments)
	err := b.decode(&c, size)
	if err == nil && b.Packed {
		err = malformed("compressed payloads in a message that is to be decoded as a whole")
	}
	if err == nil && b.payload != c.left {
		err = malformed("%d payload bytes follow %d frames that have %d", c.left, len(b.Frames), b.payload)
	}
	if err != nil {
		b.Reset()
		return err
	}
	b.cutPayloads(&c, len(segments))
	return nil
}

// DecodeHead decodes a message whose payloads, said to be so many bytes, are still to come: SetPayload follows, with what they are
// when they are not compressed. So a
// receiver takes no memory for them before all records were checked. b's memory is used again; nothing of head is kept.
// After an error b holds nothing.
func (b *Batch) DecodeHead(head []byte, payload int, size int64) error {
	segments := [1][]byte{head}
	c := newCursor(segments[:])
	err := b.decode(&c, size)
	switch {
	case err != nil:
	case c.left != 0:
		err = malformed("%d bytes follow the records of %d frames", c.left, len(b.Frames))
	case b.Packed && (payload == 0 || payload >= b.payload):
		err = malformed("%d compressed bytes are announced for %d frames that have %d", payload, len(b.Frames), b.payload)
	case !b.Packed && b.payload != payload:
		err = malformed("%d payload bytes are announced for %d frames that have %d", payload, len(b.Frames), b.payload)
	}
	if err != nil {
		b.Reset()
	}
	return err
}

// SetPayload gives the frames of a head their payloads, cut from segments as Decode does it. The caller has read as
// many bytes as DecodeHead was told.
func (b *Batch) SetPayload(segments [][]byte) {
	c := newCursor(segments)
	b.cutPayloads(&c, len(segments))
}

func (b *Batch) decode(c *cursor, size int64) error {
	h, err := decodeHeader(c, KindBatch)
	if err != nil {
		return err
	}
	if err := checkCount("frames", int(h.count)); err != nil {
		return err
	}
	b.Reset()
	b.Epoch, b.Stream, b.Version, b.Packed = h.epoch, h.stream, h.version, h.packed != 0
	t := tally{frames: int(h.count), version: h.version}
	if err := b.decodeRecords(c, &t, size); err != nil {
		return err
	}
	b.payload = t.payload
	return nil
}

func (b *Batch) decodeRecords(c *cursor, t *tally, size int64) error {
	for i := range t.frames {
		rec, ok := c.take(FrameSize)
		if !ok {
			return malformed("ends in the record of frame %d of %d", i+1, t.frames)
		}
		f, err := parseFrame(rec)
		if err == nil {
			err = t.add(&f, size)
		}
		if err != nil {
			return frameError(i, &f, err)
		}
		b.Frames = append(b.Frames, f)
	}
	return nil
}

// cutPayloads gives each write its segments. A payload adds at most one cut to those that were there, so the room
// reserved never grows and the slices handed out stay valid.
func (b *Batch) cutPayloads(c *cursor, segments int) {
	if need := segments + len(b.Frames); cap(b.segments) < need {
		b.segments = make([][]byte, 0, need)
	}
	for i := range b.Frames {
		from := len(b.segments)
		b.segments = c.split(b.Frames[i].PayloadLen(), b.segments)
		if to := len(b.segments); to > from {
			b.Frames[i].Payload = b.segments[from:to:to]
		}
	}
}

// Reset forgets the content and keeps the memory.
func (b *Batch) Reset() {
	clear(b.Frames)
	clear(b.segments)
	*b = Batch{Frames: b.Frames[:0], segments: b.segments[:0]}
}

// tally checks what concerns several frames of one message.
type tally struct {
	frames  int
	version uint16
	payload int
	last    uint64 // sequence number of the last sequenced frame; 0: none yet
}

func (t *tally) add(f *Frame, size int64) error {
	if err := f.check(size); err != nil {
		return err
	}
	if t.version < VersionSums && f.Flags&Sums != 0 {
		return malformed("a %v for sums in version %d, which knows none", f.Kind, t.version)
	}
	if t.version < VersionAsked && f.Kind == Read && f.ID&Asked != 0 {
		return malformed("a %v for a client, which version %d does not know", f.Kind, t.version)
	}
	if t.version < VersionAhead && f.Flags&Ahead != 0 {
		return malformed("a %v that tells what follows in version %d, which knows none", f.Kind, t.version)
	}
	if t.version < VersionFence && f.Flags&Fence != 0 {
		return malformed("a %v that others wait for in version %d, which knows none", f.Kind, t.version)
	}
	if t.version < VersionPlace && f.Kind.Sequenced() && f.ID != 0 {
		return malformed("a %v has place %d in version %d, which knows none", f.Kind, f.ID, t.version)
	}
	t.payload += f.PayloadLen()
	if t.frames > 1 && t.payload > MaxBatchPayload {
		return overLimit("payload of several frames", int64(t.payload), MaxBatchPayload)
	}
	if !f.Kind.Sequenced() {
		return nil
	}
	if t.last != 0 && f.Seq != t.last+1 {
		return &OrderError{Want: t.last + 1, Got: f.Seq}
	}
	t.last = f.Seq
	return nil
}

// Order checks that the sequenced frames of a stream follow each other without gap or repetition, whatever messages
// they came in. The zero Order accepts any first number.
type Order struct {
	last uint64
}

// Check accepts the frames, or returns an *OrderError and stays where it was: after a gap nothing is applied (G46).
func (o *Order) Check(frames []Frame) error {
	last := o.last
	for i := range frames {
		f := &frames[i]
		if !f.Kind.Sequenced() {
			continue
		}
		if last != 0 && f.Seq != last+1 {
			return &OrderError{Want: last + 1, Got: f.Seq}
		}
		last = f.Seq
	}
	o.last = last
	return nil
}

// Last is the number of the last sequenced frame accepted; 0: none yet.
func (o *Order) Last() uint64 { return o.last }

func checkCount(what string, n int) error {
	if n > MaxFrames || n < 0 {
		return overLimit("number of "+what, int64(n), MaxFrames)
	}
	if n == 0 {
		return malformed("a message without %s", what)
	}
	return nil
}

func frameError(i int, f *Frame, err error) error {
	return &FrameError{Index: i, Kind: f.Kind, Seq: f.Seq, Range: f.Range, Err: err}
}

// FrameError says which frame of a message was refused.
type FrameError struct {
	Index int
	Kind  Kind
	Seq   uint64
	Range blockdev.Range
	Err   error
}
