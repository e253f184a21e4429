package role

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"hacluster/heartbeat/cluster"
)

var (
	incA = cluster.Incarnation{Boot: "a", Attachment: "1"}
	incB = cluster.Incarnation{Boot: "b", Attachment: "1"}
)

// promoted are the facts of process 4 of s, which epoch 6 names, while p, the old primary, is still a member.
func promoted() Facts {
	return Facts{Self: "s", Lease: true,
		Volume: cluster.Volume{Name: "v", Epoch: 6, Version: 20, Primary: "s", Process: 4, Previous: "p",
			Members: map[string]cluster.Member{"s": {Incarnation: incA, Process: 4}, "p": {Incarnation: incA, Process: 9}}},
		Report: cluster.Report{Volume: "v", Incarnation: incA, Process: 4, Epoch: 6, Held: true}}
}

// standby are the facts of process 4 of s, a member in p's epoch 6.
func standby() Facts {
	f := promoted()
	f.Volume.Primary, f.Volume.Process, f.Volume.Previous = "p", 9, ""
	return f
}

func with(f Facts, change func(*Facts)) Facts {
	f.Volume = f.Volume.Clone()
	change(&f)
	return f
}

func alone(f *Facts) { f.Volume.Previous = ""; delete(f.Volume.Members, "p") }

func semi(f *Facts, served string) { f.Volume.Mode, f.Volume.Served = cluster.ModeSemisync, served }

func async(f *Facts, served string) { f.Volume.Mode, f.Volume.Served = cluster.ModeAsync, served }

func mixed(f *Facts, served string) {
	f.Volume.Mode, f.Volume.Served = cluster.ModeSync, served
	f.Volume.Replicas = []cluster.Replica{{Node: "p"}, {Node: "s"}, {Node: "x", Mode: cluster.ModeAsync}}
}

func TestNext(t *testing.T) {
	drop := Propose{cluster.Command{By: "s", Drop: &cluster.Drop{On: cluster.On{Volume: "v", Epoch: 6, Version: 20}, Node: "p", Reason: "its epoch ended"}}}
	giveUp := GiveUp{Epoch: 6, Why: "the replica failed before it could serve"}
	for name, c := range map[string]struct {
		from   Facts
		change func(*Facts)
		want   Action
	}{
		// R6: nothing is answered before the old primary has left.
		"promoted, the old primary in the set": {promoted(), func(*Facts) {}, drop},
		"promoted, the old primary gone":       {promoted(), alone, Serve{6}},
		"promoted by a hand-over":              {promoted(), func(f *Facts) { f.Volume.Previous = "" }, Serve{6}},
		"no lease":                             {promoted(), func(f *Facts) { f.Lease = false }, nil},
		"no lease, the old primary gone":       {promoted(), func(f *Facts) { alone(f); f.Lease = false }, nil},
		// R6: void for any other process or incarnation.
		"another process was named":           {promoted(), func(f *Facts) { f.Volume.Process = 3 }, nil},
		"another process of it is the member": {promoted(), func(f *Facts) { f.Volume.Members["s"] = cluster.Member{Incarnation: incA, Process: 3} }, nil},
		"another incarnation was named":       {promoted(), func(f *Facts) { f.Report.Incarnation = incB }, nil},
		"a new process of the primary":        {promoted(), func(f *Facts) { alone(f); f.Report.Process = 5 }, nil}, // R2
		"not a member":                        {promoted(), func(f *Facts) { delete(f.Volume.Members, "s") }, nil},
		"serving what another is primary of":  {standby(), func(f *Facts) { f.Serving = 5 }, Stop{"epoch 6 belongs to p"}},
		"serving in an older epoch, our own":  {promoted(), func(f *Facts) { f.Serving = 5 }, Stop{"epoch 6 belongs to s"}}, // R11
		"serving as another process's":        {promoted(), func(f *Facts) { f.Serving, f.Volume.Process = 6, 5 }, Stop{"epoch 6 belongs to s"}},
		"serving, all well":                   {promoted(), func(f *Facts) { alone(f); f.Serving = 6 }, nil},
		"serving without a lease":             {promoted(), func(f *Facts) { alone(f); f.Serving, f.Lease = 6, false }, nil}, // R11: it suspends
		// R2: the epoch is stored before anything is done in it, and after older work has ended.
		"epoch not stored":                      {promoted(), func(f *Facts) { f.Report.Epoch = 5 }, StoreEpoch{6}},
		"epoch not stored, older work":          {promoted(), func(f *Facts) { f.Report.Epoch, f.Busy = 5, 1 }, nil},
		"epoch stored, older work":              {promoted(), func(f *Facts) { alone(f); f.Busy = 1 }, nil},
		"epoch not stored, stop comes first":    {promoted(), func(f *Facts) { f.Report.Epoch, f.Serving = 5, 5 }, Stop{"epoch 6 belongs to s"}},
		"standby, epoch not stored":             {standby(), func(f *Facts) { f.Report.Epoch = 5 }, StoreEpoch{6}},
		"standby, epoch not stored, busy":       {standby(), func(f *Facts) { f.Report.Epoch, f.Busy = 5, 2 }, nil},
		"standby, epoch not stored, stalled":    {standby(), func(f *Facts) { f.Report.Epoch, f.Report.Stalled = 5, true }, nil}, // R26
		"standby, backing not held":             {standby(), func(f *Facts) { f.Report.Epoch, f.Report.Held = 5, false }, nil},
		"no member, epoch not stored":           {standby(), func(f *Facts) { f.Report.Epoch = 5; delete(f.Volume.Members, "s") }, StoreEpoch{6}},
		"never promoted":                        {standby(), func(f *Facts) { f.Volume.Epoch, f.Volume.Primary = 0, "" }, nil},
		"the record is older than what we hold": {promoted(), func(f *Facts) { alone(f); f.Report.Epoch = 7 }, nil},
		// A size belongs to an epoch.
		"promoted, opened with another size":       {promoted(), func(f *Facts) { alone(f); f.Volume.Size = 4096 }, nil},
		"epoch not stored, another size":           {promoted(), func(f *Facts) { f.Report.Epoch, f.Volume.Size = 5, 4096 }, nil},
		"serving an older epoch, another size now": {standby(), func(f *Facts) { f.Serving, f.Volume.Size = 5, 4096 }, Stop{"epoch 6 belongs to p"}},
		// R23: the replica failed between its report and its first answer.
		"promoted and failed":                     {promoted(), func(f *Facts) { f.Report.Failed = true }, giveUp},
		"promoted and stalled before storing":     {promoted(), func(f *Facts) { f.Report.Epoch, f.Report.Stalled = 5, true }, giveUp},
		"promoted and out of service":             {promoted(), func(f *Facts) { f.Report.Problem = "no superblock" }, giveUp},
		"handed over and failed":                  {promoted(), func(f *Facts) { f.Volume.Previous, f.Report.Failed = "", true }, giveUp},
		"promoted and failed, nothing to give up": {promoted(), func(f *Facts) { f.Report.Failed, f.Lease = true, false }, nil},
		"forced although failed, nobody else":     {promoted(), func(f *Facts) { alone(f); f.Report.Failed = true }, Serve{6}},
		// R6, R25: in semisync it says by an entry of its own that nothing is unwritten, also where nobody is left to be removed.
		"semisync, alone, has not acted":        {promoted(), func(f *Facts) { alone(f); semi(f, "p") }, drop},
		"semisync, alone, something is written": {promoted(), func(f *Facts) { alone(f); semi(f, "p"); f.Busy = 1 }, nil},
		"semisync, the last one in the set":     {promoted(), func(f *Facts) { semi(f, "p") }, drop},
		"semisync, promoted again":              {promoted(), func(f *Facts) { alone(f); semi(f, "s") }, Serve{6}},
		"semisync, failed before it could act":  {promoted(), func(f *Facts) { alone(f); semi(f, "p"); f.Report.Failed = true }, giveUp}, // a person's word waits for its lease
		"semisync, failed, nothing to give up":  {promoted(), func(f *Facts) { alone(f); semi(f, "p"); f.Report.Failed, f.Lease = true, false }, nil},
		"semisync, forced although failed":      {promoted(), func(f *Facts) { alone(f); semi(f, "s"); f.Report.Failed = true }, Serve{6}},
		// R13, R20: what is written here becomes durable before it is all that counts.
		"async, has not acted":                      {promoted(), func(f *Facts) { async(f, "p") }, Flush{6}},
		"async, older work":                         {promoted(), func(f *Facts) { async(f, "p"); f.Busy = 1 }, nil},
		"async, epoch not stored":                   {promoted(), func(f *Facts) { async(f, "p"); f.Report.Epoch = 5 }, StoreEpoch{6}},
		"async, the lease is not there yet":         {promoted(), func(f *Facts) { async(f, "p"); f.Lease = false }, Flush{6}},
		"async, flushed for an earlier epoch":       {promoted(), func(f *Facts) { async(f, "p"); f.Durable = 5 }, Flush{6}},
		"async, flushed":                            {promoted(), func(f *Facts) { async(f, "p"); f.Durable = 6 }, drop},
		"async, flushed, no lease":                  {promoted(), func(f *Facts) { async(f, "p"); f.Durable, f.Lease = 6, false }, nil},
		"async, forced":                             {promoted(), func(f *Facts) { alone(f); async(f, "s") }, Flush{6}},
		"async, flushed, acted":                     {promoted(), func(f *Facts) { alone(f); async(f, "s"); f.Durable = 6 }, Serve{6}},
		"async, the flush failed":                   {promoted(), func(f *Facts) { async(f, "p"); f.Report.Failed = true }, giveUp},
		"async, forced although failed":             {promoted(), func(f *Facts) { alone(f); async(f, "s"); f.Report.Failed = true }, Serve{6}},
		"mixed, a sync one follows":                 {promoted(), func(f *Facts) { mixed(f, "p") }, drop},
		"mixed, the async one follows":              {promoted(), func(f *Facts) { mixed(f, "p"); f.Volume.Replicas[1].Mode = cluster.ModeAsync }, Flush{6}},
		"async, a standby":                          {standby(), func(f *Facts) { async(f, "p") }, nil},
		"semisync, failed, another may have all":    {promoted(), func(f *Facts) { semi(f, "p"); f.Report.Failed = true }, giveUp},
		"standby and failed":                        {standby(), func(f *Facts) { f.Report.Failed = true }, nil},
		"standby, confirmed":                        {standby(), func(*Facts) {}, nil},
		"standby without a lease of the volume, ok": {standby(), func(f *Facts) { f.Lease = false }, nil},
	} {
		if got := Next(with(c.from, c.change)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %#v, want %#v", name, got, c.want)
		}
	}
}

func TestNewProcessOfAMemberConfirmsItselfBeforeItAnswers(t *testing.T) { // R25
	clean := &cluster.Clean{Incarnation: incA, Process: 4}
	for name, c := range map[string]struct {
		change  func(*Facts)
		rejoins bool
		answers bool
	}{
		"same incarnation": {func(f *Facts) { f.Report.Process = 5 }, true, false},
		"nothing unflushed": {func(f *Facts) {
			f.Report.Process, f.Report.Incarnation, f.Report.Unmarked = 5, incB, &cluster.Keeper{Boot: incA.Boot, Process: 4}
		}, true, false},
		"nothing unflushed, of another process": {func(f *Facts) {
			f.Report.Process, f.Report.Incarnation, f.Report.Unmarked = 5, incB, &cluster.Keeper{Boot: incA.Boot, Process: 3}
		}, false, true},
		"clean stop":      {func(f *Facts) { f.Report.Process, f.Report.Incarnation, f.Report.Clean = 5, incB, clean }, true, false},
		"lost its memory": {func(f *Facts) { f.Report.Process, f.Report.Incarnation = 5, incB }, false, true},
		"mark of another process": {func(f *Facts) {
			f.Report.Process, f.Report.Incarnation, f.Report.Clean = 5, incB, &cluster.Clean{Incarnation: incA, Process: 3}
		}, false, true},
		"mark of another incarnation": {func(f *Facts) {
			f.Report.Process, f.Report.Incarnation, f.Report.Clean = 5, incB, &cluster.Clean{Incarnation: incB, Process: 4}
		}, false, true},
		"failed":                          {func(f *Facts) { f.Report.Process, f.Report.Failed = 5, true }, false, true},
		"inconsistent":                    {func(f *Facts) { f.Report.Process, f.Report.Inconsistent = 5, true }, false, true},
		"epoch not stored yet":            {func(f *Facts) { f.Report.Process, f.Report.Epoch = 5, 5 }, false, false},
		"no member":                       {func(f *Facts) { f.Report.Process = 5; delete(f.Volume.Members, "s") }, false, true},
		"the member's own process":        {func(*Facts) {}, false, true},
		"primary, promoted anew instead":  {func(f *Facts) { f.Report.Process, f.Volume.Primary = 5, "s" }, false, true}, // R2
		"before the volume's first epoch": {func(f *Facts) { f.Volume.Epoch, f.Report.Process, f.Report.Epoch = 0, 5, 0 }, false, false},
	} {
		f := with(standby(), c.change)
		p, ok := Next(f).(Propose)
		if ok = ok && p.Command.Rejoin != nil; ok != c.rejoins {
			t.Errorf("%s: proposes to rejoin: %t, want %t", name, ok, c.rejoins)
		}
		if ok {
			r := p.Command.Rejoin
			want := cluster.Member{Incarnation: f.Report.Incarnation, Process: 5}
			if r.Member != want || r.Node != "s" || r.Clean != f.Report.Clean || r.Version != 20 || r.Epoch != 6 || p.Command.By != "s" {
				t.Errorf("%s: proposed %+v by %s", name, r, p.Command.By)
			}
		}
		if got := MayAnswer(f); got != c.answers {
			t.Errorf("%s: may answer: %t, want %t", name, got, c.answers)
		}
	}
}

// Whatever the facts: serving begins only with the lease, in the stored epoch, as the very process that the promotion
// named, after the old primary has left, with nothing older on the device, never on a failed replica beside others
// (R2, R6, R23); and following the actions ends.
func TestRandomFactsNeverServeTooEarly(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 4))
	flip := func() bool { return rng.IntN(3) == 0 }
	serves := 0
	for range 200_000 {
		f := promoted()
		if flip() {
			f = standby()
		}
		if flip() {
			alone(&f)
		}
		if flip() {
			semi(&f, []string{"p", "s"}[rng.IntN(2)])
		}
		if flip() {
			async(&f, []string{"p", "s"}[rng.IntN(2)])
			f.Durable = cluster.Epoch(5 + rng.IntN(2))
		}
		if flip() {
			f.Volume.Process = uint64(3 + rng.IntN(3))
		}
		if flip() {
			f.Report.Process = uint64(3 + rng.IntN(3))
		}
		if flip() {
			f.Report.Incarnation = incB
		}
		f.Lease, f.Busy = !flip(), rng.IntN(2)
		f.Report.Epoch = cluster.Epoch(5 + rng.IntN(3))
		f.Report.Failed, f.Report.Stalled = rng.IntN(4) == 0, rng.IntN(4) == 0
		if flip() {
			f.Serving = cluster.Epoch(5 + rng.IntN(2))
		}
		v := &f.Volume
		for steps := 0; ; steps++ {
			if steps > 10 {
				t.Fatalf("the role does not come to rest: %+v", f)
			}
			a := Next(f)
			if again := Next(f); !reflect.DeepEqual(a, again) {
				t.Fatalf("not a function of its facts: %#v, %#v", a, again)
			}
			if f.Serving != 0 && v.Epoch != f.Serving {
				if _, stop := a.(Stop); !stop {
					t.Fatalf("serves epoch %d in epoch %d and does not stop: %#v", f.Serving, v.Epoch, a)
				}
			}
			switch a := a.(type) {
			case Stop:
				f.Serving = 0
				continue
			case StoreEpoch:
				if f.Busy > 0 || a.Epoch < f.Report.Epoch {
					t.Fatalf("stores epoch %d over %d with %d operations on the device", a.Epoch, f.Report.Epoch, f.Busy)
				}
				f.Report.Epoch = a.Epoch
				continue
			case Flush:
				if f.Busy > 0 || f.Report.Epoch != v.Epoch || a.Epoch != v.Epoch {
					t.Fatalf("flushes for epoch %d with %d operations on the device: %+v", a.Epoch, f.Busy, f)
				}
				f.Durable = a.Epoch
				continue
			case Serve:
				serves++
				m := v.Members["s"]
				switch {
				case !f.Lease, f.Busy > 0, v.Previous != "", f.Report.Epoch != v.Epoch, a.Epoch != v.Epoch, v.Primary != "s",
					v.Process != f.Report.Process, m.Incarnation != f.Report.Incarnation, m.Process != f.Report.Process,
					!f.Report.Usable() && len(v.Members) > 1, v.Mode == cluster.ModeSemisync && v.Served != "s",
					v.Mode == cluster.ModeAsync && (v.Served != "s" || f.Durable != v.Epoch && f.Report.Usable()):
					t.Fatalf("serves too early: %+v", f)
				}
				f.Serving = a.Epoch
				continue
			}
			break
		}
	}
	if serves < 1000 {
		t.Fatalf("served %d times only: the facts are not what this is for", serves)
	}
}
