package nbd_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"hacluster/blockdev/frontend/nbd"
	"hacluster/blockdev/frontend/nbd/nbdproto"
)

func openFiles(t *testing.T) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("descriptors are counted in /proc/self/fd, and /proc is not mounted or may not be read: %v", err)
	}
	return len(e)
}

func TestN1ConnectAndVanish(t *testing.T) {
	r := newRig(t, nbd.Config{})
	r.serves()
	before := openFiles(t)
	for i := range 50 {
		w := r.connect()
		if i%2 == 0 {
			w.read(18)
		}
		w.nc.Close()
	}
	eventually(t, "all connections have ended", func() bool { return r.Stats().Connections == 0 })
	eventually(t, "all descriptors are closed", func() bool { return openFiles(t) <= before })
	r.serves()
}

func TestN2UnknownClientFlagsHangUp(t *testing.T) {
	r := newRig(t, nbd.Config{})
	w := r.connect()
	w.read(18)
	w.write([]byte{0x80, 0, 0, 3})
	w.wantClosed()
}

func TestN3BadOptionMagicHangsUp(t *testing.T) {
	w := newRig(t, nbd.Config{}).greeted()
	w.write(append([]byte("IHAVEOPX"), make([]byte, 8)...))
	if b := w.wantClosed(); len(b) != 0 {
		t.Fatalf("answered %q", b)
	}
}

func TestN4OptionOfFourGiBIsRefusedAtOnce(t *testing.T) {
	w := newRig(t, nbd.Config{}).greeted()
	b := binary.BigEndian.AppendUint64(nil, nbdproto.MagicOption)
	b = binary.BigEndian.AppendUint32(b, uint32(nbdproto.OptGo))
	w.write(binary.BigEndian.AppendUint32(b, 0xffffffff))
	w.want(nbdproto.RepErrTooBig) // without a byte of the option having been sent
	w.wantClosed()
}

func TestN5UnknownOptionIsUnsupportedAndNegotiationGoesOn(t *testing.T) {
	w := newRig(t, nbd.Config{}).greeted()
	for _, o := range []nbdproto.Option{4, 11, 999} { // PEEK_EXPORT, EXTENDED_HEADERS, nobody's
		w.option(o, []byte("data"))
		w.want(nbdproto.RepErrUnsup)
	}
	w.option(nbdproto.OptStartTLS, nil) // no certificate
	w.want(nbdproto.RepErrUnsup)
	w.mustGo("vol")
	w.inStep()
}

func TestN6OptionsAreCapped(t *testing.T) {
	r := newRig(t, nbd.Config{})
	w := r.greeted()
	go func() {
		for range 10000 {
			w.push(nbdproto.AppendOption(nil, 999, nil))
		}
	}()
	if n := len(w.wantClosed()) / nbdproto.OptReplyLen; n > 2*1024 {
		t.Fatalf("%d answers", n)
	}
	r.serves()
}

func TestN7LyingInnerLengthsAreInvalid(t *testing.T) {
	w := newRig(t, nbd.Config{}).greeted()
	w.option(nbdproto.OptStructuredReply, nil)
	w.want(nbdproto.RepAck)
	cases := map[string][]byte{
		"empty":                   nil,
		"name longer than option": {0, 0, 0, 200, 'v', 'o', 'l', 0, 0},
		"name of 4 GiB":           {0xff, 0xff, 0xff, 0xff, 'v', 'o', 'l', 0, 0},
		"more infos than bytes":   {0, 0, 0, 3, 'v', 'o', 'l', 0xff, 0xff, 0, 1},
		"bytes left over":         append(goData("vol"), 1, 2, 3),
	}
	for name, data := range cases {
		for _, o := range []nbdproto.Option{nbdproto.OptInfo, nbdproto.OptGo} {
			w.option(o, data)
			if h, text := w.reply(); h.Rep != nbdproto.RepErrInvalid {
				t.Errorf("%s: option %d answered %#x %q", name, o, uint32(h.Rep), text)
			}
		}
	}
	w.mustGo("vol")
}

func TestN8LongNames(t *testing.T) {
	r := newRig(t, nbd.Config{})
	long := strings.Repeat("x", nbdproto.MaxName+1)
	w := r.greeted()
	w.option(nbdproto.OptGo, goData(long))
	w.want(nbdproto.RepErrTooBig)
	w.option(nbdproto.OptGo, goData(long[1:])) // the longest that is legal
	w.want(nbdproto.RepErrUnknown)
	w.option(nbdproto.OptExportName, []byte(long))
	w.wantClosed()
}

func TestN9HostileNamesAreUnknownAndEscapedInLogs(t *testing.T) {
	var mu sync.Mutex
	var log bytes.Buffer
	h := slog.NewTextHandler(lockedWriter{&mu, &log}, &slog.HandlerOptions{Level: slog.LevelDebug})
	r := newRig(t, nbd.Config{Log: slog.New(h)})
	w := r.greeted()
	names := []string{"../vol", "vol\x00", "vol\nlevel=ERROR msg=forged", "$(reboot)", "%n%s", "\xff\xfe", "VOL", "vol/"}
	for _, n := range names {
		w.option(nbdproto.OptGo, goData(n))
		w.want(nbdproto.RepErrUnknown)
		e := r.greeted()
		e.option(nbdproto.OptExportName, []byte(n))
		e.wantClosed()
	}
	w.nc.Close()
	eventually(t, "all connections have ended", func() bool { return r.Stats().Connections == 0 })
	mu.Lock()
	defer mu.Unlock()
	if strings.Contains(log.String(), "\nlevel=ERROR") || strings.Contains(log.String(), "\x00") {
		t.Fatalf("a name forged a line:\n%s", log.String())
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func TestN10UnknownExportIsNeverTheDefaultVolume(t *testing.T) {
	r := newRig(t, nbd.Config{})
	r.exports.Serve("", r.export) // not even when the daemon would give one
	for _, name := range []string{"", "nosuch"} {
		w := r.greeted()
		w.option(nbdproto.OptInfo, goData(name))
		w.want(nbdproto.RepErrUnknown)
		w.option(nbdproto.OptGo, goData(name))
		w.want(nbdproto.RepErrUnknown)
		w.option(nbdproto.OptExportName, []byte(name))
		if b := w.wantClosed(); len(b) != 0 {
			t.Fatalf("EXPORT_NAME %q answered %d bytes", name, len(b))
		}
	}
}

func TestN11AbortIsAcknowledgedAndCloses(t *testing.T) {
	w := newRig(t, nbd.Config{}).greeted()
	w.option(nbdproto.OptAbort, nil)
	w.want(nbdproto.RepAck)
	w.wantClosed()
}

func TestN12GarbageMetaContext(t *testing.T) {
	w := newRig(t, nbd.Config{}).greeted()
	w.option(nbdproto.OptSetMetaContext, metaData("vol", nbdproto.BaseAllocation))
	w.want(nbdproto.RepErrInvalid) // structured replies come first
	w.option(nbdproto.OptStructuredReply, nil)
	w.want(nbdproto.RepAck)
	lie := metaData("vol")
	binary.BigEndian.PutUint32(lie[len(lie)-4:], 0xffffffff) // so many queries
	garbage := map[string][]byte{
		"empty": nil, "short": {1}, "count lies": lie, "left over": append(metaData("vol"), 9),
		"query lies": append(metaData("vol", "")[:len(metaData("vol", ""))-4], 0xff, 0xff, 0xff, 0xff),
	}
	for name, data := range garbage {
		for _, o := range []nbdproto.Option{nbdproto.OptListMetaContext, nbdproto.OptSetMetaContext} {
			w.option(o, data)
			if h, _ := w.reply(); h.Rep != nbdproto.RepErrInvalid {
				t.Errorf("%s: option %d answered %#x", name, o, uint32(h.Rep))
			}
		}
	}
	w.option(nbdproto.OptSetMetaContext, metaData("vol", "qemu:dirty-bitmap:x", "base:", "junk"))
	w.want(nbdproto.RepAck) // nothing of this is offered
	w.option(nbdproto.OptSetMetaContext, metaData("nosuch", nbdproto.BaseAllocation))
	w.want(nbdproto.RepErrUnknown)
	for _, q := range [][]string{nil, {"base:"}, {nbdproto.BaseAllocation}} {
		w.option(nbdproto.OptListMetaContext, metaData("vol", q...))
		if b := w.want(nbdproto.RepMetaContext); string(b[4:]) != nbdproto.BaseAllocation {
			t.Errorf("LIST %q named %q", q, b[4:])
		}
		w.want(nbdproto.RepAck)
	}
	w.mustGo("vol")
}

func TestN13RandomBlobsAndMutatedHandshakes(t *testing.T) {
	r := newRig(t, nbd.Config{})
	rng := rand.New(rand.NewPCG(13, 13))
	good := binary.BigEndian.AppendUint32(nil, 3)
	good = nbdproto.AppendOption(good, nbdproto.OptStructuredReply, nil)
	good = nbdproto.AppendOption(good, nbdproto.OptSetMetaContext, metaData("vol", nbdproto.BaseAllocation))
	good = nbdproto.AppendOption(good, nbdproto.OptGo, goData("vol"))
	good = append(good, req(nbdproto.CmdRead, 0, 1, 0, 4096)...)
	for i := range 500 {
		blob := bytes.Clone(good)
		if i < 200 {
			blob = make([]byte, rng.IntN(512))
			for j := range blob {
				blob[j] = byte(rng.Uint32())
			}
		} else {
			for range 1 + rng.IntN(4) {
				blob[rng.IntN(len(blob))] = byte(rng.Uint32())
			}
		}
		w := r.connect()
		w.push(blob)
		w.nc.(*net.UnixConn).CloseWrite()
		w.wantClosed()
	}
	r.serves()
	if n := r.Stats().BytesInFlight; n != 0 {
		t.Fatalf("%d bytes are still held", n)
	}
}

func TestN14HalfOpenHandshakesHoldUpNobodyAndEnd(t *testing.T) {
	t.Parallel() // it waits
	r := newRig(t, nbd.Config{HandshakeTimeout: 1500 * time.Millisecond})
	idle := r.session()
	var slow []*wire
	for i := range 64 {
		w := r.connect()
		if i%2 == 0 {
			w.write([]byte{0, 0}) // in the middle of the flags
		}
		slow = append(slow, w)
	}
	r.serves() // while all of them are open: the first ends after the handshake's time
	for _, w := range slow {
		w.wantClosed()
	}
	eventually(t, "they have ended", func() bool { return r.Stats().Connections == 1 })
	idle.inStep() // the limit is the handshake's alone
}

func TestN15ByteAtATime(t *testing.T) {
	r := newRig(t, nbd.Config{})
	w := r.connect()
	b := binary.BigEndian.AppendUint32(nil, 3)
	b = nbdproto.AppendOption(b, nbdproto.OptGo, goData("vol"))
	b = append(b, req(nbdproto.CmdWrite, 0, 1, 512, 3, []byte("abc")...)...)
	for i := range b {
		w.write(b[i : i+1])
	}
	w.read(18)
	for h, _ := w.reply(); h.Rep != nbdproto.RepAck; h, _ = w.reply() {
	}
	w.wantErrno(nbdproto.OK, 1)
	if got := r.dev.Snapshot()[512:515]; string(got) != "abc" {
		t.Fatalf("device has %q", got)
	}
}

func TestExportNameWithAndWithoutPadding(t *testing.T) {
	r := newRig(t, nbd.Config{})
	for flags, want := range map[uint32]int{1: 10 + nbdproto.ExportNamePad, 3: 10, 0: 10 + nbdproto.ExportNamePad} {
		w := r.connect()
		w.read(18)
		w.write(binary.BigEndian.AppendUint32(nil, flags))
		w.option(nbdproto.OptExportName, []byte("vol"))
		b := w.read(want)
		if n := binary.BigEndian.Uint64(b); n != testSize {
			t.Errorf("flags %d: size %d", flags, n)
		}
		w.inStep()
	}
}

func TestInfoTellsSizeFlagsAndBlockSizes(t *testing.T) {
	r := newRig(t, nbd.Config{})
	w := r.greeted()
	w.option(nbdproto.OptStructuredReply, nil)
	w.want(nbdproto.RepAck)
	data := goData("vol")
	data = append(data[:len(data)-2], 0, 2, 0, byte(nbdproto.InfoName), 0, 77)
	w.option(nbdproto.OptInfo, data)
	got := map[nbdproto.Info][]byte{}
	for h, b := w.reply(); h.Rep == nbdproto.RepInfo; h, b = w.reply() {
		got[nbdproto.Info(binary.BigEndian.Uint16(b))] = b[2:]
	}
	be := binary.BigEndian
	if n := be.Uint64(got[nbdproto.InfoExport]); n != testSize {
		t.Errorf("size %d", n)
	}
	const want = nbdproto.HasFlags | nbdproto.SendFlush | nbdproto.SendFUA | nbdproto.SendTrim | nbdproto.SendWriteZeroes |
		nbdproto.SendDF | nbdproto.CanMultiConn | nbdproto.SendCache | nbdproto.SendFastZero
	if f := nbdproto.TransFlags(be.Uint16(got[nbdproto.InfoExport][8:])); f != want {
		t.Errorf("flags %#x, want %#x", f, want)
	}
	if s := got[nbdproto.InfoBlockSize]; be.Uint32(s) != 1 || be.Uint32(s[4:]) != 4096 || be.Uint32(s[8:]) != 32<<20 {
		t.Errorf("block sizes %v", s)
	}
	if s := string(got[nbdproto.InfoName]); s != "vol" {
		t.Errorf("name %q", s)
	}
	if _, told := got[nbdproto.InfoDescription]; told {
		t.Error("a description was told to who did not ask for it")
	}
	w.mustGo("vol") // INFO did not begin the transmission
}

func TestDescriptionIsToldToWhoAsksForIt(t *testing.T) {
	r := newRig(t, nbd.Config{})
	r.export.SetDescription("epoch 7")
	w := r.greeted()
	data := goData("vol")
	w.option(nbdproto.OptInfo, append(data[:len(data)-2], 0, 1, 0, byte(nbdproto.InfoDescription)))
	text := ""
	for h, b := w.reply(); h.Rep == nbdproto.RepInfo; h, b = w.reply() {
		if nbdproto.Info(binary.BigEndian.Uint16(b)) == nbdproto.InfoDescription {
			text = string(b[2:])
		}
	}
	if text != "epoch 7" {
		t.Errorf("described as %q", text)
	}
}

func TestListNamesWhatIsServed(t *testing.T) {
	r := newRig(t, nbd.Config{})
	r.exports.Serve("a", r.export)
	w := r.greeted()
	w.option(nbdproto.OptList, []byte("x"))
	w.want(nbdproto.RepErrInvalid)
	w.option(nbdproto.OptList, nil)
	var names []string
	for h, b := w.reply(); h.Rep == nbdproto.RepServer; h, b = w.reply() {
		names = append(names, string(b[4:]))
	}
	if s := fmt.Sprint(names); s != "[a vol]" {
		t.Fatalf("listed %s", s)
	}
}
