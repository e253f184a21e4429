package undo

import (
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
)

func oldOf(t testing.TB, d blockdev.Device, at blockdev.Range) Old {
	t.Helper()
	o := Old{At: at, Buf: blockdev.NewBuf(int(at.Len))}
	_, err := d.ReadAt(o.Buf.Bytes(), at.Off)
	must(t, err)
	return o
}

// loggedOld is logged for blocks whose old content is known.
func loggedOld(a *Area, at blockdev.Range, old Old) error {
	c := make(told, 1)
	ready, err := a.LogOld(at, old, c)
	old.free()
	if err == nil && !ready {
		err = <-c
	}
	return err
}

func TestKnownContentIsNotReadAgain(t *testing.T) { // R18
	d := filled(t, rng(21))
	want := content(t, d)
	f := faultdev.New(d)
	a := begun(t, &memPlace{}, f)
	reads := f.Add(faultdev.Rule{Op: blockdev.OpRead, Err: blockdev.ErrClosed})
	must(t, loggedOld(a, block(3, 5), oldOf(t, d, block(2, 8))))
	must(t, loggedOld(a, blockdev.Range{Off: 5*blockdev.BlockSize + 512, Len: 6 * blockdev.BlockSize}, oldOf(t, d, block(4, 9)))) // parts of blocks, some of them logged
	f.Clear()
	must(t, logged(a, block(40, 4)))                                // what is not known is read
	must(t, loggedOld(a, block(50, 4), oldOf(t, d, block(52, 10)))) // nor what is known of a part
	for _, at := range []blockdev.Range{block(3, 9), block(40, 4), block(50, 4)} {
		write(t, d, at, rng(22))
	}
	rollBack(t, a, d)
	same(t, d, want)
	if reads.Hits() != 0 {
		t.Errorf("%d reads of what was known", reads.Hits())
	}
}

// The first old content counts, also against one that is known later.
func TestKnownContentOfALaterMomentCountsForNothing(t *testing.T) { // R18
	d := filled(t, rng(23))
	want := content(t, d)
	p := &memPlace{}
	a := begun(t, p, d)
	must(t, logged(a, block(6, 3)))
	write(t, d, block(6, 3), rng(24))
	later := oldOf(t, d, block(4, 8))
	write(t, d, block(6, 3), rng(25))
	must(t, loggedOld(a, block(4, 8), later))
	write(t, d, block(4, 8), rng(26))
	rollBack(t, a, d)
	same(t, d, want)
}

func TestKnownZeroesTakeNoRoom(t *testing.T) {
	d := filled(t, rng(27)) // every third block is zeroes
	a := begun(t, &memPlace{}, d)
	must(t, loggedOld(a, blockdev.Range{Len: testVolume}, oldOf(t, d, blockdev.Range{Len: testVolume})))
	read := begun(t, &memPlace{}, d)
	must(t, logged(read, blockdev.Range{Len: testVolume}))
	if known := a.Taken(); known != read.Taken() {
		t.Errorf("%d bytes where the content is known, %d where it is read", known, read.Taken())
	}
}

// Memory of what is known is given back however its logging ends.
func TestMemoryOfKnownContentIsGivenBack(t *testing.T) { // R28
	for name, rule := range map[string]faultdev.Rule{
		"logged":        {Op: blockdev.OpFlush, Skip: 1 << 30},
		"write failed":  {Op: blockdev.OpWrite, Err: blockdev.ErrNoSpace},
		"flush failed":  {Op: blockdev.OpFlush, Err: blockdev.ErrStalled},
		"closed before": {Op: blockdev.OpFlush, Stall: true},
	} {
		t.Run(name, func(t *testing.T) {
			d := filled(t, rng(28))
			p := &memPlace{}
			a := begun(t, p, d)
			h := p.faults.Add(rule)
			old := oldOf(t, d, block(0, 8))
			c := make(told, 2)
			for i := range int64(2) {
				if _, err := a.LogOld(block(4*i, 4), old, c); err != nil && i == 0 {
					t.Fatal(err)
				}
				for changed := h.Changed(); rule.Stall && i == 0 && h.Waiting() == 0; changed = h.Changed() {
					<-changed
				}
			}
			if rule.Stall {
				go h.Release()
			}
			_ = a.Close()
			old.free() // ours
			defer func() {
				if recover() == nil {
					t.Error("somebody still holds the memory")
				}
			}()
			old.free()
		})
	}
}
