//go:build failpoints

package replication

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/failpoint"
	"hacluster/heartbeat/cluster"
)

// Power cuts at named points, faults.md K110 and K111. Two nodes with real superblocks, maps of marks, undo areas and links,
// on memory that forgets what was not flushed, go through writes, resyncs, standbys forced in the middle of one, hand-overs,
// failed disks and clean stops. When a point that the seed has drawn is hit for the nth time, one of the nodes or both lose
// their power at that very moment: what their devices hold is decided before whoever hit it goes on. After it everything
// comes back, a leader's rules choose the primary, or a person does in the middle of a resync (powercutforce_test.go), and
// then:
//   - each sector holds a write that is not older than the newest that was acknowledged and flushed before its own write
//     was replaced; when a member kept its power, not older than the newest that was acknowledged
//   - the replicas hold the same bytes, also by what their disks hold durably
//   - what a primary held that was lost to a promotion by force is in rescue images (powercutrescue_test.go)
//
// A third of the seeds are in async, with rules of its own (powercutasync_test.go).
//
// HACLUSTER_POWERCUTS is the number of seeds; make powercuts runs a thousand. HACLUSTER_POWERCUT_MODE has all of them in one mode.

// cutPoints are where the power is cut. The points of making a superblock come before there is anything to lose.
var cutPoints = func() (all []failpoint.Point) {
	for _, r := range [][2]failpoint.Point{{failpoint.SuperblockUpdate, failpoint.SuperblockUpdated}, {failpoint.PrimaryWrite, failpoint.FailureNoted}} {
		for p := r[0]; p <= r[1]; p++ {
			all = append(all, p)
		}
	}
	return all
}()

const (
	cutVolume = 16 << 20 // four regions
	cutBlocks = 64       // spread over it
)

type cutRun struct {
	*lab
	rng   *rand.Rand
	point failpoint.Point
	left  atomic.Int64 // hits until the cut; not armed: far below zero
	nodes []*labNode   // that lose their power
	off   chan struct{}
	// starts is held while a node is started, which is no moment to take its devices away.
	starts sync.Mutex
	kept   bool     // a member that had everything kept its power
	weak   *labNode // whose disk is being made to fail
	after  []func() // what gives each of them what was left
	back   *wayBack // of a standby that left and is not a member again
	forces int
	images int         // in which something was looked for
	claims []*claim    // under mu
	async  *asyncRun   // nil: another mode
	hold   atomic.Bool // the client is to pause
	parked atomic.Bool // it does

	mu      sync.Mutex
	next    uint64
	newest  [cutBlocks]uint64 // issued
	acked   [cutBlocks]uint64
	flushed [cutBlocks]uint64
}

func TestK110PowerCutsAtNamedPointsLoseNothing(t *testing.T) {
	seeds, first := uint64(60), uint64(0)
	if n, err := strconv.ParseUint(os.Getenv("HACLUSTER_POWERCUTS"), 10, 64); err == nil {
		seeds = n
	}
	if n, err := strconv.ParseUint(os.Getenv("HACLUSTER_POWERCUT_SEED"), 10, 64); err == nil {
		first, seeds = n, 1
	}
	began, cuts, both, idle, forces, images, loses := time.Now(), map[failpoint.Point]int{}, 0, 0, 0, 0, 0
	for seed := first; seed < first+seeds; seed++ {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := newCutRun(t, seed)
			hit := r.run()
			switch {
			case hit:
				cuts[r.point]++
			default:
				idle++
			}
			if len(r.nodes) == 2 {
				both++
			}
			forces += r.forces
			images += r.images
			if r.async != nil {
				loses += r.async.loses
			}
		})
		if !ok {
			t.Fatalf("repeat it with HACLUSTER_POWERCUT_SEED=%d", seed)
		}
	}
	t.Logf("%d runs in %v: %d cuts of both nodes, %d at no point, %d forced promotions, %d rescue images read, %d times async lost something", seeds, time.Since(began).Round(time.Second), both, idle, forces, images, loses)
	for _, p := range cutPoints {
		t.Logf("%-26s hit %7d times, power cut there %3d times", p, failpoint.Hits(p), cuts[p])
		if seeds >= 1000 && (failpoint.Hits(p) < 10 || cuts[p] < 10) {
			t.Errorf("%v is not met ten times", p)
		}
	}
}

func newCutRun(t *testing.T, seed uint64) *cutRun {
	dir, err := os.MkdirTemp("/dev/shm", "hacluster-cuts-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &cutRun{rng: rand.New(rand.NewPCG(seed, 110)), off: make(chan struct{})}
	r.point = cutPoints[seed%uint64(len(cutPoints))]
	r.left.Store(-1 << 62)
	conf := labConfig{size: cutVolume, mode: cutMode(seed), inline: r.rng.IntN(2) == 0, files: dir, undo: true, rescue: true}
	if conf.mode == cluster.ModeAsync {
		conf.bound = drawBound(r.rng)
	}
	r.lab = formed(t, conf, "a", "b")
	if conf.mode == cluster.ModeAsync {
		r.watched(conf.bound)
	}
	switch a, b := r.lab.nodes["a"], r.lab.nodes["b"]; r.rng.IntN(3) {
	case 0:
		r.nodes = []*labNode{a}
	case 1:
		r.nodes = []*labNode{b}
	default:
		r.nodes = []*labNode{a, b}
	}
	return r
}

func cutMode(seed uint64) string {
	if m := os.Getenv("HACLUSTER_POWERCUT_MODE"); m != "" {
		return m
	}
	modes := []string{cluster.ModeSync, cluster.ModeSemisync, cluster.ModeAsync}
	return modes[rand.New(rand.NewPCG(seed, 111)).IntN(len(modes))]
}

// run is one history. hit: the power was cut at the point; else in the end.
func (r *cutRun) run() (hit bool) {
	sure := map[failpoint.Point]string{failpoint.GiveUpFailed: "disk", failpoint.FailureNote: "disk", failpoint.FailureNoted: "disk",
		failpoint.HandOver: "hand", failpoint.HandOverQuiet: "hand", failpoint.HandOverDone: "hand", failpoint.CleanSet: "stop", failpoint.CleanIsSet: "stop",
		failpoint.CleanClear: "stop", failpoint.CleanIsCleared: "stop", failpoint.PrimaryEnd: "hand", failpoint.PrimaryEnded: "hand", failpoint.PrimaryBegin: "hand",
		failpoint.PrimaryBegun: "hand", failpoint.EpochStore: "hand", failpoint.EpochStored: "hand",
		failpoint.RollbackWrite: "force", failpoint.RollbackWritten: "force", failpoint.UndoMake: "force", failpoint.UndoMade: "force", failpoint.UndoLog: "force",
		failpoint.UndoLogWritten: "force", failpoint.UndoLogged: "force", failpoint.UndoRemove: "force", failpoint.UndoRemoved: "force",
		failpoint.RescueMake: "force", failpoint.RescueMade: "force", failpoint.RescueKeep: "force", failpoint.RescueLabel: "force", failpoint.RescueLabelled: "force",
		failpoint.RescueRemove: "force", failpoint.RescueRemoved: "force"}
	var once sync.Once
	var writer sync.WaitGroup
	failpoint.OnHit(func(p failpoint.Point) {
		if p == r.point && r.left.Add(-1) == 0 {
			if !r.starts.TryLock() {
				r.left.Store(1) // the next time
				return
			}
			defer r.starts.Unlock()
			once.Do(func() { hit = true; r.cut() })
		}
	})
	defer failpoint.OnHit(nil)
	stop := make(chan struct{})
	writer.Go(func() { r.write(stop) })
	steps := []string{"break", "hand", "disk", "stop", "force"}
	r.rng.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	if s, ok := sure[r.point]; ok {
		steps[0] = s
	} else if r.rng.IntN(2) == 0 {
		steps[0] = "break"
	}
	r.left.Store(1 + r.rng.Int64N(r.spread()))
	for _, s := range steps[:2] {
		r.step(s)
	}
	r.left.Store(-1 << 62)
	once.Do(r.cut)
	for _, f := range r.after {
		f()
	}
	if r.async != nil {
		r.kept = !slices.Contains(r.nodes, r.lab.nodes[r.volume().Served])
	}
	failpoint.OnHit(nil)
	for _, n := range r.lab.nodes {
		n.faults.Clear()
		n.undo.clear()
		n.cable.mend()
	}
	if r.weak != nil && !slices.Contains(r.nodes, r.weak) {
		r.kept = false // the power of one and the disk of the other at once
	}
	close(stop)
	if !r.kept || r.back != nil {
		r.endWriter(&writer)
	}
	if !r.kept {
		r.lostUnflushed() // no more was promised
	}
	r.heal(&writer)
	writer.Wait()
	r.check()
	return hit
}

// endWriter cuts the client off, whose last writes may wait for what is gone.
func (r *cutRun) endWriter(writer *sync.WaitGroup) {
	ended := make(chan struct{})
	go func() {
		writer.Wait()
		close(ended)
	}()
	for {
		select {
		case <-ended:
			return
		case <-time.After(5 * time.Millisecond):
		}
		r.cutClients()
	}
}

// spread is how far into a run a point of which there are many hits may be.
func (r *cutRun) spread() int64 {
	switch r.point {
	case failpoint.PrimaryWrite, failpoint.PrimaryWritten, failpoint.PrimarySend, failpoint.PrimarySent, failpoint.PrimaryAnswer, failpoint.PrimaryAnswered,
		failpoint.PrimaryAcked, failpoint.StandbyWrite, failpoint.StandbyWritten, failpoint.StandbyAck:
		return 120
	case failpoint.PrimaryFlush, failpoint.PrimaryFlushed, failpoint.StandbyFlush, failpoint.StandbyFlushed, failpoint.ResyncCopy:
		return 15
	case failpoint.UndoLog, failpoint.UndoLogWritten, failpoint.UndoLogged, failpoint.RollbackWrite, failpoint.RollbackWritten:
		return 3
	case failpoint.SuperblockUpdate, failpoint.SuperblockUpdateWritten, failpoint.SuperblockUpdated:
		return 5
	}
	return 1
}

// cut ends the power of the nodes that the seed has drawn.
func (r *cutRun) cut() {
	r.cutPower(r.nodes)
	close(r.off)
}

// cutPower ends the power of nodes. Nothing of them reaches anybody from here on, and what their devices keep is decided.
func (r *cutRun) cutPower(nodes []*labNode) {
	for _, n := range nodes {
		n.dark.Store(true)
		n.cable.cut()
		n.leaseMu.Lock()
		n.granted = false
		n.leaseMu.Unlock()
	}
	v := r.volume()
	for _, n := range nodes {
		r.t.Logf("power of %s cut at %v, volume %+v", n.name, r.point, v)
	}
	for name := range v.Members {
		r.kept = r.kept || !slices.Contains(nodes, r.lab.nodes[name])
	}
	r.after = nil
	for _, n := range nodes {
		how := memdev.CrashOptions{Mode: memdev.KeepRandom, Rand: rand.New(rand.NewPCG(r.rng.Uint64(), 3))}
		super := n.sbFile.cut(how.Rand)
		_, _ = n.mem.Close(), n.table.Close()
		n.undo.kill()
		data, table, area, images := n.mem.Clone(how), n.table.Clone(how), n.undo.clone(how), n.rescue.cut(how)
		if isStandby(v, n) {
			r.flushOrder(n, data)
		}
		r.after = append(r.after, func() {
			n.faults.Clear() // what hangs finds the device gone
			n.undo.clear()
			_ = n.halt()
			n.mem, n.table = data, table
			r.forgotten(n)
			n.undo.set(func(u *labUndo) { u.dev = area })
			images()
			n.boot[5]++
			if err := os.WriteFile(n.superPath(), super, 0o600); err != nil {
				r.t.Fatal(err)
			}
			n.dark.Store(false)
			n.cable.mend()
		})
	}
}

// cut is what a power cut at this moment leaves: of an update that is on its way any of its sectors.
func (s *fileSuper) cut(rng *rand.Rand) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
	now, err := os.ReadFile(s.path)
	if err != nil {
		panic(err)
	}
	if len(s.before) != len(now) {
		return now
	}
	left := bytes.Clone(now)
	for at := 0; at < len(now); at += 512 {
		if rng.IntN(2) == 0 {
			copy(left[at:min(at+512, len(now))], s.before[at:])
		}
	}
	return left
}

// soon waits for cond; false: the power went off first.
func (r *cutRun) soon(what string, cond func() bool) bool {
	r.t.Helper()
	for end := time.Now().Add(3 * patience); ; time.Sleep(200 * time.Microsecond) {
		select {
		case <-r.off:
			return false
		default:
		}
		if cond() {
			return true
		}
		if time.Now().After(end) {
			r.t.Fatalf("waited for %s; volume %+v", what, r.volume())
		}
	}
}

// pair is the primary and the standby, as the record has it.
func (r *cutRun) pair() (p, s *labNode) {
	if r.volume().Primary == "b" {
		return r.lab.nodes["b"], r.lab.nodes["a"]
	}
	return r.lab.nodes["a"], r.lab.nodes["b"]
}

func (r *cutRun) whole() bool {
	v := r.volume()
	p, s := r.pair()
	t := p.get().Tenure()
	// As what it is now: the record may still name the incarnation that lost its memory, and has not been sent away (R25).
	current := v.Members[s.name].Incarnation == s.incarnation()
	return len(v.Members) == 2 && current && v.Previous == "" && t != nil && t.epoch == v.Epoch && t.gate.try() && p.peer(s.name).Connected
}

func (r *cutRun) step(name string) {
	if !r.soon("both to be members before "+name, func() bool { r.pass(dropAfter / 50); return r.whole() }) {
		return
	}
	p, s := r.pair()
	r.slows(s)
	r.writes(10)
	select {
	case <-r.off:
		return
	default:
		r.t.Logf("%s with %s as primary", name, p.name)
	}
	switch name {
	case "break":
		if !r.leave(s) {
			return
		}
		s.cable.mend()
	case "force":
		if !r.leave(s) {
			return
		}
		r.force(p, s)
	case "hand":
		ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second) // the node bounds it too
		go func() {
			defer cancel()
			select {
			case <-r.off:
			case <-ctx.Done():
			}
		}()
		_ = p.get().HandOver(ctx, s.name)
	case "disk":
		op := []blockdev.Op{blockdev.OpWrite, blockdev.OpFlush}[r.rng.IntN(2)]
		n := []*labNode{p, s}[r.rng.IntN(2)]
		if r.point == failpoint.GiveUpFailed {
			n = p
		}
		r.weak = n
		h := n.faults.Add(faultdev.Rule{Op: op, Times: 1, Err: errFault})
		r.soon("the fault to bite", func() bool { return h.Hits() > 0 })
		r.soon("it to be noted", func() bool { return n.sbFile.Failed() || !r.volume().IsMember(n.name) })
	case "stop":
		_ = s.halt()
		r.starts.Lock()
		select {
		case <-r.off: // it comes back by heal, if it is off
			if !slices.Contains(r.nodes, s) {
				s.start()
			}
			r.starts.Unlock()
			return
		default:
		}
		s.start()
		r.starts.Unlock()
	}
	if r.soon("both to be members after "+name, func() bool {
		r.pass(dropAfter / 50)
		r.allow()
		return r.whole() && (r.weak == nil || !r.weak.sbFile.Failed())
	}) {
		r.weak, r.back = nil, nil
		r.aside()
		if r.isRescue() || r.rng.IntN(2) == 0 {
			r.deletes()
		}
	}
}
