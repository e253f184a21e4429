package ring3

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/lab/history"
	"hacluster/cmd/internal/node"
)

// sceneThink is how long the clients of a scene rest: the gaps that they see are that much longer.
const sceneThink = 20 * time.Millisecond

// clientSlack is by how much an outage looks longer to clients than it is: they come back every 20 ms to each server.
const clientSlack = 100 * time.Millisecond

// roles waits until leadership is off the primary's node, as the leader sees to it, and tells who is who.
func (w *world) roles(t *testing.T) (leader, primary, standby *machine) {
	t.Helper()
	for range 400 {
		s, err := w.status("gamma")
		if err == nil && s.Leader != "" && s.Leader != s.Volumes[0].Primary {
			primary = w.m[s.Volumes[0].Primary]
			standby = w.m[names[0]]
			if standby == primary {
				standby = w.m[names[1]]
			}
			return w.m[s.Leader], primary, standby
		}
		time.Sleep(250 * time.Millisecond)
	}
	t.Error("leadership stays with the primary")
	return w.m["gamma"], w.m["alpha"], w.m["beta"]
}

// gap is how long nobody had a write acknowledged around a moment.
func (w *world) gap(from time.Duration) time.Duration {
	gap, _ := history.LongestGap(w.load.Record().Ops, from-sceneThink, w.clock())
	return gap
}

func timers(t *testing.T) config.Timers {
	t.Helper()
	c, err := config.TimersFor(rto)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// scene is one schedule: the cluster is founded and loaded for a second; afterwards it has to heal.
func scene(t *testing.T, f func(w *world) error) {
	t.Helper()
	if testing.Short() {
		t.Skip("whole nodes take their time: not with -short")
	}
	in(t, 1, sceneThink, func(w *world) error {
		time.Sleep(time.Second)
		if err := f(w); err != nil {
			return err
		}
		return w.awaitHealthy(settleLimit)
	})
}

// The first figure that ha-admin prints: while the leader lives, a failover takes no longer than the target, on a
// machine that takes no time for anything but disks and wires.
func TestLossOfThePrimaryWithinTheTarget(t *testing.T) {
	for _, power := range []bool{false, true} {
		scene(t, func(w *world) error {
			leader, primary, _ := w.roles(t)
			if leader.name != "gamma" {
				w.tell("the leader is %s", leader.name)
			}
			at := w.clock()
			if err := primary.crash(power); err != nil {
				return err
			}
			time.Sleep(2 * rto)
			gap, most := w.gap(at), timers(t).Failover()+clientSlack
			t.Logf("no write for %v", gap)
			if gap > most {
				t.Errorf("power %t: no write for %v, %v is the most", power, gap, most)
			}
			return primary.start()
		})
	}
}

// A primary that is cut off from all, with its clients beside it: it suspends before anybody else serves, and the
// others are not slower than after a crash.
func TestIsolatedPrimaryIsReplacedWithinTheTarget(t *testing.T) {
	scene(t, func(w *world) error {
		_, primary, _ := w.roles(t)
		var ps []path
		for _, n := range names {
			if n != primary.name {
				ps = append(ps, path{primary.name, n}, path{n, primary.name})
			}
		}
		at := w.clock()
		heal := w.sever(ps, true)
		time.Sleep(3 * rto)
		// Clients leave a silent server after a second, so the cut of theirs may end later than the promotion.
		gap, most := w.gap(at), timers(t).Failover()+time.Second+clientSlack
		t.Logf("no write for %v", gap)
		if gap > most {
			t.Errorf("no write for %v, %v is the most", gap, most)
		}
		heal()
		return nil
	})
}

// The two data nodes do not reach each other, the witness reaches both, and the standby leads: its primary's lease is
// renewed by way of the witness, but only the leader could drop the standby, and no order reaches it. It makes room for a
// leader that everybody reaches, and the service goes on where it is.
func TestStandbyThatLeadsMakesRoomForOneThatReachesThePrimary(t *testing.T) {
	scene(t, func(w *world) error {
		if err := w.m["gamma"].crash(false); err != nil {
			return err
		}
		primary, standby := w.leaderOfTwo(t)
		if err := w.m["gamma"].start(); err != nil {
			return err
		}
		if err := w.awaitHealthy(settleLimit); err != nil {
			return err
		}
		time.Sleep(2 * timers(t).Lease) // a young leader stays
		at := w.clock()
		heal := w.sever([]path{{primary, standby}, {standby, primary}}, true)
		time.Sleep(10 * rto)
		gap := w.gap(at)
		t.Logf("no write for %v", gap)
		if gap > rto {
			t.Errorf("no write for %v, %v is the most", gap, rto)
		}
		if s, err := w.status("gamma"); err != nil || s.Volumes[0].Primary != primary {
			t.Errorf("the role moved: %+v, %v", s, err)
		}
		heal()
		return nil
	})
}

// leaderOfTwo waits until, of two data nodes alone, the standby leads.
func (w *world) leaderOfTwo(t *testing.T) (primary, standby string) {
	t.Helper()
	for range 400 {
		if s, err := w.status("alpha"); err == nil && len(s.Volumes) == 1 && s.Volumes[0].Primary != "" && s.Leader != "" && s.Leader != "gamma" && s.Leader != s.Volumes[0].Primary {
			return s.Volumes[0].Primary, s.Leader
		}
		time.Sleep(250 * time.Millisecond)
	}
	t.Error("leadership does not come to the standby")
	return "alpha", "beta"
}

// A standby that is gone holds writes up until it is dropped, no longer (R4).
func TestLossOfTheStandbyHoldsWritesUntilItIsDropped(t *testing.T) {
	scene(t, func(w *world) error {
		_, _, standby := w.roles(t)
		at := w.clock()
		if err := standby.crash(true); err != nil {
			return err
		}
		time.Sleep(2 * rto)
		gap, most := w.gap(at), timers(t).DropAfter+timers(t).Tick+clientSlack
		t.Logf("no write for %v", gap)
		if gap > most {
			t.Errorf("no write for %v, %v is the most", gap, most)
		}
		return standby.start()
	})
}

// A disk error on the primary: it hands over, no client sees an error, and its replica comes back by a resync (R23).
func TestDiskErrorOfThePrimaryHandsOver(t *testing.T) {
	scene(t, func(w *world) error {
		_, primary, standby := w.roles(t)
		h := primary.disk.harm(faultdev.Rule{Op: blockdev.OpWrite, Err: syscall.EIO})
		time.Sleep(2 * rto)
		h.Remove()
		if s, err := w.status("gamma"); err != nil || s.Volumes[0].Primary != standby.name {
			t.Errorf("the role did not move: %+v, %v", s, err)
		}
		if errs := w.load.Record().Errors; len(errs) > 0 {
			t.Errorf("clients saw errors: %v", errs)
		}
		return nil
	})
}

// A replica that is back is a member again as soon as it has what it lacks, however long it was away: nothing that
// waited longer and longer for it waits on. (Raft's leader did, up to ten seconds.)
func TestBackAfterALongOutageIsWholeAtOnce(t *testing.T) {
	scene(t, func(w *world) error {
		_, _, standby := w.roles(t)
		if err := standby.crash(false); err != nil {
			return err
		}
		time.Sleep(54 * time.Second)
		if err := standby.start(); err != nil {
			return err
		}
		began := time.Now()
		err := w.awaitHealthy(settleLimit)
		if took := time.Since(began); took > rto {
			t.Errorf("healthy after %v, %v is the most", took, rto)
		}
		return err
	})
}

// The judgement judges: disks that say "durable" and keep nothing lose acknowledged writes with all power, or parts of
// them, and that is seen.
func TestLyingDisksAreSeen(t *testing.T) {
	if testing.Short() {
		t.Skip("whole nodes take their time: not with -short")
	}
	dir, log := folder(t), newTail(t)
	var w *world
	var err error
	synctest.Test(t, func(*testing.T) {
		if w, err = newWorld(1, dir, log.handler()); err != nil {
			return
		}
		for _, m := range w.m {
			m.disk.lies = true
		}
		err = w.run(sceneThink, func(w *world) error {
			time.Sleep(time.Second)
			for _, n := range holders {
				if err := w.m[n].crash(true); err != nil {
					return err
				}
			}
			for _, n := range holders {
				if err := w.m[n].start(); err != nil {
					return err
				}
			}
			return w.awaitHealthy(settleLimit)
		})
		if e := w.end(); err == nil {
			err = e
		}
	})
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, strings.Join(w.told, "\n"), log.end())
	}
	if err := w.judge(); err == nil || !strings.Contains(err.Error(), "stale") && !strings.Contains(err.Error(), "broken blocks") {
		t.Errorf("judged: %v", err)
	}
}

// An order to hand over outlives the leader that took it: the node that was asked gives it to the next one.
func TestOrderOutlivesItsLeader(t *testing.T) {
	scene(t, func(w *world) error {
		leader, primary, standby := w.roles(t)
		slow := primary.disk.harm(faultdev.Rule{Op: blockdev.OpFlush, Delay: rto / 2}) // the leader is gone before the give-up
		ctx, cancel := context.WithTimeout(context.Background(), 5*rto)
		defer cancel()
		done := make(chan error, 1)
		go func(n *node.Node) {
			f, err := n.Failover(ctx, api.FailoverRequest{Volume: "vol", To: standby.name})
			if err == nil && f.To != standby.name {
				err = fmt.Errorf("it moved to %s", f.To)
			}
			done <- err
		}(primary.node)
		time.Sleep(rto / 4)
		if err := leader.crash(false); err != nil {
			return err
		}
		if err := <-done; err != nil {
			t.Errorf("handed over to %s while the leader died: %v", standby.name, err)
		}
		slow.Remove()
		return leader.start()
	})
}
