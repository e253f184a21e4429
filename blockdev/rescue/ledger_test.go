package rescue

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"hacluster/blockdev/meta"
)

// begun is the id of an image that is begun, overwritten into and closed.
func (g *rig) begun(epoch uint64) string {
	g.t.Helper()
	must(g.t, g.shelf.Begin(testPoint, epoch))
	g.resync(block(3, 1))
	i, err := g.shelf.Finish(time.UnixMilli(1764000009000))
	must(g.t, err)
	return i.ID
}

// Who deletes an image twice, with another one made in between, must not delete that one.
func TestNoIDIsGivenTwice(t *testing.T) {
	g := newRig(t, 30)
	given := map[string]bool{}
	for n := range 2 * MaxImages {
		id := g.begun(5)
		if given[id] {
			t.Fatalf("%s is given a second time", id)
		}
		given[id] = true
		must(t, g.shelf.Remove(id))
		if err := g.shelf.Remove(id); !errors.Is(err, ErrNone) {
			t.Fatalf("deleted twice: %v", err)
		}
		if n%3 == 0 { // a process that dies knows no more than one that stops
			g.open(false)
		}
	}
	if !given["alpha-e5-1"] || !given[fmt.Sprintf("alpha-e5-%d", 2*MaxImages)] {
		t.Errorf("given: %v; they are to be short", given)
	}
}

// An image that was dropped had a name that people saw. One that could not be made had none.
func TestNumbersOfWhatWasNeverThereAreGivenAgain(t *testing.T) {
	g := newRig(t, 31)
	must(t, g.shelf.Begin(testPoint, 5))
	must(t, g.shelf.Drop())
	room := &failing{Dir: g.room, make: true}
	must(t, g.openIn(room, 9, false))
	for range 100 { // every minute, while there is no room
		if err := g.shelf.Begin(testPoint, 5); err == nil {
			t.Fatal("begun without room")
		}
	}
	room.make = false
	if id := g.begun(5); id != "alpha-e5-2" {
		t.Errorf("then it is %s", id)
	}
}

// What cannot be noted is not made: its name could be given again.
func TestNoImageBeforeItsNumberIsNoted(t *testing.T) {
	g := newRig(t, 32)
	must(t, g.openIn(&failing{Dir: g.room, setLedger: true}, 9, false))
	if err := g.shelf.Begin(testPoint, 5); err == nil || !strings.Contains(err.Error(), "ledger") {
		t.Fatalf("begun: %v", err)
	}
	if ids, _ := g.room.IDs(); len(ids) != 0 {
		t.Fatalf("left %v", ids)
	}
}

// A ledger that says nothing keeps no replica from being opened, and no number comes back.
func TestDamagedLedgerBringsNoNumberBack(t *testing.T) { // R22
	for name, change := range map[string]func([]byte) []byte{
		"damaged":      func(p []byte) []byte { p[offLedgerLast]--; return p },
		"short":        func(p []byte) []byte { return p[:100] },
		"of another":   func(p []byte) []byte { p[offLedgerVolume]++; return resum(p) },
		"not ours yet": func(p []byte) []byte { p[offLedgerRest]++; return resum(p) },
	} {
		g := newRig(t, 33)
		first, second := g.begun(5), g.begun(5)
		must(t, g.shelf.Remove(first))
		must(t, g.shelf.Remove(second))
		g.rewrite(change)
		g.open(false)
		if len(g.unnoted) != 1 {
			t.Errorf("%s: told %q", name, g.unnoted)
		}
		if id := g.begun(5); id == first || id == second || !strings.HasPrefix(id, "alpha-e5-") {
			t.Errorf("%s: given again: %s", name, id)
		}
	}
}

func TestNewerLedgerIsNotWrittenOver(t *testing.T) { // R22
	g := newRig(t, 34)
	g.begun(5)
	g.rewrite(func(p []byte) []byte { p[offVersion]++; return resum(p) })
	was, err := g.room.Ledger()
	must(t, err)
	g.open(false)
	if err := g.shelf.Begin(testPoint, 5); err == nil || !strings.Contains(err.Error(), "newer program") {
		t.Errorf("begun: %v", err)
	}
	if now, err := g.room.Ledger(); err != nil || !bytes.Equal(now, was) {
		t.Errorf("it was written to: %v", err)
	}
}

// rewrite changes the ledger under a shelf that has stopped.
func (g *rig) rewrite(change func([]byte) []byte) {
	g.t.Helper()
	must(g.t, g.shelf.Stop())
	p, err := g.room.Ledger()
	must(g.t, err)
	must(g.t, os.WriteFile(g.room.ledger(), change(p), 0o600))
}

func goldenLedger() ledger {
	return ledger{cluster: meta.ID{1, 15: 2}, volume: meta.ID{3, 15: 4}, node: "alpha", attachment: "file:1:2.3:4", last: 1 << 40, kept: 7}
}

func TestLedgerFormatIsPinned(t *testing.T) { // R22
	pinned(t, "ledger.v1.golden", goldenLedger(), (*ledger).encode, decodeLedger)
}

func FuzzLedger(f *testing.F) {
	fuzzed(f, goldenLedger(), ledgerSize, offLedgerRest, (*ledger).encode, decodeLedger)
}

// What an image of a resync that has ended has of its replica stays kept: over restarts, deletion, and until another hold.
func TestWhatIsKeptStaysKept(t *testing.T) { // R19
	g := newRig(t, 35)
	expect := func(what string, want uint64) {
		t.Helper()
		if got := g.shelf.Kept(); got != want {
			t.Fatalf("%s: kept since epoch %d, want %d", what, got, want)
		}
	}
	must(t, g.shelf.Begin(testPoint, 5))
	expect("an image that is begun", 0)
	g.open(false) // a crash before the superblock said that it is in pieces: nothing was overwritten
	expect("an image that was only made", 0)
	must(t, g.shelf.Begin(testPoint, 6))
	g.resync(block(2, 3))
	g.open(true) // in the middle
	expect("in the middle", 0)
	g.open(false) // the superblock says that it is whole
	expect("found closed by the superblock", 6)
	id := g.shelf.List()[0].ID
	g.open(false)
	expect("after a restart", 6)
	must(t, g.shelf.Begin(testPoint, 7))
	g.resync(block(9, 1))
	must(t, g.shelf.Drop())
	expect("after a way back", 6)
	must(t, g.shelf.Remove(id))
	g.open(false)
	expect("deleted by a person", 6)
	g.begun(8)
	expect("another one closed", 8)
	g.attach = "file:1:7.9:1"
	g.open(false)
	expect("on another backing", 0)
	g.begun(9)
	g.attach = "file:2:7.9:5"
	g.open(false)
	expect("on the same backing, after a restart of the machine", 9)
	g.attach = "file:1:8.9:1"
	g.open(false)
	expect("on another file", 0)
	must(t, g.shelf.Stop())
	g.attach = "file:1:7.9:1"
	must(t, g.openIn(g.room, 4, false))
	expect("beside a superblock of before", 0)
}

// An image whose end cannot be noted is closed all the same: the next resync makes another one then.
func TestKeptIsNotNeededToCloseAnImage(t *testing.T) {
	g := newRig(t, 36)
	room := &failing{Dir: g.room}
	must(t, g.openIn(room, 9, false))
	must(t, g.shelf.Begin(testPoint, 5))
	g.resync(block(3, 1))
	room.setLedger = true
	i, err := g.shelf.Finish(time.UnixMilli(1764000009000))
	if err != nil || !i.Whole || g.shelf.Kept() != 0 {
		t.Fatalf("closed as %+v, %v, kept since %d", i, err, g.shelf.Kept())
	}
}
