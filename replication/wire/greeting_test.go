package wire

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

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
		"versions reversed":  func(h *Hello) { h.VersionMin = Version + 1 },
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
