package ring3

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/blockdev/frontend/nbd/nbdproto"
	"hacluster/cmd/internal/api"
)

// The faults of a backing, by side and operation, and what must come of each (faults.md D88 to D91, D94, D95; R23, R26): who
// serves, what the status says, which event tells of it, and what clients see. Whatever it is, every daemon answers all the
// time, and when the disk works again everything is whole.
//
// A standby's reads are not here: it reads for others only, and what it cannot read is no failure of its disk (D88).

// ailment is how a disk fails.
type ailment struct {
	name string
	err  error
	hang bool
	away bool // it cannot be opened either
}

var ailments = []ailment{
	{name: "EIO", err: syscall.EIO},
	{name: "ENOSPC", err: syscall.ENOSPC},
	{name: "EROFS", err: syscall.EROFS, away: true},   // remounted read-only
	{name: "ENXIO", err: syscall.ENXIO, away: true},   // pulled out
	{name: "ENODEV", err: syscall.ENODEV, away: true}, // likewise
	{name: "hang", hang: true},
}

// ailing is one row of the table.
type ailing struct {
	side string
	op   blockdev.Op
	only []string // ailments; none: all that there are
	want outcome
	// often is the ailment that is tried in any case; empty: none
	often string
}

// outcome is what must come of it.
type outcome struct {
	moves   bool   // the other replica serves
	dropped bool   // the replica is no member any more
	failed  bool   // the status has it as failed, with a reason
	event   string // that its node has of it
	errors  bool   // clients see errors
}

var (
	bad     = []string{"EIO", "ENXIO", "ENODEV"} // of a read
	errs    = []string{"EIO", "ENOSPC", "EROFS", "ENXIO", "ENODEV"}
	anyKind = blockdev.Op(0)
)

var diskTable = []ailing{
	{side: "primary", op: blockdev.OpRead, only: bad, want: outcome{event: "read mended"}},
	{side: "primary", op: blockdev.OpRead, only: []string{"hang"}, want: outcome{moves: true, dropped: true, failed: true, event: "disk failed"}},
	{side: "primary", op: blockdev.OpWrite, want: outcome{moves: true, dropped: true, failed: true, event: "disk failed"}},
	{side: "primary", op: blockdev.OpFlush, want: outcome{moves: true, dropped: true, failed: true, event: "disk failed"}},
	{side: "primary", op: anyKind, often: "ENXIO", want: outcome{moves: true, dropped: true, failed: true, event: "disk failed"}},
	{side: "standby", op: blockdev.OpWrite, want: outcome{dropped: true, failed: true, event: "disk failed"}},
	{side: "standby", op: blockdev.OpFlush, often: "hang", want: outcome{dropped: true, failed: true, event: "disk failed"}},
	{side: "standby", op: anyKind, want: outcome{dropped: true, failed: true, event: "disk failed"}},
	{side: "last", op: blockdev.OpRead, only: bad, want: outcome{event: "read failed", errors: true}},
	{side: "last", op: blockdev.OpRead, only: []string{"hang"}, want: outcome{failed: true, event: "disk failed"}},
	{side: "last", op: blockdev.OpWrite, only: errs, often: "EIO", want: outcome{failed: true, event: "disk failed", errors: true}},
	{side: "last", op: blockdev.OpWrite, only: []string{"hang"}, want: outcome{failed: true, event: "disk failed"}},
	{side: "last", op: blockdev.OpFlush, only: errs, want: outcome{failed: true, event: "disk failed", errors: true}},
	{side: "last", op: blockdev.OpFlush, only: []string{"hang"}, want: outcome{failed: true, event: "disk failed"}},
}

// applies reports whether a row has an ailment, and it is one of those to be tried: HACLUSTER_LONG tries all.
func (r *ailing) applies(a ailment) bool {
	switch {
	case len(r.only) > 0 && !slices.Contains(r.only, a.name):
		return false
	case os.Getenv("HACLUSTER_LONG") != "":
		return true
	}
	return a.name == r.often
}

func TestDisksThatFail(t *testing.T) {
	for _, side := range []string{"primary", "standby", "last"} {
		t.Run(side, func(t *testing.T) {
			ill(t, func(w *world) error {
				for _, row := range diskTable {
					for _, a := range ailments {
						if row.side != side || !row.applies(a) {
							continue
						}
						w.tell("%s of the %s's disk: %s", kindOf(row.op), side, a.name)
						if err := errors.Join(w.ail(t, &row, a), w.awaitHealthy(settleLimit)); err != nil {
							return fmt.Errorf("%s: %s: %s: %w", side, kindOf(row.op), a.name, err)
						}
					}
				}
				return nil
			})
		})
	}
}

// A disk that is not there when its node starts is looked for again and again: the node is there without it, says why it has
// no replica, and takes the disk when it is back (D95).
func TestD95DiskThatIsNotThereAtTheStart(t *testing.T) {
	ill(t, func(w *world) error {
		_, primary, standby := w.roles(t)
		if err := standby.crash(false); err != nil {
			return err
		}
		standby.disk.vanish(syscall.ENXIO)
		if err := standby.start(); err != nil {
			return err
		}
		err := w.until("it is failed", func(v *api.VolumeStatus) bool {
			r := replicaOf(v, standby.name)
			return v.Primary == primary.name && r.State == api.ReplicaFailed && strings.Contains(r.Reason, syscall.ENXIO.Error()) &&
				slices.Contains(standby.events(), "replica not opened")
		})
		if err != nil {
			return err
		}
		time.Sleep(10 * time.Second) // it is tried a few times
		standby.disk.vanish(nil)
		if err := w.awaitHealthy(settleLimit); err != nil {
			return err
		}
		told := 0
		for _, e := range standby.events() {
			if e == "replica not opened" || e == "replica opened" {
				told++
			}
		}
		if told != 2 {
			return fmt.Errorf("%d events of a disk that was away and came back: %v", told, standby.events())
		}
		return nil
	})
}

// ill is a scene with few clients: what is looked at takes longer than a failover.
func ill(t *testing.T, f func(w *world) error) {
	t.Helper()
	if testing.Short() {
		t.Skip("whole nodes take their time: not with -short")
	}
	in(t, 1, 10*sceneThink, f)
}

func kindOf(op blockdev.Op) string {
	if op == anyKind {
		return "every operation"
	}
	return "each " + op.String()
}

// ail has a disk fail, looks at what comes of it, and makes it well.
func (w *world) ail(t *testing.T, row *ailing, a ailment) error {
	_, primary, standby := w.roles(t)
	victim, serves := primary, primary
	switch {
	case row.side == "standby":
		victim = standby
	case row.side == "last":
		if err := standby.crash(false); err != nil {
			return err
		}
		if err := w.until("it is alone", func(v *api.VolumeStatus) bool { return len(v.InSync) == 1 }); err != nil {
			return err
		}
	case row.want.moves:
		serves = standby
	}
	seen := victim.events()
	before := w.refusals()
	if a.away {
		victim.disk.vanish(a.err)
	}
	h := victim.disk.harm(faultdev.Rule{Op: row.op, Err: a.err, Stall: a.hang})
	defer h.Remove()
	if row.op == blockdev.OpFlush {
		hangUp, err := w.flush(primary)
		if err != nil {
			return err
		}
		defer hangUp()
	}
	err := w.until(fmt.Sprintf("%+v", row.want), func(v *api.VolumeStatus) bool {
		r := replicaOf(v, victim.name)
		return h.Hits() > 0 && v.Primary == serves.name && slices.Contains(v.InSync, victim.name) != row.want.dropped &&
			(r.State == api.ReplicaFailed && r.Reason != "") == row.want.failed &&
			slices.Contains(victim.events()[len(seen):], row.want.event) && (!row.want.errors || w.refusals() > before)
	})
	if err != nil {
		return err
	}
	time.Sleep(rto)
	if !row.want.errors && w.refusals() > before {
		return fmt.Errorf("clients saw errors: %v", w.load.Record().Errors)
	}
	for _, n := range names {
		if s, err := w.status(n); w.m[n].node != nil && (err != nil || s.Volumes[0].Primary != serves.name) {
			return fmt.Errorf("it did not stay so, or %s is not there: %+v, %v", n, s, err)
		}
	}
	victim.disk.vanish(nil)
	h.Remove()
	if row.side == "last" {
		return standby.start()
	}
	return nil
}

// flush has a client ask for one, and returns how to leave it.
func (w *world) flush(m *machine) (hangUp func(), err error) {
	conn, err := nbdclient.Config{Connect: w.net.host("client").Dial}.Dial(context.Background(), fmt.Sprintf("nbd+unix:///vol?socket=%s/%s.sock", w.dir, m.name))
	if err != nil {
		return nil, err
	}
	conn.Start(nbdclient.Op{Cmd: nbdproto.CmdFlush})
	return func() {
		conn.Abort()
		<-conn.Lost()
	}, nil
}

// until waits until the witness's status has the volume so.
func (w *world) until(what string, so func(*api.VolumeStatus) bool) error {
	began, last := time.Now(), ""
	for time.Since(began) < time.Minute {
		s, err := w.status("gamma")
		if err != nil {
			return err
		}
		if so(&s.Volumes[0]) {
			return nil
		}
		last = fmt.Sprintf("%+v", s.Volumes[0])
		time.Sleep(250 * time.Millisecond)
	}
	return fmt.Errorf("not so after a minute: %s: %s", what, last)
}

func replicaOf(v *api.VolumeStatus, node string) api.ReplicaStatus {
	for _, r := range v.Replicas {
		if r.Node == node {
			return r
		}
	}
	return api.ReplicaStatus{}
}

// events are the kinds of what the machine's node has to tell.
func (m *machine) events() (kinds []string) {
	_ = m.node.Events(context.Background(), false, func(e api.Event) error {
		kinds = append(kinds, e.Kind)
		return nil
	})
	return kinds
}

// refusals is how many answers were errors.
func (w *world) refusals() (n int) {
	for _, k := range w.load.Record().Errors {
		n += k
	}
	return n
}
