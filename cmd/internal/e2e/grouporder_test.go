package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/lab/disk"
)

// crossed is a ring of places that lie by turns on two volumes, so that of two writes of a chain that follow each other one goes to each.
type crossed struct{ vol, wal io.ReaderAt }

func (c crossed) place(off int64) (on io.ReaderAt, at int64) {
	if slot := off / chainWrite; slot%2 == 0 {
		return c.vol, slot / 2 * chainWrite
	} else {
		return c.wal, slot / 2 * chainWrite
	}
}

func (c crossed) ReadAt(p []byte, off int64) (n int, err error) {
	for ; n < len(p); n += chainWrite {
		on, at := c.place(off + int64(n))
		if _, err := on.ReadAt(p[n:n+chainWrite], at); err != nil {
			return n, err
		}
	}
	return n, nil
}

func (c crossed) WriteAt(p []byte, off int64) (int, error) {
	on, at := c.place(off)
	return on.(*nbdclient.Client).WriteAt(p, at)
}

func (c crossed) Abort() {
	c.vol.(*nbdclient.Client).Abort()
	c.wal.(*nbdclient.Client).Abort()
}

func (r *rig) crossed(node string) crossed {
	r.t.Helper()
	return crossed{r.dialOf(node, Volume), r.dialOf(node, wal)}
}

// orderBlock is the bound of async in these tests: with the standby stopped, two separate volumes have different parts of it in their
// sockets.
var orderBlock = asyncBlock("64MiB", "60s")

// crossedRound has a chain over both volumes go on from a write, strikes the primary while the standby lags, and holds what the
// standby serves then against the order. It returns up to which write that is, and
// up to which they were acknowledged.
func (r *rig) crossedRound(from int64, mode string, strike func(node string)) (kept, acked int64) {
	r.t.Helper()
	primary := r.until("healthy", allAre(api.VolumeHealthy)).Volumes[0].Primary
	standby := other(primary)
	c := r.chainOn(r.crossed(primary), from, 0)
	c.await(from + chainSlots)
	if mode == "async" {
		r.signal(syscall.SIGSTOP, standby) // shorter than it takes to be dropped, or to be taken for dead
		c.await(from + 2*chainSlots)
	}
	strike(primary)
	if mode == "async" {
		r.signal(syscall.SIGCONT, standby)
	}
	c.end()
	r.until("the standby took over", primaryOfAll(standby))
	kept, err := prefix(r.crossed(standby))
	if err != nil {
		r.t.Fatalf("after the failover the volumes are no prefix of what was written to them: %v", err)
	}
	acked = c.acked.Load()
	r.t.Logf("%s: %d writes acknowledged from %d on, %d kept", mode, acked-from, from, kept-from)
	if mode != "async" && kept < acked || (acked-kept)*chainWrite > 64<<20 {
		r.t.Fatalf("%d writes were acknowledged and %d are kept", acked, kept)
	}
	return kept, acked
}

// rescuedOrder checks that what the old primary had acknowledged and the new one lacks is kept, of both volumes at one point (R19).
func (r *rig) rescuedOrder(acked int64) {
	r.t.Helper()
	all := r.images(Group)
	if len(all) != 1 || !all[0].Whole {
		r.t.Fatalf("rescue images of the group: %+v", all)
	}
	_, errs := r.admin(1, "volume", "rescue", "export", Group, all[0].ID, "--out", filepath.Join(r.cfg.Dir, "whole.img"))
	r.says(errs, "export the image of each of its volumes, vol, wal")
	var parts []io.ReaderAt
	for _, v := range []string{Volume, wal} {
		path := filepath.Join(r.cfg.Dir, fmt.Sprint(v, acked, ".img"))
		r.admin(0, "volume", "rescue", "export", v, all[0].ID, "--out", path)
		content, err := os.ReadFile(path)
		if err != nil || len(content) != 64<<20 {
			r.t.Fatalf("the export of %s has %d bytes (%v)", v, len(content), err)
		}
		parts = append(parts, bytes.NewReader(content))
	}
	if had, err := prefix(crossed{parts[0], parts[1]}); err != nil || had < acked {
		r.t.Errorf("the rescue image has the first %d writes (%v), %d were acknowledged", had, err, acked)
	}
	r.forgetImages()
}

// R13: a writer that goes from one volume to the other and back, each time after the answer, finds on the promoted copy a prefix over
// both, when the primary is killed and when its power is cut.
func TestGroupKeepsTheOrderOverItsVolumes(t *testing.T) {
	rounds := times(2, 8)
	for _, mode := range []string{"async", "sync"} {
		t.Run(mode, func(t *testing.T) {
			r := group(t, Config{Mode: mode, Extra: orderBlock})
			kept, acked := int64(0), int64(0)
			for range rounds {
				victim := ""
				kept, acked = r.crossedRound(kept, mode, func(node string) { victim = node; r.Kill(node) })
				r.start(victim)
				r.until("healed", allAre(api.VolumeHealthy))
				if acked > kept {
					r.rescuedOrder(acked)
				}
			}
			r.sameFiles()
		})
		t.Run(mode+" and power cuts", func(t *testing.T) {
			p := power(t, Config{Mode: mode, More: []string{wal}, Extra: orderBlock})
			p.start()
			kept := int64(0)
			for i := range rounds {
				victim := ""
				kept, _ = p.crossedRound(kept, mode, func(node string) { victim = node; p.cut(ways[i%3], uint64(i), node) })
				p.start(victim)
			}
			p.sameFiles()
		})
	}
}

// R20: a flush of one volume is one of the group. What was acknowledged on the other one before is there when the power of all three
// nodes has gone, with everything that no disk was told to keep.
func TestFlushOfOneVolumeIsOfTheGroup(t *testing.T) {
	for _, mode := range []string{"sync", "async"} {
		t.Run(mode, func(t *testing.T) {
			p := power(t, Config{Mode: mode, More: []string{wal}, Extra: orderBlock})
			p.start()
			primary := p.until("healthy", allAre(api.VolumeHealthy)).Volumes[0].Primary
			a, b := p.dialOf(primary, Volume), p.dialOf(primary, wal)
			if _, err := b.WriteAt(filled('w'), 0); err != nil {
				t.Fatal(err)
			}
			if err := a.Flush(); err != nil {
				t.Fatal(err)
			}
			if _, err := a.WriteAt(filled('v'), 0); err != nil { // not flushed: what a power cut takes
				t.Fatal(err)
			}
			if p.cut(disk.Drop, 1, Nodes...) == 0 {
				t.Error("the power cut took nothing back: this proves nothing")
			}
			p.start()
			s := p.until("served again", allAre(api.VolumeHealthy))
			p.hasAt(s.Volumes[0].Primary, wal, 0, filled('w'))
		})
	}
}

// R23, R26: one device of a standby's replica fails, or does not return. All of the replica leaves, the event names the device, the
// primary goes on, and when the device works again all of it is resynced.
func TestOneFailingDeviceOfAGroupIsAFailureOfTheReplica(t *testing.T) {
	cfg := patientDisks
	cfg.RTO, cfg.More = "10s", []string{wal}
	p := power(t, cfg)
	p.start()
	primary := p.until("healthy", allAre(api.VolumeHealthy)).Volumes[0].Primary
	standby := other(primary)
	c := p.chainOn(p.crossed(primary), 0, 0)
	for _, f := range []struct {
		disk.Fault
		event string
	}{
		{disk.Fault{Kind: disk.EIO, Op: disk.Write, Glob: "*-wal.img"}, "disk failed"},
		{disk.Fault{Kind: disk.Hang, Op: disk.Write, Glob: "*-wal.img"}, "disk stalled"},
	} {
		p.strike(standby, f.Fault)
		p.bitten(standby, f.Fault)
		p.until("it has left with both volumes", func(s *api.Status) bool {
			return s.Quorum && len(s.Volumes) == 2 && len(s.Volumes[0].InSync) == 1 && len(s.Volumes[1].InSync) == 1
		})
		c.await(c.acked.Load() + chainSlots)
		p.until("the event names the device", func(*api.Status) bool {
			ctx, cancel := p.within()
			defer cancel()
			out, _, _ := p.AdminAt(ctx, p.socket(standby), "events") // they are its own
			for line := range strings.Lines(out) {
				if strings.Contains(line, f.event) && strings.Contains(line, p.DiskOf(standby, wal)) {
					return true
				}
			}
			return false
		})
		p.heal(standby)
		p.until("resynced", allAre(api.VolumeHealthy))
	}
	if s := p.until("healthy", allAre(api.VolumeHealthy)); s.Volumes[0].Primary != primary {
		t.Errorf("the standby's device moved the group to %s", s.Volumes[0].Primary)
	}
	c.end()
	p.sameFiles()
}
