package nbd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"sync/atomic"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd"
	"hacluster/blockdev/frontend/nbd/nbdproto"
	"hacluster/blockdev/frontend/nbd/nbdtest"
)

func TestN16BadRequestMagicHangsUp(t *testing.T) {
	w := newRig(t, nbd.Config{}).session()
	b := req(nbdproto.CmdRead, 0, 1, 0, 4096)
	b[0] ^= 1
	w.write(b)
	if out := w.wantClosed(); len(out) != 0 {
		t.Fatalf("answered %d bytes", len(out))
	}
}

func TestN17UnknownCommandsAndFlagsAreInvalidAndStayInStep(t *testing.T) {
	r := newRig(t, nbd.Config{})
	w := r.session()
	for _, cmd := range []nbdproto.Cmd{nbdproto.CmdResize, 9, 200, 65535} {
		w.write(req(cmd, 0, 5, 0, 4096))
		w.wantErrno(nbdproto.EINVAL, 5)
	}
	payload := pattern(4096, 1)
	w.write(req(nbdproto.CmdWrite, 1<<9, 6, 0, 4096, payload...)) // its payload must be skipped
	w.wantErrno(nbdproto.EINVAL, 6)
	w.write(req(nbdproto.CmdRead, nbdproto.CmdNoHole, 7, 0, 4096))
	w.wantErrno(nbdproto.EINVAL, 7)
	w.inStep()
	if c := r.dev.Counts(); c.Writes != 0 {
		t.Fatalf("%d writes reached the device", c.Writes)
	}
}

// outside lists ranges that are not wholly in the device.
var outside = []struct {
	name string
	off  uint64
	n    uint32
}{
	{"at the end", testSize, 1},
	{"across the end", testSize - 512, 1024},
	{"far behind", 1 << 50, 512},
	{"offset above 2^63", 1 << 63, 512},
	{"wraps 2^64", math.MaxUint64 - 511, 1024},
	{"wraps 2^64 to 0", math.MaxUint64 - 511, 512},
}

func TestN18OutsideTheDeviceIsRefusedWithoutAPartialWrite(t *testing.T) {
	r := newRig(t, nbd.Config{})
	w := r.session()
	for _, o := range outside {
		t.Run(o.name, func(t *testing.T) {
			w.t = t
			w.write(req(nbdproto.CmdRead, 0, 1, o.off, o.n))
			w.wantErrno(nbdproto.EINVAL, 1)
			w.write(req(nbdproto.CmdWrite, 0, 2, o.off, o.n, pattern(int(o.n), 0xff)...))
			w.wantErrno(nbdproto.ENOSPC, 2)
			w.write(req(nbdproto.CmdCache, 0, 3, o.off, o.n))
			w.wantErrno(nbdproto.EINVAL, 3)
			w.inStep()
		})
	}
	if c := r.dev.Counts(); c.Writes != 0 || !zeroes(r.dev.Snapshot()) {
		t.Fatal("something was written")
	}
}

func TestN19ReadOfFourGiBIsInvalid(t *testing.T) {
	r := newRig(t, nbd.Config{})
	w := r.session()
	for _, n := range []uint32{nbdproto.MaxPayload + 1, 1 << 31, math.MaxUint32} {
		w.write(req(nbdproto.CmdRead, 0, 1, 0, n))
		w.wantErrno(nbdproto.EINVAL, 1)
	}
	w.inStep()
}

func TestN20WriteOfFourGiBThenHangUp(t *testing.T) {
	r := newRig(t, nbd.Config{})
	w := r.session()
	w.write(req(nbdproto.CmdWrite, 0, 1, 0, math.MaxUint32, pattern(8192, 1)...))
	w.wantClosed()
	if !zeroes(r.dev.Snapshot()) {
		t.Fatal("something was written")
	}
	if n := r.Stats().BytesInFlight; n != 0 {
		t.Fatalf("%d bytes are held", n)
	}
	r.serves()
}

func TestN21WriteAboveMaxPayloadHangsUp(t *testing.T) {
	r := newRig(t, nbd.Config{MaxPayload: 64 << 10})
	w := r.session()
	w.write(req(nbdproto.CmdWrite, 0, 1, 0, 64<<10, pattern(64<<10, 1)...)) // the largest is taken
	w.wantErrno(nbdproto.OK, 1)
	w.push(req(nbdproto.CmdWrite, 0, 1, 0, 64<<10+1, pattern(64<<10+1, 2)...))
	w.wantClosed()
	if !bytes.Equal(r.dev.Snapshot()[:64<<10], pattern(64<<10, 1)) {
		t.Fatal("the refused write changed something")
	}
}

func TestN22TruncatedPayloadIsNotApplied(t *testing.T) {
	for _, sent := range []int{0, 1, 4095, 4096, 100 << 10, 1<<20 - 1} {
		r := newRig(t, nbd.Config{})
		w := r.session()
		w.write(req(nbdproto.CmdWrite, 0, 1, 0, 1<<20, pattern(sent, 3)...))
		w.nc.Close()
		eventually(t, "the connection has ended", func() bool { return r.Stats().Connections == 0 })
		if c := r.dev.Counts(); c.Writes != 0 || !zeroes(r.dev.Snapshot()) {
			t.Fatalf("after %d of 1 MiB: something was written", sent)
		}
		if n := r.Stats().BytesInFlight; n != 0 {
			t.Fatalf("after %d of 1 MiB: %d bytes are held", sent, n)
		}
	}
}

func TestN23VanishWithWritesInFlight(t *testing.T) {
	r := newRig(t, nbd.Config{})
	const n = 64
	for round := range 8 {
		w := r.session()
		var b []byte
		for i := range n {
			b = append(b, req(nbdproto.CmdWrite, 0, uint64(i), uint64(i)*4096, 4096, pattern(4096, byte(round+1))...)...)
		}
		w.write(b[:len(b)-round*5000])
		w.nc.Close()
		eventually(t, "the connection has ended", func() bool { return r.Stats().Connections == 0 })
		got := r.dev.Snapshot()
		for i := range n {
			blk := got[i*4096:][:4096]
			whole := zeroes(blk)
			for old := range round + 1 {
				whole = whole || bytes.Equal(blk, pattern(4096, byte(old+1)))
			}
			if !whole {
				t.Fatalf("round %d: block %d is a mixture", round, i)
			}
		}
	}
	r.serves()
}

func TestN24ZeroLength(t *testing.T) {
	r := newRig(t, nbd.Config{})
	w := r.session()
	cmds := []nbdproto.Cmd{
		nbdproto.CmdRead, nbdproto.CmdWrite, nbdproto.CmdTrim, nbdproto.CmdWriteZeroes, nbdproto.CmdCache, nbdproto.CmdFlush,
	}
	for _, cmd := range cmds {
		w.write(req(cmd, nbdproto.CmdFUA, uint64(cmd), testSize, 0)) // at the end, in range still
		w.wantErrno(nbdproto.OK, uint64(cmd))
	}
	s := r.structured()
	s.write(req(nbdproto.CmdRead, 0, 9, 0, 0))
	if c := nbdproto.ParseChunk(s.read(nbdproto.StructuredLen)); c.Type != nbdproto.ChunkNone || c.Flags != nbdproto.ChunkDone {
		t.Fatalf("empty read: %+v", c)
	}
	s.write(req(nbdproto.CmdBlockStatus, 0, 9, 0, 0))
	s.wantErrorChunk(nbdproto.EINVAL, 9)
}

func (w *wire) wantErrorChunk(errno nbdproto.Errno, cookie uint64) {
	w.t.Helper()
	c := nbdproto.ParseChunk(w.read(nbdproto.StructuredLen))
	if c.Type != nbdproto.ChunkError || c.Flags != nbdproto.ChunkDone || c.Cookie != cookie {
		w.t.Fatalf("chunk %+v is no error for %d", c, cookie)
	}
	b := w.read(int(c.Len))
	if e := nbdproto.Errno(binary.BigEndian.Uint32(b)); e != errno || int(binary.BigEndian.Uint16(b[4:])) != len(b)-6 {
		w.t.Fatalf("error chunk says %v %q, want %v", e, b[6:], errno)
	}
}

func TestN25UnalignedRangesWork(t *testing.T) {
	r := newRig(t, nbd.Config{})
	c := r.client()
	model := make([]byte, 64<<10)
	for i, g := range []blockdev.Range{{Off: 1, Len: 1}, {Off: 511, Len: 4098}, {Off: 4095, Len: 2}, {Off: 8191, Len: 33000}} {
		p := pattern(int(g.Len), byte(i))
		if _, err := c.WriteAt(p, g.Off); err != nil {
			t.Fatal(err)
		}
		copy(model[g.Off:], p)
	}
	if err := c.Zero(blockdev.Range{Off: 9001, Len: 777}, true); err != nil {
		t.Fatal(err)
	}
	clear(model[9001 : 9001+777])
	got := make([]byte, len(model)-3)
	if _, err := c.ReadAt(got, 3); err != nil || !bytes.Equal(got, model[3:]) {
		t.Fatalf("read back differs (%v)", err)
	}
}

func TestN26TrimAndZeroOutside(t *testing.T) {
	r := newRig(t, nbd.Config{})
	w := r.session()
	for _, o := range append(outside, struct {
		name string
		off  uint64
		n    uint32
	}{"4 GiB", 0, math.MaxUint32}) {
		for _, cmd := range []nbdproto.Cmd{nbdproto.CmdTrim, nbdproto.CmdWriteZeroes} {
			w.write(req(cmd, 0, 8, o.off, o.n))
			w.wantErrno(nbdproto.EINVAL, 8)
		}
	}
	if c := r.dev.Counts(); c.Zeroes != 0 {
		t.Fatal("the device was asked")
	}
	w.write(req(nbdproto.CmdTrim, 0, 9, 0, testSize)) // larger than a payload may be, and fine
	w.wantErrno(nbdproto.OK, 9)
}

func TestN27BlockStatusWithoutContextIsInvalid(t *testing.T) {
	r := newRig(t, nbd.Config{})
	w := r.session()
	w.write(req(nbdproto.CmdBlockStatus, 0, 1, 0, 4096))
	w.wantErrno(nbdproto.EINVAL, 1)
	w.inStep()

	s := r.greeted() // structured replies alone, and a context of another export, are not enough either
	s.option(nbdproto.OptStructuredReply, nil)
	s.want(nbdproto.RepAck)
	r.exports.Serve("second", r.export)
	s.option(nbdproto.OptSetMetaContext, metaData("second", nbdproto.BaseAllocation))
	s.want(nbdproto.RepMetaContext)
	s.want(nbdproto.RepAck)
	s.mustGo("vol")
	s.write(req(nbdproto.CmdBlockStatus, 0, 2, 0, 4096))
	s.wantErrorChunk(nbdproto.EINVAL, 2)
}

func TestN28FlushWithJunkOffset(t *testing.T) {
	r := newRig(t, nbd.Config{})
	w := r.session()
	w.write(req(nbdproto.CmdFlush, 0, 1, math.MaxUint64, math.MaxUint32))
	w.wantErrno(nbdproto.OK, 1)
	if n := r.dev.Counts().Flushes; n != 1 {
		t.Fatalf("%d flushes reached the device", n)
	}
}

func TestN29SameCookieSixteenTimes(t *testing.T) {
	w := newRig(t, nbd.Config{}).session()
	var b []byte
	for i := range 16 {
		b = append(b, req(nbdproto.CmdWrite, 0, 42, uint64(i)*512, 512, pattern(512, 1)...)...)
	}
	w.write(b)
	for range 16 {
		w.wantErrno(nbdproto.OK, 42)
	}
	w.inStep()
}

func TestN33RequestsAfterDiscAreIgnored(t *testing.T) {
	r := newRig(t, nbd.Config{})
	w := r.session()
	b := req(nbdproto.CmdWrite, 0, 1, 0, 512, pattern(512, 1)...)
	b = append(b, req(nbdproto.CmdDisc, 0, 2, 0, 0)...)
	b = append(b, req(nbdproto.CmdWrite, 0, 3, 4096, 512, pattern(512, 2)...)...)
	w.write(b)
	w.wantErrno(nbdproto.OK, 1) // what came before is answered
	if out := w.wantClosed(); len(out) != 0 {
		t.Fatalf("%d more bytes", len(out))
	}
	if !zeroes(r.dev.Snapshot()[4096:]) {
		t.Fatal("the write after DISC was applied")
	}
}

func TestN34FlagsAreHonouredOrRefused(t *testing.T) {
	r := newRig(t, nbd.Config{})
	w := r.session()
	w.write(req(nbdproto.CmdWrite, nbdproto.CmdFUA, 1, 0, 512, pattern(512, 1)...))
	w.wantErrno(nbdproto.OK, 1)
	if c := r.dev.Counts(); c.FUAs != 1 {
		t.Fatalf("FUA did not reach the device: %+v", c)
	}
	for _, cmd := range []nbdproto.Cmd{nbdproto.CmdTrim, nbdproto.CmdWriteZeroes} {
		before := r.dev.Counts().Flushes
		w.write(req(cmd, nbdproto.CmdFUA, 2, 0, 4096))
		w.wantErrno(nbdproto.OK, 2)
		if n := r.dev.Counts().Flushes; n != before+1 {
			t.Fatalf("command %d with FUA was not made durable", cmd)
		}
	}
	w.write(req(nbdproto.CmdRead, nbdproto.CmdDF, 3, 0, 512)) // DF is promised with structured replies only
	w.wantErrno(nbdproto.EINVAL, 3)
	w.write(req(nbdproto.CmdWrite, nbdproto.CmdFastZero, 4, 0, 512, pattern(512, 1)...))
	w.wantErrno(nbdproto.EINVAL, 4)

	w.write(req(nbdproto.CmdWriteZeroes, nbdproto.CmdFastZero, 5, 0, 4096))
	w.wantErrno(nbdproto.ENOTSUP, 5)
	r.export.SetFastZero(true)
	w.write(req(nbdproto.CmdWriteZeroes, nbdproto.CmdFastZero, 6, 0, 4096))
	w.wantErrno(nbdproto.OK, 6)

	s := r.structured()
	s.write(req(nbdproto.CmdRead, nbdproto.CmdDF, 7, 0, 1<<20))
	if c := nbdproto.ParseChunk(s.read(nbdproto.StructuredLen)); c.Type != nbdproto.ChunkOffsetData || c.Len != 8+1<<20 {
		t.Fatalf("DF read: %+v", c)
	}
}

func TestN34NoHoleKeepsTheSpace(t *testing.T) {
	r := newRig(t, nbd.Config{})
	w := r.session()
	w.write(req(nbdproto.CmdWriteZeroes, nbdproto.CmdNoHole, 1, 0, 8192))
	w.wantErrno(nbdproto.OK, 1)
	if c := r.dev.Counts(); c.Zeroes != 1 || c.Unmaps != 0 {
		t.Fatalf("NO_HOLE: %+v", c)
	}
	w.write(req(nbdproto.CmdWriteZeroes, 0, 2, 0, 8192))
	w.wantErrno(nbdproto.OK, 2)
	w.write(req(nbdproto.CmdTrim, 0, 3, 8192, 8192))
	w.wantErrno(nbdproto.OK, 3)
	if c := r.dev.Counts(); c.Zeroes != 3 || c.Unmaps != 2 {
		t.Fatalf("holes allowed: %+v", c)
	}
}

func TestN35WritesToAReadOnlyExport(t *testing.T) {
	r := newRig(t, nbd.Config{})
	r.export.SetReadOnly(true)
	w := r.session()
	w.write(req(nbdproto.CmdWrite, 0, 1, 0, 4096, pattern(4096, 1)...))
	w.wantErrno(nbdproto.EPERM, 1)
	for _, cmd := range []nbdproto.Cmd{nbdproto.CmdTrim, nbdproto.CmdWriteZeroes} {
		w.write(req(cmd, 0, 2, 0, 4096))
		w.wantErrno(nbdproto.EPERM, 2)
	}
	w.inStep()
	if c := r.dev.Counts(); c.Writes+c.Zeroes != 0 {
		t.Fatalf("changed: %+v", c)
	}
	if c := r.client(); c.Flags()&nbdproto.ReadOnly == 0 {
		t.Fatal("the export is not announced as read-only")
	}
}

func TestErrorsOfTheVolumeBecomeNumbers(t *testing.T) {
	dev := nbdtest.NewMem(testSize)
	var next atomic.Pointer[error]
	dev.Fail = func(blockdev.Op, blockdev.Range) error { return *next.Load() }
	r := newRigOn(t, nbd.Config{}, dev, nbdtest.SyncExport(dev, 0))
	w, s := r.session(), r.structured()
	for _, c := range []struct {
		err  error
		want nbdproto.Errno
	}{
		{errors.New("medium error"), nbdproto.EIO},
		{blockdev.ErrStalled, nbdproto.EIO},
		{blockdev.ErrNoSpace, nbdproto.ENOSPC},
	} {
		next.Store(&c.err)
		w.write(req(nbdproto.CmdRead, 0, 1, 0, 4096)) // an error carries no data, or the stream would be out of step
		w.wantErrno(c.want, 1)
		w.write(req(nbdproto.CmdWrite, 0, 2, 0, 4096, pattern(4096, 1)...))
		w.wantErrno(c.want, 2)
		w.write(req(nbdproto.CmdFlush, 0, 3, 0, 0))
		w.wantErrno(c.want, 3)
		s.write(req(nbdproto.CmdRead, 0, 4, 0, 4096))
		s.wantErrorChunk(c.want, 4)
		s.write(req(nbdproto.CmdBlockStatus, 0, 5, 0, 4096))
		s.wantErrorChunk(c.want, 5)
	}
	if n := r.Stats().BytesInFlight; n != 0 {
		t.Fatalf("%d bytes are held", n)
	}
}

func TestWritesCarryTheirChecksum(t *testing.T) { // R21
	seen := make(chan uint32, 3)
	e := &tapExport{Export: nbdtest.SyncExport(nbdtest.NewMem(testSize), 0), tap: func(r *blockdev.Request) {
		if r.Op == blockdev.OpWrite {
			seen <- r.Sum
		}
	}}
	r := newRigTap(t, e)
	c := r.client()
	for _, n := range []int{1, 4096, 3 << 20} {
		p := pattern(n, 9)
		if _, err := c.WriteAt(p, 5); err != nil {
			t.Fatal(err)
		}
		if got, want := <-seen, checksum(p); got != want {
			t.Errorf("%d bytes: sum %#x, want %#x", n, got, want)
		}
	}
}

func TestBlockStatus(t *testing.T) {
	r := newRig(t, nbd.Config{})
	c := r.client()
	for _, blk := range []int64{2, 3, 7} {
		if _, err := c.WriteAt(pattern(4096, 1), blk*4096); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.BlockStatus(blockdev.Range{Off: 4096 + 100, Len: 8 * 4096})
	if err != nil {
		t.Fatal(err)
	}
	const hole = nbdproto.StateHole | nbdproto.StateZero
	want := []struct {
		end   int64
		state uint32
	}{{2 * 4096, hole}, {4 * 4096, 0}, {7 * 4096, hole}, {8 * 4096, 0}, {9*4096 + 100, hole}}
	if len(got) != len(want) {
		t.Fatalf("extents %v", got)
	}
	for i, w := range want {
		if got[i].Range.End() != w.end || got[i].State != w.state {
			t.Errorf("extent %d is %v, want end %d state %d", i, got[i], w.end, w.state)
		}
	}
	k := c.Start(clientOp(nbdproto.CmdBlockStatus, nbdproto.CmdReqOne, 0, 8*4096))
	if err := k.Wait(); err != nil || len(k.Extents) != 1 || k.Extents[0].Range.Len != 2*4096 {
		t.Fatalf("REQ_ONE: %v %v", k.Extents, err)
	}
}

func TestBlockStatusOfAManyHoledDeviceIsBounded(t *testing.T) {
	r := newRig(t, nbd.Config{})
	c := r.client()
	for off := int64(0); off < testSize; off += 2 * 4096 {
		if _, err := c.WriteAt([]byte{1}, off); err != nil {
			t.Fatal(err)
		}
	}
	k := c.Start(clientOp(nbdproto.CmdBlockStatus, 0, 0, testSize))
	if err := k.Wait(); err != nil || len(k.Extents) != 1024 {
		t.Fatalf("%d extents at once, %v", len(k.Extents), err)
	}
	all, err := c.BlockStatus(blockdev.Range{Len: testSize}) // asks again for the rest
	if err != nil || len(all) != testSize/4096 {
		t.Fatalf("%d extents in all, %v", len(all), err)
	}
}
