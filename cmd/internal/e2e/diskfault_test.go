package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"hacluster/cmd/internal/lab/disk"
)

// strike puts a fault on a node's disk.
func (p *powered) strike(node string, f disk.Fault) {
	p.t.Helper()
	n, err := p.disks[node].Bites(f.Kind)
	if err != nil {
		p.t.Fatal(err)
	}
	p.bites[node+string(f.Kind)] = n
	if err := p.disks[node].Fault(f); err != nil {
		p.t.Fatal(err)
	}
}

// bitten waits until a fault has bitten since it was put in force.
func (p *powered) bitten(node string, k disk.Fault) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		n, err := p.disks[node].Bites(k.Kind)
		if err != nil {
			p.t.Fatal(err)
		}
		if n > p.bites[node+string(k.Kind)] {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the fault %v never bit", k)
		}
	}
}

func (p *powered) heal(node string) {
	p.t.Helper()
	if err := p.disks[node].Go(); err != nil {
		p.t.Fatal(err)
	}
}

const backing = "*.img"

// patientDisks is how clusters run in which a disk hangs: a shorter deadline is exceeded on a busy machine by disks that do
// not, for hadisk is a process that waits for a processor too. An error is one at once, whatever the deadline.
var patientDisks = Config{RTO: "6s", Cluster: `disk_deadline = "3s"`}

// faults.md D89, D90: a write or flush fails on the primary's disk, or finds no room: it hands over, no client sees an
// error, nothing is lost; when the disk works again the replica is resynced.
func TestD89FailingDiskOfThePrimary(t *testing.T) {
	p := poweredUp(t, Config{RTO: "10s"}) // what fails at once is handed over at once
	l := p.load()
	faults := []disk.Fault{
		{Kind: disk.EIO, Op: disk.Flush, Glob: backing},
		{Kind: disk.ENOSPC, Glob: backing},
		{Kind: disk.EIO, Op: disk.Write, Glob: backing}, // disk-write-primary of make matrix-ci as well
	}
	for _, f := range faults[:times(2, 3)] {
		old, _, after := p.struck(blow{what: fmt.Sprint(f),
			strike: func(node string) { p.strike(node, f); p.bitten(node, f) },
			undo: func(node string) {
				p.heal(node)
				p.until("healthy, for clients are served again", Healthy) // a failed flush is final for the only member
				l = l.anew()
			}})
		if slices.Contains(after.InSync, old) && slices.Contains(after.Promotable, old) {
			t.Errorf("%v: the replica whose disk failed may be promoted", f)
		}
		l.more(50)
		p.heal(old)
		p.until(fmt.Sprintf("%v is over: it is resynced", f), Healthy)
		l.more(50)
	}
	l.stop()
	p.same()
}

// faults.md D88: a read fails on the primary's disk: the client is served all the same.
func TestD88FailingReadOfThePrimary(t *testing.T) {
	p := poweredUp(t, Config{RTO: "10s", IO: "direct"})
	l := p.load()
	old := p.vol().Primary
	f := disk.Fault{Kind: disk.EIO, Op: disk.Read, Glob: backing}
	p.strike(old, f)
	p.bitten(old, f)
	l.more(100)
	p.heal(old)
	p.until("healed", Healthy)
	l.stop()
	p.same()
}

// faults.md D91: a write or flush fails on the standby's disk, or finds no room: it is dropped, the primary goes on in
// its epoch; when the disk works again it is resynced.
func TestD91FailingDiskOfTheStandby(t *testing.T) {
	p := poweredUp(t, Config{RTO: "10s"}) // a busy machine alone must move no role here
	l := p.load()
	before := p.vol()
	standby := other(before.Primary)
	for _, f := range []disk.Fault{
		{Kind: disk.EIO, Op: disk.Write, Glob: backing},
		{Kind: disk.EIO, Op: disk.Flush, Glob: backing},
		{Kind: disk.ENOSPC, Glob: backing},
	} {
		p.strike(standby, f)
		p.bitten(standby, f)
		p.until(fmt.Sprintf("%v: it is dropped", f), func(s *apiStatus) bool { return s.Quorum && !isMember(standby)(s) })
		l.more(50)
		p.heal(standby)
		p.until(fmt.Sprintf("%v is over: it is resynced", f), Healthy)
	}
	if v := p.vol(); v.Epoch != before.Epoch {
		t.Errorf("the standby's disk moved the volume from epoch %d to %d", before.Epoch, v.Epoch)
	}
	l.stop()
	p.same()
}

// faults.md D93: a disk that needs 50 ms for each operation slows writers down and moves nothing.
func TestD93SlowDisks(t *testing.T) {
	p := poweredUp(t, Config{RTO: "20s", Cluster: `disk_deadline = "10s"`})
	l := p.load()
	before := p.vol()
	for _, n := range []string{before.Primary, other(before.Primary)} {
		f := disk.Fault{Kind: disk.Slow, Delay: 50 * time.Millisecond, Glob: backing}
		p.strike(n, f)
		p.bitten(n, f)
		l.more(100)
		p.heal(n)
	}
	if v := p.vol(); v.Epoch != before.Epoch || len(v.InSync) != 2 {
		t.Errorf("slow disks led from %+v to %+v", before, v)
	}
	l.stop()
	p.same()
}

// faults.md D94: the disk of the primary, then of the standby, hangs: past the deadline that counts as an error. The
// operation is never abandoned: the replica takes part again when it has returned.
func TestD94HungDisk(t *testing.T) {
	p := poweredUp(t, patientDisks)
	l := p.load()
	for i, op := range []disk.Fault{{Kind: disk.Hang, Op: disk.Write, Glob: backing}, {Kind: disk.Hang, Op: disk.Flush, Glob: backing}} {
		for _, standby := range sides(i) {
			victim := other(p.until("healthy before a disk hangs", Healthy).Volumes[0].Primary)
			if standby {
				p.strike(victim, op)
				p.until(fmt.Sprintf("%v: the standby is dropped", op), func(s *apiStatus) bool { return s.Quorum && !isMember(victim)(s) })
			} else {
				victim, _, _ = p.struck(blow{what: fmt.Sprint(op),
					strike: func(node string) { p.strike(node, op) },
					undo:   func(node string) { p.heal(node); l = l.anew() }})
			}
			l.more(50)
			p.heal(victim)
			p.until(fmt.Sprintf("%v is over: it is resynced", op), Healthy)
		}
	}
	l.stop()
	p.same()
}

// faults.md D94: a daemon whose disk hangs cannot be ended, not even by SIGKILL, until the power goes; nobody waits for
// it.
func TestD94HungDaemonLosesPower(t *testing.T) {
	p := poweredUp(t, patientDisks)
	l := p.load()
	old, _, _ := p.struck(blow{what: "its disk hangs",
		strike: func(node string) { p.strike(node, disk.Fault{Kind: disk.Hang, Op: disk.Write, Glob: backing}) },
		undo:   func(node string) { p.heal(node); l = l.anew() }})
	p.cut(disk.Random, 1, old)
	l.more(50)
	p.start(old)
	p.until("healed", Healthy)
	l.stop()
	p.same()
}

// faults.md D94, R26: the disk hangs in the last flush of a stop. The stop says so, is not called a clean one, and the replica
// takes part again.
func TestD94HungDiskInAStop(t *testing.T) {
	p := poweredUp(t, patientDisks)
	p.load().stop()
	standby := other(p.until("healthy", Healthy).Volumes[0].Primary)
	p.strike(standby, disk.Fault{Kind: disk.Hang, Op: disk.Flush, Glob: backing})
	code := make(chan int, 1)
	go func() {
		c, err := p.Stop(standby)
		if err != nil {
			t.Error(err)
		}
		code <- c
	}()
	p.untilLogged(standby, `"this node ends" node=`+standby+` error="volume vol: flush vol before stopping`, 1)
	p.heal(standby) // its process could not end before
	if c := <-code; c != 1 {
		t.Errorf("exit code %d after a stop that left no mark, want 1: %s", c, p.log(standby))
	}
	p.says(p.log(standby), "flush outstanding for", "look after the disk", "disk_deadline")
	p.start(standby)
	p.until("healed", Healthy)
	p.same()
}

// faults.md D94, R26: the Raft directory of a node hangs: past the deadline the node ends, and the others go on, also
// when it led the group.
func TestD94RaftDirectoryHangs(t *testing.T) {
	p := poweredUp(t, patientDisks)
	l := p.load()
	whom := []func() string{
		func() string { return p.until("there is a leader", func(s *apiStatus) bool { return s.Quorum }).Leader },
		func() string { return p.vol().Primary }, // disk-stall-raft of make matrix-ci as well
	}
	for _, who := range whom[:times(1, 2)] {
		victim := who()
		said := p.logged(victim, "the disk hangs")
		p.strike(victim, disk.Fault{Kind: disk.Hang, Op: disk.Flush, Glob: "/raft/state/log/*"})
		p.strike(victim, disk.Fault{Kind: disk.Hang, Op: disk.Write, Glob: "/raft/state/log/*"})
		l.more(20)
		// Something that is committed, so that the log is written: nothing else demands it.
		p.pokeUntil(victim)
		p.untilLogged(victim, "the disk hangs", said+1)
		p.heal(victim)
		p.ends(victim, 1)
		l.more(50)
		p.start(victim)
		p.until("healed", Healthy)
	}
	l.stop()
	p.same()
}

// pokeUntil has something committed until an operation hangs on a node's disk.
func (p *powered) pokeUntil(node string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		s, err := p.disks[node].Stats()
		if err != nil {
			p.t.Fatal(err)
		}
		if s.Hanging > 0 {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("nothing hangs on %s", node)
		}
		ctx, cancel := p.within()
		_, _, _ = p.Admin(ctx, "failover", Volume) // whatever comes of it
		cancel()
	}
}
