package e2e

import (
	"sync"
	"testing"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/lab/disk"
)

// readersAtOnce is enough for a disk to be what they wait for.
const readersAtOnce = 16

// readMuch has many readers read what was never written.
func (r *rig) readMuch(ops int) {
	r.t.Helper()
	dev := r.dial(r.URIs()...)
	defer dev.Close()
	var all sync.WaitGroup
	for i := range readersAtOnce {
		all.Go(func() {
			p := make([]byte, 16<<10)
			for k := range ops / readersAtOnce {
				if _, err := dev.ReadAt(p, int64((i*131+k*17)%128)*int64(len(p))); err != nil {
					r.t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// readThere is how many reads standbys have answered in this epoch.
func readThere(s *api.Status) (n uint64) {
	for _, r := range s.Volumes[0].Replicas {
		n += r.ReadOps
	}
	return n
}

// A volume with read = "balance" has a member answer where the primary's disk is slow, under writes, and while each of the two is
// killed; a load that reads back what it wrote never sees anything older. What a node reads is changed while it runs.
func TestReadsAreAnsweredByAMemberWhereTheDiskIsSlow(t *testing.T) {
	p := poweredUp(t, Config{RTO: "10s", IO: "direct"})
	slow := func(node string) {
		p.strike(node, disk.Fault{Kind: disk.Busy, Op: disk.Read, Glob: backing, Delay: 4 * time.Millisecond})
	}
	slow(p.vol().Primary)
	l := p.load()
	p.readMuch(160)
	status := func() *api.Status { return p.until("healthy", Healthy) }
	if n := readThere(status()); n != 0 {
		t.Fatalf("%d reads were answered by a standby, and none should be", n)
	}
	balanced := p.edited("balanced.hcl", `  mode = "sync"`, "  mode = \"sync\"\n  read = \"balance\"")
	p.admin(0, "apply", balanced, "--yes")
	p.until("it is in force", func(s *api.Status) bool {
		for _, n := range Nodes {
			if doc, _ := p.shown(n); doc.Volumes[0].Read != string(config.ReadBalance) {
				return false
			}
		}
		return true
	})
	for readThere(status()) < 100 {
		p.readMuch(160)
		l.more(10)
	}
	text, _ := p.admin(0, "status")
	p.says(text, other(p.vol().Primary)+": answered ", " reads, ")

	standby := other(p.vol().Primary)
	p.Kill(standby)
	l.more(50)
	p.readMuch(32)
	p.start(standby)
	status()
	for before := readThere(status()); readThere(status()) <= before; {
		p.readMuch(160)
	}

	old := p.vol().Primary
	p.Kill(old)
	p.until("the other serves", PrimaryIs(standby))
	slow(standby)
	l.more(50)
	p.start(old)
	p.until("healthy again", Healthy)
	for readThere(status()) == 0 {
		p.readMuch(160)
	}
	p.admin(0, "apply", p.File(), "--yes")
	p.until("it is taken back", func(*api.Status) bool {
		doc, _ := p.shown(standby)
		return doc.Volumes[0].Read == string(config.ReadLocal)
	})
	n := readThere(status())
	p.readMuch(160)
	if after := readThere(status()); after != n && p.vol().Primary == standby {
		t.Errorf("%d more reads were answered by a standby", after-n)
	}
	p.heal(standby)
	p.heal(old)
	l.stop()
	p.same()
}
