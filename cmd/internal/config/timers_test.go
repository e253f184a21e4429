package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTimersOfTheSampleByHand(t *testing.T) {
	got, err := TimersFor(3 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	us := time.Microsecond
	want := Timers{RTO: 3 * time.Second, Lease: 1260000 * us, Renew: 315000 * us, Tick: 31500 * us, RaftHeartbeat: 352800 * us,
		RaftElection: 352800 * us, RaftLeaderLease: 352800 * us, DropAfter: 750000 * us}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	const sum = "lease 1260ms x 1.01 + tick 31.5ms + 2 commits x 50ms + promotion 100ms = 1504.1ms <= RTO target 3000ms\n" +
		"when the leader is lost with the primary: 1504.1ms + election 735.6ms = 2239.7ms"
	if got.Explain() != sum {
		t.Errorf("Explain says\n%s\nwant\n%s", got.Explain(), sum)
	}
	const async = "in async, where the last primary is waited for: 1504.1ms + 1/4 lease 315ms = 1819.1ms"
	const services = "until services are started, unless the old primary says that it stopped them: 1504.1ms + guard 750ms x 1.01 = 2261.6ms"
	if got.ExplainServices() != services {
		t.Errorf("ExplainServices says\n%s\nwant\n%s", got.ExplainServices(), services)
	}
	if got.ExplainAsync() != async {
		t.Errorf("ExplainAsync says\n%s\nwant\n%s", got.ExplainAsync(), async)
	}
}

// Both sums of protocol.md, section 5, and what Raft demands of its own settings, over the whole range.
func TestTimersKeepTheirPromisesForEveryTarget(t *testing.T) {
	for rto := MinRTO; rto <= MaxRTO; rto += rto/17 + time.Millisecond {
		m, err := TimersFor(rto)
		if err != nil {
			t.Fatalf("%v: %v", rto, err)
		}
		if whole := m.Lease*101/100 + m.Tick + 2*commitTime + promoteTime; whole > rto || whole != m.Failover() {
			t.Errorf("%v: a failover takes %v (Failover says %v)", rto, whole, m.Failover())
		}
		if whole := m.FailoverAsync(); whole > rto || whole != m.Failover()+m.Renew {
			t.Errorf("%v: a failover in async takes %v", rto, whole)
		}
		if m.Lease*2/3 <= 2*m.RaftHeartbeat+voteTime+barrierTime+renewalTime {
			t.Errorf("%v: an election outlasts two thirds of the lease %v", rto, m.Lease)
		}
		if m.RaftLeaderLease > m.RaftHeartbeat || m.RaftHeartbeat > m.RaftElection || m.RaftLeaderLease < 5*time.Millisecond {
			t.Errorf("%v: Raft refuses leader lease %v, heartbeat %v, election %v", rto, m.RaftLeaderLease, m.RaftHeartbeat, m.RaftElection)
		}
		if left := m.Lease - m.Renew; left < m.Lease*2/3 {
			t.Errorf("%v: right before a renewal only %v of the lease %v is left", rto, left, m.Lease)
		}
		if m.DropAfter+2*commitTime > rto || m.DropAfter <= 0 || m.Tick <= 0 {
			t.Errorf("%v: drop after %v, tick %v", rto, m.DropAfter, m.Tick)
		}
	}
}

// faults.md C76
func TestC76TargetsThatCannotBeMetAreRefusedWithTheArithmetic(t *testing.T) {
	for rto, want := range map[time.Duration]string{
		0:                            "lease 0ms x 1.01 + tick 5ms + 2 commits x 50ms + promotion 100ms = 205ms > RTO target 0ms",
		-time.Second:                 "> RTO target -1000ms",
		300 * time.Millisecond:       "> RTO target 300ms",
		900 * time.Millisecond:       "2/3 of the lease 378ms = 252ms must be longer than election 230ms + barrier 20ms + renewal 20ms = 270ms",
		MinRTO - time.Millisecond:    "1s or more is wanted",
		MaxRTO + time.Millisecond:    "10m0s or less is wanted",
		time.Duration(1<<63 - 1):     "10m0s or less is wanted",
		MinRTO - 36*time.Millisecond: "2/3 of the lease",
	} {
		if _, err := TimersFor(rto); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", rto, err, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"4096": 4096, "4096B": 4096, "4096 B": 4096, "20GiB": 20 << 30, "64MiB": 64 << 20, "4KiB": 4096, "1TiB": 1 << 40, "3PiB": 3 << 50,
		"1MB": 1e6, "1KB": 1000, "2GB": 2e9, "1TB": 1e12, "1PB": 1e15, "8388607TiB": 8388607 << 40,
		"": 0, "B": 0, "0": 0, "-1": 0, "+1": 0, "1.5GiB": 0, "1 GiB ": 0, " 1GiB": 0, "1gib": 0, "GiB": 0, "8388608TiB": 0, "1e3": 0,
		"99999999999999999999": 0, "١GiB": 0, "0x10": 0, "1\u00a0GiB": 0,
	} {
		got, ok := ParseSize(s)
		if got != want || ok != (want != 0) {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", s, got, ok, want)
		}
	}
}
