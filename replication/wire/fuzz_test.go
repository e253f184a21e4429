package wire

import (
	"bytes"
	"testing"

	"hacluster/blockdev"
)

// A decoder takes any bytes: it returns an error or a message that encodes to the very same bytes, and says so twice.
func FuzzDecodePrimary(f *testing.F) {
	hello, _ := AppendHello(nil, sampleHello())
	f.Add(hello, int64(20<<30))
	f.Add(encode(f, sampleBatch(), 20<<30), int64(20<<30))
	f.Add(encode(f, sampleRead(), 20<<30), int64(20<<30))
	f.Add(raw(Batch{}, Frame{Kind: Write, Seq: 1, Range: blockdev.Range{Len: 1 << 40}}), int64(NoSize))
	f.Fuzz(func(t *testing.T, msg []byte, size int64) {
		if h, err := DecodeHello(halves(msg)); err == nil && h.VersionMax <= Version {
			again, err := AppendHello(nil, h)
			sameBytes(t, msg, again, err)
		}
		var b Batch
		err := b.Decode(halves(fix(msg)), size)
		inParts(t, fix(msg), size, err == nil)
		if err != nil {
			return
		}
		payload := 0
		for i := range b.Frames {
			fr := &b.Frames[i]
			if fr.Kind != Flush && fr.Kind != Close && fr.Kind != Ping && fr.Kind != Begin && (fr.Kind < Marks || fr.Kind == Read) && !fr.Range.Within(size) {
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

// inParts decodes a message as a receiver does, the head first, and wants the same verdict.
func inParts(t *testing.T, msg []byte, size int64, good bool) {
	t.Helper()
	if len(msg) < HeaderSize || msg[headPacked] == 1 {
		return // what is compressed is decoded in parts only
	}
	count := min(int(msg[headCount])|int(msg[headCount+1])<<8|int(msg[headCount+2])<<16|int(msg[headCount+3])<<24, MaxFrames+1)
	at := min(HeaderSize+count*FrameSize, len(msg))
	var b Batch
	err := b.DecodeHead(msg[:at], len(msg)-at, size)
	if (err == nil) != good {
		t.Fatalf("decoded whole: %t; in parts: %v", good, err)
	}
	if err != nil {
		return
	}
	b.SetPayload(halves(msg[at:]))
	for i := range b.Frames {
		if fr := &b.Frames[i]; fr.Kind.bears() {
			fr.Buf = buf(bytes.Join(fr.Payload, nil))
		}
	}
	sameBytes(t, msg, encode(t, b, size), nil)
}

func FuzzDecodeStandby(f *testing.F) {
	reply, _ := AppendHelloReply(nil, sampleReply())
	replies, _ := AppendReplies(nil, sampleReplies())
	data, _ := AppendReplies(nil, sampleData())
	received, _ := AppendReplies(nil, sampleReceived())
	f.Add(received)
	f.Add(data)
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
