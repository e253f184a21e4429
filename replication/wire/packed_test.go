package wire

import (
	"errors"
	"testing"

	"hacluster/blockdev"
)

// packedHead is the head of a message of one write of 4096 bytes that says that its payload is compressed.
func packedHead(t *testing.T, version uint16) []byte {
	t.Helper()
	b := Batch{Epoch: 7, Stream: 3, Version: version, Frames: []Frame{{Kind: Write, Seq: 1, Range: blockdev.Range{Len: 4096}, Buf: buf(make([]byte, 4096))}}}
	head, err := AppendBatch(nil, b, NoSize)
	if err != nil {
		t.Fatal(err)
	}
	Pack(head)
	return head
}

// What is compressed says so in its head, and how long it is; its frames say how long it is to become.
func TestPackedMessageIsKnownByItsHead(t *testing.T) {
	head := packedHead(t, Version)
	golden(t, "packed", Version, head)
	var b Batch
	if err := b.DecodeHead(head, 100, NoSize); err != nil || !b.Packed || b.PayloadLen() != 4096 {
		t.Fatalf("%v, packed %t, %d bytes", err, b.Packed, b.PayloadLen())
	}
	for _, payload := range []int{0, 4096, 4097, MaxWrite} {
		if err := b.DecodeHead(head, payload, NoSize); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d compressed bytes for a write of 4096: %v", payload, err)
		}
	}
	if err := b.Decode([][]byte{head, make([]byte, 100)}, NoSize); !errors.Is(err, ErrMalformed) {
		t.Errorf("decoded as a whole: %v", err)
	}
	if err := b.DecodeHead(packedHead(t, VersionPacked-1), 100, NoSize); !errors.Is(err, ErrMalformed) {
		t.Errorf("in a version that does not know it: %v", err)
	}
	ping, err := AppendBatch(nil, Batch{Epoch: 7, Stream: 3, Frames: []Frame{{Kind: Ping, ID: 1}}}, NoSize)
	if err != nil {
		t.Fatal(err)
	}
	Pack(ping)
	for _, payload := range []int{0, 1} {
		if err := b.DecodeHead(ping, payload, NoSize); !errors.Is(err, ErrMalformed) {
			t.Errorf("a compressed nothing of %d bytes: %v", payload, err)
		}
	}
	replies, err := AppendReplies(nil, Replies{Epoch: 7, Stream: 3, Items: []Reply{{Kind: Ack, Seq: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	Pack(replies)
	var r Replies
	if err := r.Decode([][]byte{replies}); !errors.Is(err, ErrMalformed) {
		t.Errorf("compressed replies: %v", err)
	}
}
