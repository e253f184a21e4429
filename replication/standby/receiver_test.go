package standby

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"hacluster/heartbeat/cluster"
)

// applied is the volume as the replica's own log shows it.
func applied(e cluster.Epoch) *cluster.Volume {
	return &cluster.Volume{Name: "v", Epoch: e, Primary: "p", Process: 4}
}

func hello(e cluster.Epoch, stream uint64) Hello {
	return Hello{Epoch: e, Primary: "p", Process: 4, Stream: stream}
}

// opened is a receiver of epoch 5 with stream 1 begun at entry 1.
func opened(t *testing.T, resync bool) *Receiver {
	t.Helper()
	r := New(5, false)
	if v := r.Hello(applied(5), hello(5, 1), 0); v != Accept {
		t.Fatalf("verdict %d, want Accept", v)
	}
	if err := r.Begin(1, 1, resync); err != nil {
		t.Fatal(err)
	}
	return r
}

func take(t *testing.T, r *Receiver, stream uint64, nums ...uint64) {
	t.Helper()
	for _, n := range nums {
		if dup, err := r.Take(stream, n, 0); dup || err != nil {
			t.Fatalf("entry %d: dup %t, %v", n, dup, err)
		}
	}
}

// faults.md G42, G43, G44
func TestHelloVerdicts(t *testing.T) { // R2
	for name, c := range map[string]struct {
		stored, log cluster.Epoch
		hello       Hello
		busy        int
		want        Verdict
	}{
		"of the stored epoch":               {5, 5, hello(5, 1), 0, Accept},
		"older than our log":                {5, 6, hello(5, 1), 0, RefuseOlder},
		"older than stored, log behind":     {5, 4, hello(4, 1), 0, RefuseOlder},
		"newer than our log":                {5, 5, hello(6, 1), 0, RefuseNewer},
		"newer than stored":                 {5, 6, hello(6, 1), 0, Store},
		"newer than stored, device busy":    {5, 6, hello(6, 1), 1, Wait},
		"device busy":                       {5, 5, hello(5, 1), 1, Wait},
		"another primary in the epoch":      {5, 5, Hello{5, "q", 4, 1}, 0, RefuseOther},
		"another process of the primary":    {5, 5, Hello{5, "p", 5, 1}, 0, RefuseOther},
		"older, and of another primary":     {5, 5, Hello{4, "q", 4, 1}, 0, RefuseOlder},
		"newer, and nobody knows its owner": {5, 5, Hello{6, "q", 4, 1}, 0, RefuseNewer},
	} {
		if got := New(c.stored, false).Hello(applied(c.log), c.hello, c.busy); got != c.want {
			t.Errorf("%s: verdict %d, want %d", name, got, c.want)
		}
	}
}

func TestOlderStreamIsRefusedForGood(t *testing.T) { // R2
	r := New(5, false)
	for _, c := range []struct {
		stream uint64
		want   Verdict
	}{{3, Accept}, {3, RefuseOlder}, {2, RefuseOlder}, {7, Accept}, {4, RefuseOlder}, {8, Accept}} {
		if got := r.Hello(applied(5), hello(5, c.stream), 0); got != c.want {
			t.Fatalf("stream %d: verdict %d, want %d", c.stream, got, c.want)
		}
	}
}

func TestNothingIsTakenFromASupersededStream(t *testing.T) { // R2
	r := opened(t, false)
	take(t, r, 1, 1, 2)
	if v := r.Hello(applied(5), hello(5, 2), 0); v != Wait {
		t.Fatalf("verdict %d with two entries on the device, want Wait", v)
	}
	if _, err := r.Take(1, 3, 0); !errors.Is(err, ErrStale) {
		t.Fatalf("entry of a superseded stream: %v, want ErrStale", err)
	}
	if r.MayAck(1) {
		t.Fatal("a superseded stream is acknowledged")
	}
	r.Returned(2)
	if v := r.Hello(applied(5), hello(5, 2), 0); v != Wait {
		t.Fatalf("verdict %d with an entry on the device, want Wait", v)
	}
	r.Returned(1)
	if v := r.Hello(applied(5), hello(5, 2), 0); v != Accept {
		t.Fatalf("verdict %d with nothing on the device, want Accept", v)
	}
	if r.LastNum() != 2 {
		t.Fatalf("the greeting names %d, want 2", r.LastNum())
	}
	if err := r.Begin(2, 3, false); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Take(1, 3, 0); !errors.Is(err, ErrStale) || r.MayAck(1) || !r.MayAck(2) {
		t.Fatalf("entry of an older stream: %v, want ErrStale", err)
	}
}

func TestNewEpochWaitsForOlderWorkAndStartsFromNothing(t *testing.T) { // R2
	r := opened(t, false)
	take(t, r, 1, 1)
	if v := r.Hello(applied(6), hello(6, 1), 0); v != Wait {
		t.Fatalf("verdict %d, want Wait", v)
	}
	r.Returned(1)
	if v := r.Hello(applied(6), hello(6, 1), 0); v != Store {
		t.Fatalf("verdict %d, want Store", v)
	}
	r.Stored(6)
	if r.Epoch() != 6 || r.LastNum() != 0 {
		t.Fatalf("epoch %d, prefix %d: what was received in an older epoch counts no more", r.Epoch(), r.LastNum())
	}
	if v := r.Hello(applied(6), hello(6, 1), 0); v != Accept {
		t.Fatalf("verdict %d, want Accept: streams count anew in each epoch", v)
	}
	if v := r.Hello(applied(5), hello(5, 9), 0); v != RefuseOlder {
		t.Fatalf("verdict %d for the old epoch, want RefuseOlder", v)
	}
	r.Stored(5)
	if r.Epoch() != 6 {
		t.Fatalf("the epoch went back to %d", r.Epoch())
	}
}

func TestStoringAnEpochOverWorkOfAnOlderOneIsABrokenInvariant(t *testing.T) { // R2
	r := opened(t, false)
	take(t, r, 1, 1)
	defer func() {
		if recover() == nil {
			t.Fatal("epoch 6 was stored while an entry of epoch 5 is on the device")
		}
	}()
	r.Stored(6)
}

func TestFenceEndsOlderStreamsAndLetsNoneBegin(t *testing.T) { // R2: our log may lag behind the leader's word
	r := opened(t, false)
	take(t, r, 1, 1)
	r.Fence(6)
	if _, err := r.Take(1, 2, 0); !errors.Is(err, ErrStale) {
		t.Fatalf("entry of an ended epoch: %v, want ErrStale", err)
	}
	if r.MayAck(1) {
		t.Fatal("an ended epoch is acknowledged")
	}
	if v := r.Hello(applied(5), hello(5, 2), 0); v != RefuseOlder {
		t.Fatalf("verdict %d for a new stream of an ended epoch, want RefuseOlder", v)
	}
	if r.Returned(1); r.Outstanding() != 0 {
		t.Fatalf("%d outstanding", r.Outstanding())
	}
	r.Fence(5) // goes back for nobody
	if v := r.Hello(applied(5), hello(5, 3), 0); v != RefuseOlder {
		t.Fatalf("verdict %d, want RefuseOlder", v)
	}
}

func TestFenceOfTheStoredEpochChangesNothing(t *testing.T) {
	r := opened(t, false)
	r.Fence(5)
	take(t, r, 1, 1)
	if r.Returned(1); !r.MayAck(1) {
		t.Fatal("the stream of the current epoch was ended")
	}
}

func TestCloseEndsOnlyItsOwnStream(t *testing.T) {
	r := opened(t, false)
	r.Close(9)
	take(t, r, 1, 1)
	r.Close(1)
	if _, err := r.Take(1, 2, 0); !errors.Is(err, ErrStale) || r.MayAck(1) {
		t.Fatalf("a closed stream goes on: %v", err)
	}
}

func TestPrefixPassesNoGap(t *testing.T) { // R2, R20
	r := opened(t, false)
	take(t, r, 1, 1, 2, 3, 4)
	for _, c := range []struct{ num, prefix uint64 }{{3, 0}, {1, 1}, {4, 1}, {2, 4}} {
		if got := r.Returned(c.num); got != c.prefix || r.LastNum() != c.prefix {
			t.Fatalf("entry %d returned: prefix %d, want %d", c.num, got, c.prefix)
		}
	}
	if r.Outstanding() != 0 {
		t.Fatalf("%d outstanding", r.Outstanding())
	}
}

// faults.md G45, G46
func TestReplayedEntryIsAcknowledgedAndNotAppliedAndAGapIsRefused(t *testing.T) {
	r := opened(t, false)
	take(t, r, 1, 1, 2)
	for _, num := range []uint64{1, 2} {
		if dup, err := r.Take(1, num, 0); !dup || err != nil {
			t.Fatalf("entry %d a second time: dup %t, %v", num, dup, err)
		}
	}
	var gap *GapError
	if _, err := r.Take(1, 4, 0); !errors.As(err, &gap) || gap.Want != 3 || gap.Got != 4 {
		t.Fatalf("entry 4 after 2: %v, want a gap at 3", err)
	}
	if dup, err := r.Take(1, 3, 0); dup || err != nil {
		t.Fatalf("entry 3: dup %t, %v", dup, err)
	}
}

func TestReplayGoesOnWhereThePrefixEnded(t *testing.T) {
	r := opened(t, false)
	take(t, r, 1, 1, 2)
	r.Returned(1)
	r.Returned(2)
	r.Hello(applied(5), hello(5, 2), 0)
	var gap *GapError
	if err := r.Begin(2, 4, false); !errors.As(err, &gap) || gap.Want != 3 {
		t.Fatalf("begin at 4 after 2: %v, want a gap at 3", err)
	}
	if err := r.Begin(2, 2, false); err != nil { // the acknowledgement of 2 was lost
		t.Fatal(err)
	}
	if dup, _ := r.Take(2, 2, 0); !dup {
		t.Fatal("entry 2 is applied a second time, over newer data perhaps")
	}
	take(t, r, 2, 3)
}

func TestNewProcessTrustsThePrimaryWithWhatItsOldOneAcknowledged(t *testing.T) { // R25: memory outlives a process
	r := New(5, false)
	r.Hello(applied(5), hello(5, 8), 0)
	if r.LastNum() != 0 {
		t.Fatalf("a process that knows of no entry names %d", r.LastNum())
	}
	if err := r.Begin(8, 71, false); err != nil {
		t.Fatal(err)
	}
	if r.LastNum() != 70 {
		t.Fatalf("prefix %d, want 70", r.LastNum())
	}
	take(t, r, 8, 71)
}

func TestBeginIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		stream, num uint64
		prepare     func(r *Receiver)
		stale       bool
	}{
		"of another stream": {2, 1, func(*Receiver) {}, true},
		"after a close":     {1, 1, func(r *Receiver) { r.Close(1) }, true},
		"twice":             {1, 1, func(r *Receiver) { r.Begin(1, 1, false) }, false},
		"at entry 0":        {1, 0, func(*Receiver) {}, false},
	} {
		r := New(5, false)
		r.Hello(applied(5), hello(5, 1), 0)
		c.prepare(r)
		if err := r.Begin(c.stream, c.num, false); err == nil || errors.Is(err, ErrStale) != c.stale {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNothingIsTakenBeforeBegin(t *testing.T) {
	r := New(5, false)
	r.Hello(applied(5), hello(5, 1), 0)
	if _, err := r.Take(1, 1, 0); !errors.Is(err, ErrStale) {
		t.Fatalf("%v, want ErrStale", err)
	}
}

func TestResyncMarksBeforeTheFirstChangeAndOnlyUntilItIsClosed(t *testing.T) { // R18
	r := opened(t, true)
	take(t, r, 1, 1)
	if !r.NeedsMark() {
		t.Fatal("the first change of a resync needs no mark")
	}
	r.Marked(true)
	if r.NeedsMark() || !r.Inconsistent() {
		t.Fatal("marked, and it shows not")
	}
	take(t, r, 1, 2)
	r.Marked(false) // the closing entry
	take(t, r, 1, 3)
	if r.NeedsMark() || r.Inconsistent() {
		t.Fatal("closed, and what follows needs a mark")
	}
	for _, n := range []uint64{1, 2, 3} {
		r.Returned(n)
	}
	r.Hello(applied(5), hello(5, 2), 0)
	if err := r.Begin(2, 40, true); err != nil {
		t.Fatal(err)
	}
	if !r.NeedsMark() {
		t.Fatal("the next resync changes blocks without a mark")
	}
}

func TestMemberNeedsNoMark(t *testing.T) {
	if opened(t, false).NeedsMark() {
		t.Fatal("a member would be marked inconsistent")
	}
}

func TestInconsistentReplicaStaysMarkedOverARestart(t *testing.T) { // R18
	r := New(5, true)
	if !r.Inconsistent() {
		t.Fatal("the stored mark was forgotten")
	}
	r.Stored(6)
	if !r.Inconsistent() {
		t.Fatal("a new epoch made it consistent")
	}
}

func TestResyncStartsItsOwnNumbers(t *testing.T) {
	r := opened(t, false)
	take(t, r, 1, 1)
	r.Returned(1)
	r.Hello(applied(5), hello(5, 2), 0)
	if err := r.Begin(2, 900, true); err != nil {
		t.Fatal(err)
	}
	take(t, r, 2, 900)
	if r.Returned(900) != 900 {
		t.Fatalf("prefix %d, want 900", r.LastNum())
	}
}

// faults.md D91
func TestFailedEntryEndsTheStreamAndOnlyAResyncBeginsAnew(t *testing.T) { // R23
	r := opened(t, false)
	take(t, r, 1, 1, 2, 3)
	r.Returned(1)
	r.Failed(2)
	if !r.Broken() || r.MayAck(1) {
		t.Fatal("acknowledgements go on after a failed write")
	}
	if got := r.Returned(3); got != 1 || r.LastNum() != 1 {
		t.Fatalf("prefix %d passed the entry that failed", got)
	}
	if r.Outstanding() != 0 {
		t.Fatalf("%d outstanding: the device would never become quiet", r.Outstanding())
	}
	if v := r.Hello(applied(5), hello(5, 2), 0); v != Accept {
		t.Fatalf("verdict %d, want Accept: the greeting says that it failed", v)
	}
	if err := r.Begin(2, 2, false); err == nil {
		t.Fatal("a replay goes on over a failed write: entry 3 would count as written")
	}
	if err := r.Begin(2, 9, true); err != nil {
		t.Fatal(err)
	}
	if take(t, r, 2, 9); r.Returned(9) != 9 || !r.MayAck(2) || r.Broken() {
		t.Fatal("a resync does not begin anew")
	}
}

func TestFailedEntryHasWhatFollowsItLeftOut(t *testing.T) { // R13
	r := opened(t, false)
	take(t, r, 1, 1, 2, 3, 4, 5)
	if r.Follows(5) {
		t.Fatal("none has failed")
	}
	r.Failed(4)
	if r.Follows(3) || r.Follows(4) || !r.Follows(5) {
		t.Fatal("what follows entry 4 is entry 5")
	}
	r.Failed(5)
	r.Failed(2)
	if r.Follows(1) || !r.Follows(3) {
		t.Fatal("what counts is the first that failed, not the last")
	}
	r.Returned(1)
	r.Failed(3)
	if v := r.Hello(applied(5), hello(5, 2), 0); v != Accept {
		t.Fatalf("verdict %d, want Accept", v)
	}
	if err := r.Begin(2, 1, true); err != nil {
		t.Fatal(err)
	}
	if take(t, r, 2, 1, 2, 3); r.Follows(3) {
		t.Fatal("a resync begins anew")
	}
}

func TestFailedEntryDoesNotHoldUpANewEpoch(t *testing.T) { // R2, R23
	r := opened(t, false)
	take(t, r, 1, 1, 2)
	r.Failed(1)
	if v := r.Hello(applied(6), hello(6, 1), 0); v != Wait {
		t.Fatalf("verdict %d, want Wait: entry 2 is on the device", v)
	}
	r.Returned(2)
	if v := r.Hello(applied(6), hello(6, 1), 0); v != Store {
		t.Fatalf("verdict %d, want Store", v)
	}
	r.Stored(6)
}

func TestEndingAnEntryThatIsNotOutstandingIsABrokenInvariant(t *testing.T) {
	for _, num := range []uint64{0, 1, 2, 4, 1 << 63} {
		for name, end := range map[string]func(r *Receiver){
			"returned": func(r *Receiver) { r.Returned(num) },
			"failed":   func(r *Receiver) { r.Failed(num) },
		} {
			r := opened(t, false)
			take(t, r, 1, 1, 2, 3)
			r.Returned(1)
			r.Returned(2)
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("entry %d %s unnoticed, 3 is outstanding", num, name)
					}
				}()
				end(r)
			}()
		}
	}
}

// A primary with streams that break at any point, a device that returns in any order: whatever is acknowledged has
// returned, is a prefix, and is applied once and in order of taking.
func TestRandomStreamsAcknowledgeOnlyWhatReturned(t *testing.T) { // R2
	for seed := range uint64(300) {
		if err := randomStreams(seed); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func randomStreams(seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 3))
	r := New(5, false)
	returned := map[uint64]bool{}
	var running []uint64
	stream, next, acked, newest := uint64(0), uint64(0), uint64(0), uint64(1)
	up := false
	for range 400 {
		switch rng.IntN(8) {
		case 0: // a new stream
			stream++
			before := len(running)
			v := r.Hello(applied(5), hello(5, stream), 0)
			if up = v == Accept; up {
				if before > 0 {
					return fmt.Errorf("accepted with %d entries on the device", before)
				}
				if r.LastNum() < acked {
					return fmt.Errorf("the greeting names %d, %d was acknowledged", r.LastNum(), acked)
				}
				acked = max(acked, r.LastNum())
				if err := r.Begin(stream, acked+1, false); err != nil {
					return err
				}
				next = acked + 1
			}
		case 1, 2, 3: // the next entry, or one again
			if !up {
				continue
			}
			num := next
			if rng.IntN(6) == 0 && next > 1 {
				num = 1 + rng.Uint64N(next-1)
			}
			dup, err := r.Take(stream, num, 10*num)
			if err != nil {
				return err
			}
			if dup {
				if num >= newest {
					return fmt.Errorf("entry %d was never taken and counts as written", num)
				}
				next = max(next, num+1)
				continue
			}
			if num != newest {
				return fmt.Errorf("entry %d is applied, %d is the next", num, newest)
			}
			newest, next = num+1, num+1
			running = append(running, num)
		case 4, 5, 6:
			if n := len(running); n > 0 {
				i := rng.IntN(n)
				num := running[i]
				running = append(running[:i], running[i+1:]...)
				returned[num] = true
				prefix := r.Returned(num)
				for k := uint64(1); k <= prefix; k++ {
					if !returned[k] {
						return fmt.Errorf("prefix %d, entry %d has not returned", prefix, k)
					}
				}
				if returned[prefix+1] {
					return fmt.Errorf("prefix %d, entry %d has returned too", prefix, prefix+1)
				}
				if r.Place() != 10*prefix {
					return fmt.Errorf("prefix %d is of place %d", prefix, r.Place())
				}
				if r.MayAck(stream) != up {
					return fmt.Errorf("may acknowledge: %t, stream up: %t", r.MayAck(stream), up)
				}
				if up {
					acked = max(acked, prefix)
				}
			}
		case 7:
			if up && rng.IntN(3) == 0 {
				r.Close(stream)
				up = false
			}
		}
		if r.Outstanding() != len(running) {
			return fmt.Errorf("%d outstanding, %d on the device", r.Outstanding(), len(running))
		}
		if len(r.taken) > len(running)+int(newest) || cap(r.taken) > 1024 {
			return fmt.Errorf("%d places kept", cap(r.taken))
		}
	}
	return nil
}

func TestSteadyStreamAllocatesNothing(t *testing.T) {
	r := opened(t, false)
	num := uint64(0)
	round := func() {
		for range 32 {
			num++
			r.Take(1, num, 0)
		}
		for n := num; n > num-32; n-- {
			r.Returned(n)
		}
	}
	round()
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Fatalf("%v allocations per round, want none", n)
	}
}
