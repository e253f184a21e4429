package primary

import (
	"testing"

	"hacluster/blockdev"
)

// A block that cannot be read here and is not settled: who may have it takes the role while it answers, and when it is gone
// the volume serves without it. Only the read of that block ends with the error.
func TestVolumeServesWithoutTheMemberThatAnUnreadableBlockWaitsFor(t *testing.T) { // R4, R23, R29
	for name, early := range map[string]bool{"it is gone when the read fails": true, "it goes afterwards": false} {
		t.Run(name, func(t *testing.T) {
			g, n, marked := differ(t)
			g.mapped(n, marked)
			if early {
				g.down("s", n)
			}
			held := g.read(chunk+8192, 4096)
			read, mend, acts := g.failRead(chunk)
			if !has(acts, HandOn, "") || has(acts, DiskFailed, "") || g.count(Release, mend) != 1 {
				t.Fatal("it is not left to the member, or counts as a failed write")
			}
			if (g.c.HandsOn(g.now) == nil) != early {
				t.Errorf("handed over %t", !early)
			}
			write := g.write(0)
			g.local(write, nil)
			if !early {
				g.down("s", n)
			}
			for range 20 {
				g.pass(dropAfter / 10)
			}
			if !drops(g.log, "s") || g.c.HandsOn(g.now) != nil {
				t.Fatal("the volume waits for ever for who is gone")
			}
			g.wantOpen(read, write, held)
			g.drop("s")
			g.wantDone(read, write, held)
			if read.Err == nil || write.Err != nil || held.Err != nil || g.c.DiskError() != nil {
				t.Errorf("the read of the block: %v, the write: %v, the other read: %v; the disk: %v", read.Err, write.Err, held.Err, g.c.DiskError())
			}
			again, _, _ := g.failRead(chunk)
			g.wantDone(again)
			n = g.resync("s")
			g.ack("s", n, g.last("s"))
			if acts := g.admitMember("s", bootA); has(acts, HandOn, "") || has(acts, DiskFailed, "") {
				t.Error("the role is handed over for what was told long ago")
			}
		})
	}
}

// A write that failed is another matter: what is lost here may be on the member, however long it is silent.
func TestMemberStaysAfterAFailedWriteThatFollowsAFailedRead(t *testing.T) { // R23
	g, n, marked := differ(t)
	g.mapped(n, marked)
	read, _, _ := g.failRead(chunk)
	if acts := g.local(g.write(0), errDisk); !has(acts, DiskFailed, "") {
		t.Fatal("the failed write is not told")
	}
	g.down("s", n)
	at := len(g.log)
	for range 20 {
		g.pass(dropAfter / 10)
	}
	if drops(g.log[at:], "s") {
		t.Error("the last other member is sent away")
	}
	g.wantOpen(read)
}

// The client of a read that failed while this primary was alone waits for an overlapping write: who is admitted meanwhile has the
// block.
func TestReadThatFailedAloneIsAnsweredByWhoIsAdmittedMeanwhile(t *testing.T) { // R23
	g := newRig(t)
	write := g.write(0)
	n := g.resync("s")
	read, mend, _ := g.failRead(0)
	if g.count(Release, mend) != 1 {
		t.Fatal("there was nobody to ask")
	}
	g.ack("s", n, g.last("s"))
	g.local(write, nil)
	g.admitMember("s", bootA)
	g.wantReread(read)
	retried := g.op(blockdev.OpWrite, 0, 4096)
	g.c.ReadFailed(g.now, read, errDisk, []*Op{retried})
	if acts := g.take(); !has(acts, Fetch, "s") {
		t.Fatal("the member is not asked")
	}
	g.fetch("s", n, g.c.peers["s"].acked+1, nil)
	g.local(retried, nil)
	g.wantOpen(read)
	g.ack("s", n, g.last("s"))
	if g.wantDone(read); read.Err != nil {
		t.Errorf("the client is told %v", read.Err)
	}
}

// While an admission is not decided the client waits; when it is void, this primary is alone.
func TestReadThatFailedIsToldWhenAnAdmissionIsVoid(t *testing.T) { // R5, R23
	g := newRig(t)
	n := g.resync("s")
	g.ack("s", n, g.last("s"))
	read, _, acts := g.failRead(0)
	g.wantOpen(read)
	if has(acts, HandOn, "") {
		t.Error("there is nobody yet to hand over to")
	}
	g.down("s", n)
	g.drop("s")
	if g.wantDone(read); read.Err == nil || g.c.DiskError() != nil {
		t.Errorf("the read ended with %v, the disk: %v", read.Err, g.c.DiskError())
	}
}

func (g *rig) wantReread(op *Op) {
	g.t.Helper()
	if g.count(Reread, op) != 1 || g.count(Complete, op) != 0 {
		g.t.Fatalf("read again %d times, completed %d times", g.count(Reread, op), g.count(Complete, op))
	}
}
