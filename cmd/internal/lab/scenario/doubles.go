package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hacluster/cmd/internal/lab/disk"
	"hacluster/cmd/internal/lab/history"
	"hacluster/cmd/internal/lab/topology"
)

// Doubles is n double faults of three replicas: two faults of any kind, the second while the first lasts or just after it was
// mended, so that it strikes the failover or the resync which the first one caused. Nothing but the record judges: nobody is
// answered while two of three voters are gone.
//
// Writes are not made durable before they count: who loses power loses some, and another replica has them. So power is only taken
// from a node while another replica, that no fault of this pair concerns, is a member; else the process is killed.
func Doubles(n int) Scenario {
	return Scenario{
		Name: "doubles", Covers: "K109 K110 T83 X98 D89 D90", What: fmt.Sprintf("%d double faults of three replicas", n), Copies: 3, RTO: "3s", Disks: true, Think: seriesThink,
		Expect: Expect{Service: Unseen},
		Series: func(r *Run) func() (Scenario, bool) {
			r.res.Pairs, r.res.Moments = map[string]int{}, map[string]int{}
			return func() (Scenario, bool) { return r.double(), total(r.res.Pairs) < n && r.res.Toothless <= n }
		},
	}
}

func total(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// blow is one of the two. Struck are the nodes that it concerns, none for a line between two: those go on.
type blow struct {
	kind   string
	struck []string
	fault  Fault
}

var blowKinds = []string{"kill", "pause", "isolation", "cut", "one way", "power cut", "disk error", "disk stall"}

// double draws everything of a pair but who is primary when the second strikes.
func (r *Run) double() Scenario {
	kinds := [2]string{blowKinds[r.Rand.IntN(len(blowKinds))], blowKinds[r.Rand.IntN(len(blowKinds))]}
	d := &double{r: r, kinds: kinds, returning: r.Rand.IntN(2) == 0, after: r.upTo(2 * time.Second), gap: r.upTo(time.Second)}
	return Scenario{Name: kinds[0] + ", then " + kinds[1], Fault: d.strike, Hold: r.upTo(2 * time.Second), Expect: Expect{Service: Unseen, Changes: 4}}
}

func (r *Run) upTo(d time.Duration) time.Duration { return time.Duration(r.Rand.Int64N(int64(d))) }

type double struct {
	r         *Run
	kinds     [2]string
	returning bool          // the first is mended before the second strikes
	after     time.Duration // from the first, or its mending, to the second
	gap       time.Duration // between the mendings
}

// untilBites is how long a blow has to meet something. A disk that nobody writes to, for there is no quorum, meets nothing.
const untilBites = 3 * time.Second

func (d *double) strike(ctx context.Context, _ *Run) (Injected, error) {
	r := d.r
	first := r.blow(d.kinds[0], nil)
	a, err := first.fault(ctx, r)
	if err != nil {
		return a, err
	}
	proof, bit := bitten(ctx, a)
	if d.returning {
		err, a.Mend = a.mend(ctx), nil
	}
	if err := errors.Join(err, wait(ctx, d.after)); err != nil {
		return a, err
	}
	second := r.blow(d.kinds[1], &first)
	b, err := second.fault(ctx, r)
	mend := d.mend(a, b)
	if err != nil {
		return Injected{Mend: mend}, err
	}
	moment := "the first lasts"
	if d.returning {
		moment = "the first is mended"
	}
	proof2, bit2 := bitten(ctx, b)
	proof = fmt.Sprintf("%s: %s; %s, %v later %s: %s", first.kind, proof, moment, d.after.Round(time.Millisecond), second.kind, proof2)
	if bit && bit2 {
		r.res.Pairs[first.kind+", then "+second.kind]++
		r.res.Moments[moment]++
	} else {
		r.res.Toothless++
		proof = "does not count: " + proof
	}
	return Injected{Bites: func() (string, bool, error) { return proof, true, nil }, Mend: mend}, nil
}

// mend mends both, in either order.
func (d *double) mend(a, b Injected) func(context.Context) error {
	if d.r.Rand.IntN(2) == 0 {
		a, b = b, a
	}
	return func(ctx context.Context) error {
		err := a.mend(ctx)
		return errors.Join(err, wait(ctx, d.gap), b.mend(ctx))
	}
}

// bitten asks for the proof of a blow, for a while.
func bitten(ctx context.Context, in Injected) (proof string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, untilBites)
	defer cancel()
	for {
		proof, ok, err := in.Bites()
		if err == nil && ok {
			return proof, true
		}
		if wait(ctx, 20*time.Millisecond) != nil {
			return fmt.Sprintf("%s (%v)", proof, err), false
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// blow draws whom a blow of a kind strikes: every other time the primary. Two blows never strike the same node twice, nor the
// third one.
func (r *Run) blow(kind string, first *blow) blow {
	nodes := r.Replicas()
	r.Rand.Shuffle(len(nodes), func(i, k int) { nodes[i], nodes[k] = nodes[k], nodes[i] })
	if p := r.watch.present().Primary; r.Rand.IntN(2) == 0 && slices.Contains(nodes, p) {
		nodes = append([]string{p}, slices.DeleteFunc(nodes, func(n string) bool { return n == p })...)
	}
	if first != nil && len(first.struck) > 0 && nodes[0] == first.struck[0] {
		nodes[0], nodes[1] = nodes[1], nodes[0]
	}
	a, b, c := fixed(nodes[0]), fixed(nodes[1]), fixed(nodes[2])
	if kind == "power cut" && !r.outlives(nodes[0], first) {
		kind = "kill"
	}
	alone := nodes[:1]
	switch kind {
	case "kill":
		return blow{kind, alone, Kill(a)}
	case "pause":
		return blow{kind, alone, Pause(a)}
	case "isolation":
		return blow{kind, alone, lose(cutRules("", a, b, c), some)}
	case "cut":
		return blow{kind, nil, lose(cutRules("", a, b), some)}
	case "one way":
		return blow{kind, nil, OneWay("", a, b)}
	case "power cut":
		return blow{kind, alone, r.powerOff(nodes[0])}
	case "disk error":
		return blow{kind, alone, Disk(disk.Fault{Kind: disk.EIO, Op: disk.Write}, topology.DiskVolume, a)}
	case "disk stall":
		return blow{kind, alone, Disk(disk.Fault{Kind: disk.Hang}, topology.DiskVolume, a)}
	}
	panic("scenario: no blow is called " + kind)
}

func fixed(node string) Role { return func(*Run) string { return node } }

// powerOff takes the power from a node. That something was lost is wanted of the whole run, not of each time.
func (r *Run) powerOff(node string) Fault {
	return func(ctx context.Context, _ *Run) (Injected, error) {
		lost, err := r.Lab.PowerCut([]disk.Mode{disk.Drop, disk.Random, disk.Torn}[r.Rand.IntN(3)], r.Rand.Uint64(), node)
		if err != nil {
			return Injected{}, err
		}
		r.res.Unflushed += lost
		return Kill(fixed(node))(ctx, r) // nothing is left to kill: it proves that, and starts the node again
	}
}

// some is content with one rule of several that lost packets: who does not run sends none.
func some(losing, _ int) bool { return losing > 0 }

// outlives reports whether a replica is a member by what every node says that answers, and no fault of this pair concerns it.
func (r *Run) outlives(victim string, first *blow) bool {
	since := history.Clock()
	for deadline := since + 2*time.Second; history.Clock() < deadline; time.Sleep(20 * time.Millisecond) {
		answered := 0
		for _, v := range r.watch.said() {
			if v.Err != "" || v.At < since {
				continue
			}
			answered++
			if !slices.ContainsFunc(v.InSync, func(n string) bool {
				return n != victim && (first == nil || !slices.Contains(first.struck, n))
			}) {
				return false
			}
		}
		if answered >= 2 || answered == 1 && first != nil && history.Clock() > since+time.Second {
			return true
		}
	}
	return false
}
