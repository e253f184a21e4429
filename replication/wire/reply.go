package wire

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"hacluster/blockdev"
)

// ReplyKind says what a reply answers.
type ReplyKind uint8

// The replies.
const (
	Ack         ReplyKind = iota + 1 // all frames up to Seq are written; flushes and FUA frames among them durable
	Nack                             // the frame Seq was not applied, nor any behind it; the stream ends
	DigestReply                      // the digests of Range, or a Code why there are none
	Pong                             // answers a Ping
	MarksReply                       // a piece of the map, from region ID on, or a Code why there is none
	Promised                         // clearing ID is promised, on stable storage
	ReadReply                        // the content of Range, or a Code why there is none
	Received                         // all frames up to Seq are taken and in memory; the next Ack tells what of them is written
)

func (k ReplyKind) String() string {
	switch k {
	case Ack:
		return "ack"
	case Nack:
		return "nack"
	case DigestReply:
		return "digest reply"
	case Pong:
		return "pong"
	case MarksReply:
		return "map"
	case Promised:
		return "promised"
	case ReadReply:
		return "read reply"
	case Received:
		return "received"
	}
	return fmt.Sprintf("reply kind %d", uint8(k))
}

// Code says what went wrong on the standby. Zero: nothing.
type Code uint8

// The codes.
const (
	OK          Code = iota
	BadChecksum      // a payload did not match its checksum (R21)
	BadOrder         // a gap or a repetition in the sequence (G46)
	BadFrame         // a frame that is malformed or beyond a limit
	WriteFailed      // a write or zeroing failed (R23)
	FlushFailed      // a flush failed (R23)
	ReadFailed       // a read, for its content or for digests, failed
	Stalled          // a disk operation exceeded its deadline (R26)
	Stopping         // the standby leaves the stream for a reason of its own
	NoMap            // there is no map that could be believed: all blocks may differ (R16)
	codes
)

var codeText = [codes]string{
	OK: "ok", BadChecksum: "checksum mismatch", BadOrder: "sequence broken", BadFrame: "bad frame", WriteFailed: "write failed",
	FlushFailed: "flush failed", ReadFailed: "read failed", Stalled: "disk stalled", Stopping: "stopping",
	NoMap: "no map",
}

func (c Code) String() string {
	if c < codes {
		return codeText[c]
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// Reply is one thing that a standby tells the primary.
type Reply struct {
	Kind    ReplyKind
	Code    Code           // of a Nack, DigestReply, MarksReply or ReadReply
	Seq     uint64         // of an Ack, Received or Nack
	ID      uint64         // of the frame that is answered
	Range   blockdev.Range // of a DigestReply or ReadReply
	Digests []byte         // of a DigestReply without Code: DigestSize bytes for each block of Range
	Map     []byte         // of a MarksReply without Code: what bitmap.AppendChunk made
	Data    []byte         // of a ReadReply without Code: the content of Range
	Buf     *blockdev.Buf  // to be sent: what Data lies in, whose reference goes with the reply; nil: nothing that is pooled
	Done    func()         // to be sent: called when the reply is on its way, or never will be; nil: nobody waits for that
	Text    string         // for people, beside a Code; at most MaxText bytes, cut when longer
}

// Replies is one message from a standby.
//
//	header | record of each reply | blob of each reply: its digests, map, content or text, in the same order
type Replies struct {
	Epoch, Stream uint64
	Version       uint16 // as in a Batch
	Items         []Reply
}

// A reply's record, little-endian:
//
//	 0  kind     u8
//	 1  code     u8
//	 2  zero     u16
//	 4  blobLen  u32
//	 8  seq      u64
//	16  id       u64
//	24  off      i64
//	32  len      i64
//	40  blobSum  u32   CRC-32C of the blob; 0 without one
//	44  crc      u32   CRC-32C of bytes 0 to 43
const (
	ReplySize = 48

	recKind    = 0
	recCode    = 1
	recZero    = 2
	recBlobLen = 4
	recSeq     = 8
	recID      = 16
	recOff     = 24
	recLen     = 32
	recBlobSum = 40
	recCRC     = 44
)

// AppendReplies appends the whole message to dst. An error means that r cannot be said in this protocol.
func AppendReplies(dst []byte, r Replies) ([]byte, error) {
	if err := checkCount("replies", len(r.Items)); err != nil {
		return dst, err
	}
	dst = appendHeader(dst, header{version: cmp.Or(r.Version, Version), kind: KindReplies, epoch: r.Epoch, stream: r.Stream, count: uint32(len(r.Items))})
	blobs := 0
	for i := range r.Items {
		item := r.Items[i].trimmed()
		if err := item.check(item.blobLen()); err != nil {
			return dst, fmt.Errorf("reply %d: %w", i+1, err)
		}
		if blobs += item.blobLen(); blobs > MaxBlobs {
			return dst, overLimit("texts and digests of a message", int64(blobs), MaxBlobs)
		}
		dst = appendReply(dst, &item)
	}
	for i := range r.Items {
		item := r.Items[i].trimmed()
		dst = append(append(append(dst, item.Digests...), item.Map...), item.Data...)
		dst = append(dst, item.Text...)
	}
	return dst, nil
}

// trimmed has its text cut to what fits.
func (r Reply) trimmed() Reply {
	r.Text = printable(r.Text, MaxText)
	return r
}

// blobLen is exact, for a reply has digests, a map, content or a text, never two of them.
func (r *Reply) blobLen() int { return len(r.Digests) + len(r.Map) + len(r.Data) + len(r.Text) }

func appendReply(dst []byte, r *Reply) []byte {
	dst, b := grow(dst, ReplySize)
	b[recKind], b[recCode] = byte(r.Kind), byte(r.Code)
	binary.LittleEndian.PutUint32(b[recBlobLen:], uint32(r.blobLen()))
	binary.LittleEndian.PutUint64(b[recSeq:], r.Seq)
	binary.LittleEndian.PutUint64(b[recID:], r.ID)
	binary.LittleEndian.PutUint64(b[recOff:], uint64(r.Range.Off))
	binary.LittleEndian.PutUint64(b[recLen:], uint64(r.Range.Len))
	sum := crc32.Checksum(r.Digests, castagnoli)
	switch {
	case r.Map != nil:
		sum = crc32.Checksum(r.Map, castagnoli)
	case r.Data != nil:
		sum = crc32.Checksum(r.Data, castagnoli)
	case r.Text != "":
		sum = crc32.Checksum([]byte(r.Text), castagnoli)
	}
	binary.LittleEndian.PutUint32(b[recBlobSum:], sum)
	binary.LittleEndian.PutUint32(b[recCRC:], crc32.Checksum(b[:recCRC], castagnoli))
	return dst
}

// Decode decodes a whole message. r's memory is used again, except for digests, maps and texts: they are copies and belong to the
// caller. Data is a part of the message, and valid as long as that. After an error r holds nothing.
func (r *Replies) Decode(segments [][]byte) error {
	if err := r.decode(segments); err != nil {
		r.Reset()
		return err
	}
	return nil
}

func (r *Replies) decode(segments [][]byte) error {
	c := newCursor(segments)
	h, err := decodeHeader(&c, KindReplies)
	if err != nil {
		return err
	}
	if err := checkCount("replies", int(h.count)); err != nil {
		return err
	}
	r.Reset()
	r.Epoch, r.Stream, r.Version = h.epoch, h.stream, h.version
	blobs := c
	if blobs.left < int(h.count)*ReplySize {
		return malformed("%d bytes, too short for %d replies", blobs.left, h.count)
	}
	blobs.skip(int(h.count) * ReplySize)
	if blobs.left > MaxBlobs {
		return overLimit("texts and digests of a message", int64(blobs.left), MaxBlobs)
	}
	for i := range int(h.count) {
		item, err := decodeReply(&c, &blobs)
		if err != nil {
			return fmt.Errorf("reply %d: %w", i+1, err)
		}
		r.Items = append(r.Items, item)
	}
	if blobs.left != 0 {
		return malformed("%d bytes follow the last reply", blobs.left)
	}
	return nil
}

func decodeReply(c, blobs *cursor) (Reply, error) {
	b, _ := c.take(ReplySize)
	if binary.LittleEndian.Uint32(b[recCRC:]) != crc32.Checksum(b[:recCRC], castagnoli) {
		return Reply{}, malformed("the checksum of its record does not match")
	}
	if binary.LittleEndian.Uint16(b[recZero:]) != 0 {
		return Reply{}, malformed("reserved bytes are not zero")
	}
	r := Reply{
		Kind: ReplyKind(b[recKind]),
		Code: Code(b[recCode]),
		Seq:  binary.LittleEndian.Uint64(b[recSeq:]),
		ID:   binary.LittleEndian.Uint64(b[recID:]),
		Range: blockdev.Range{
			Off: int64(binary.LittleEndian.Uint64(b[recOff:])),
			Len: int64(binary.LittleEndian.Uint64(b[recLen:])),
		},
	}
	n, sum := binary.LittleEndian.Uint32(b[recBlobLen:]), binary.LittleEndian.Uint32(b[recBlobSum:])
	if int64(n) > int64(blobs.left) {
		return Reply{}, malformed("%d bytes are left for a blob of %d", blobs.left, n)
	}
	if err := r.check(int(n)); err != nil {
		return Reply{}, err
	}
	return r.withBlob(blobs, int(n), sum)
}

func (r Reply) withBlob(blobs *cursor, n int, sum uint32) (Reply, error) {
	var blob []byte
	if r.Kind == ReadReply && r.Code == OK {
		blob, _ = blobs.take(n) // there are so many
	} else {
		blob = make([]byte, 0, n)
		for len(blob) < n {
			blob = append(blob, blobs.next(n-len(blob))...)
		}
	}
	if crc32.Checksum(blob, castagnoli) != sum {
		return Reply{}, malformed("the checksum of its blob does not match")
	}
	switch {
	case r.Kind == DigestReply && r.Code == OK:
		r.Digests = blob
		return r, nil
	case r.Kind == MarksReply && r.Code == OK:
		r.Map = blob
		return r, nil
	case r.Kind == ReadReply && r.Code == OK:
		r.Data = blob
		return r, nil
	}
	r.Text = string(blob)
	return r, checkText("text", r.Text, 0, MaxText)
}

// check refuses what no reply may say; blob is the length of its digests or text.
func (r *Reply) check(blob int) error {
	if r.Kind < Ack || r.Kind > Received {
		return malformed("unknown kind %d", uint8(r.Kind))
	}
	if r.Code >= codes {
		return malformed("a %v with the unknown code %d", r.Kind, uint8(r.Code))
	}
	sequenced := r.Kind == Ack || r.Kind == Nack || r.Kind == Received
	if (sequenced && r.ID != 0) || (!sequenced && r.Seq != 0) || (sequenced && r.Kind != Nack && r.Seq == 0) {
		return malformed("a %v has sequence number %d and id %d", r.Kind, r.Seq, r.ID)
	}
	if (r.Kind == Nack) != (r.Code != OK) && r.Kind != DigestReply && r.Kind != MarksReply && r.Kind != ReadReply {
		return malformed("a %v with the code %v", r.Kind, r.Code)
	}
	if r.Kind != ReadReply && r.Data != nil {
		return malformed("a %v with content", r.Kind)
	}
	if r.Kind == DigestReply {
		return r.checkDigests(blob)
	}
	if r.Kind == ReadReply {
		return r.checkData(blob)
	}
	if r.Kind != MarksReply && r.Map != nil {
		return malformed("a %v with a map", r.Kind)
	}
	if r.Kind == Promised && r.ID == 0 {
		return malformed("clearing 0 is promised; they count from 1")
	}
	if r.Range != (blockdev.Range{}) || r.Digests != nil {
		return malformed("a %v has the range %v and %d bytes of digests", r.Kind, r.Range, len(r.Digests))
	}
	if r.Kind == MarksReply && r.Code == OK {
		return checkBlob("length of a piece of the map", blob, MaxMarks)
	}
	if r.Kind != Nack && r.Kind != MarksReply && blob != 0 {
		return malformed("a %v with %d bytes of text", r.Kind, blob)
	}
	return checkBlob("length of the text", blob, MaxText)
}

func (r *Reply) checkDigests(blob int) error {
	if !r.Range.Within(NoSize) || r.Range.Len == 0 {
		return malformed("a digest reply has the range %v", r.Range)
	}
	if err := checkDigestRange(r.Range, NoSize); err != nil {
		return err
	}
	if r.Code != OK {
		if r.Digests != nil {
			return malformed("a digest reply has digests and the code %v", r.Code)
		}
		return checkBlob("length of the text", blob, MaxText)
	}
	if want := Digests(r.Range) * DigestSize; blob != want || r.Text != "" {
		return malformed("a digest reply for %v has %d bytes, not %d", r.Range, blob, want)
	}
	return nil
}

func (r *Reply) checkData(blob int) error {
	if !r.Range.Within(NoSize) || r.Range.Len == 0 || r.Digests != nil || r.Map != nil {
		return malformed("a read reply has the range %v", r.Range)
	}
	if r.Range.Len > MaxRead {
		return overLimit("length of a read reply", r.Range.Len, MaxRead)
	}
	if r.Code != OK {
		if r.Data != nil {
			return malformed("a read reply has content and the code %v", r.Code)
		}
		return checkBlob("length of the text", blob, MaxText)
	}
	if int64(blob) != r.Range.Len || r.Text != "" {
		return malformed("a read reply for %v has %d bytes", r.Range, blob)
	}
	return nil
}

func checkBlob(what string, n, most int) error {
	if n > most {
		return overLimit(what, int64(n), int64(most))
	}
	return nil
}

// Reset forgets the content and keeps the memory.
func (r *Replies) Reset() {
	clear(r.Items)
	*r = Replies{Items: r.Items[:0]}
}
