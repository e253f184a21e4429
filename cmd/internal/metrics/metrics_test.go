package metrics

import (
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
)

var update = flag.Bool("update", false, "write the golden file")

// full has something of everything.
func full() Snapshot {
	l := Latency{Bounds: []float64{0.001, 0.002}, Cumulative: []uint64{1, 3}, Count: 4, SumSeconds: 0.5}
	byOp := map[string]uint64{"read": 1, "write": 2, "zero": 3, "flush": 4}
	return Snapshot{
		Node: "alpha", Cluster: "shop", Version: "v1", Ready: true, Lease: 400 * time.Millisecond, ConfigVersion: 3, Services: []Service{{Name: "shop", State: "running"}},
		Raft:              &Raft{Leads: true, LeaderKnown: true, Term: 5, LastIndex: 9, CommitIndex: 8, AppliedIndex: 7, LastContact: time.Second, Won: 2, Commits: l},
		Links:             []Link{{Peer: "beta", Address: "10.0.0.2:7401", Up: true, RTT: 200 * time.Microsecond, ProbesSent: 10, ProbesLost: 1}},
		Lines:             []Line{{Peer: "beta", Rate: 2_500_000, Plain: 20, Sent: 10, Waited: time.Second}},
		Gossip:            Gossip{1, 2, 3, 4, 5},
		NBD:               NBD{Connections: 1, BytesInFlight: 4096, Refused: 2, Slow: 3},
		HandshakeRefusals: map[string]uint64{"too many": 1},
		Queues:            []Queue{{Name: "nbd connections", Length: 1, Limit: 256}, {Name: "standby entries", Volume: "pgdata", Length: 3, Limit: 1024}},
		Certificates:      []Certificate{{Name: "node", NotAfter: time.Unix(1700000000, 0)}},
		Volumes: []Volume{{
			Name: "pgdata", Size: 1 << 30, Epoch: 7, Primary: "alpha", Drops: 1, Admissions: 2, Promotions: map[string]uint64{"hand-over": 3},
			LastFailover: &Failover{At: time.Unix(1700000000, 5e8), RTO: time.Second, Target: 2 * time.Second, RPOBytes: 64 << 20, RPO: 5 * time.Second, Stages: map[string]time.Duration{"detect": time.Millisecond}},
			Replicas:     []Replica{{"alpha", true}, {"beta", false}},
			Local: &Local{Ops: byOp, Bytes: byOp, Errors: 1, ChecksumErrors: 2, DiskErrors: 3, Failed: true, Verified: Verified{Different: 4, Unreadable: 3, Repaired: 2, Runs: 1}, Stages: map[string]Latency{"write": l},
				Acks: map[string]Latency{"beta": l}, ReadsAt: map[string]Reads{"beta": {1, 4096}}},
			Serving: &Serving{Suspended: true, Async: &Async{MaxLagBytes: 64 << 20, MaxLag: 5 * time.Second, Held: true, SpoolBytes: 1 << 30, SpoolFailed: true}, Peers: []Peer{{Node: "beta", Connected: true, Resyncing: true, LagBytes: 4096, Lag: time.Second, DirtyBytes: 8192,
				ResyncTotal: 1 << 30, ResyncDone: 1 << 20, ResyncRate: 1 << 10}}},
		}},
	}
}

func gather(t *testing.T, s Snapshot) []*dto.MetricFamily {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(collector{func() Snapshot { return s }})
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What dashboards and alerts are built on: names, types and labels do not change by accident.
func TestNamesTypesAndLabelsAreThoseOfTheList(t *testing.T) {
	var got strings.Builder
	for _, f := range gather(t, full()) {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		got.WriteString(strings.TrimSpace(fmt.Sprintln(f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ","))) + "\n")
		if f.GetHelp() == "" {
			t.Errorf("%s has no help", f.GetName())
		}
	}
	const path = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("the metrics are not those of %s; go test -update if that is meant:\n%s", path, got.String())
	}
}

func TestLintFindsNothing(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(collector{full})
	problems, err := testutil.GatherAndLint(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestLastFailoverAndLatencyAreShownInSeconds(t *testing.T) {
	s := full()
	for _, f := range gather(t, s) {
		m := f.GetMetric()[0]
		switch f.GetName() {
		case "hacluster_last_failover_timestamp_seconds":
			if m.GetGauge().GetValue() != 1700000000.5 {
				t.Errorf("at %v", m)
			}
		case "hacluster_last_failover_stage_seconds":
			if m.GetGauge().GetValue() != 0.001 {
				t.Errorf("stage %v", m)
			}
		case "hacluster_peer_ack_duration_seconds":
			h := m.GetHistogram()
			if h.GetSampleCount() != 4 || h.GetSampleSum() != 0.5 || len(h.GetBucket()) != 2 || h.GetBucket()[1].GetCumulativeCount() != 3 {
				t.Errorf("histogram %v", h)
			}
		}
	}
}

// A witness, or a node that has not joined, has little to tell, and tells it.
func TestNodeWithoutVolumesAndRaftAnswers(t *testing.T) {
	w := httptest.NewRecorder()
	Handler(func() Snapshot { return Snapshot{Node: "gamma"} }).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	body := w.Body.String()
	for _, want := range []string{"hacluster_node_ready 0", "go_goroutines", "process_cpu_seconds_total", `hacluster_build_info{go_version=`} {
		if !strings.Contains(body, want) {
			t.Errorf("status %d, %q is missing", w.Code, want)
		}
	}
	if strings.Contains(body, "raft") || strings.Contains(body, "certificate") {
		t.Error("figures are shown that nobody has")
	}
}

// faults.md G56: more scrapers than one needs do not pile up.
func TestG56TooManyScrapesAreTurnedAway(t *testing.T) {
	entered, release := make(chan struct{}, maxScrapes), make(chan struct{})
	h := Handler(func() Snapshot { entered <- struct{}{}; <-release; return Snapshot{} })
	codes := make(chan int, maxScrapes)
	scrape := func() int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return w.Code
	}
	for range maxScrapes {
		go func() { codes <- scrape() }()
	}
	for range maxScrapes {
		<-entered
	}
	if code := scrape(); code != http.StatusServiceUnavailable {
		t.Errorf("one more: %d", code)
	}
	close(release)
	var got []int
	for range maxScrapes {
		got = append(got, <-codes)
	}
	if !slices.Equal(got, []int{200, 200, 200, 200}) {
		t.Errorf("the others: %v", got)
	}
}

// A loss that nobody knows is no loss of -1 bytes, nor of none; and a bound that does not count is not shown.
func TestWhatIsNotKnownIsAbsent(t *testing.T) {
	names := func(s Snapshot) (all []string) {
		for _, f := range gather(t, s) {
			all = append(all, f.GetName())
		}
		return all
	}
	for _, name := range []string{"hacluster_last_failover_rpo_bytes", "hacluster_last_failover_rpo_seconds", "hacluster_volume_lag_bound_bytes", "hacluster_volume_writers_held"} {
		s := full()
		if !slices.Contains(names(s), name) {
			t.Errorf("%s is not there", name)
		}
		s.Volumes[0].LastFailover.RPOBytes, s.Volumes[0].Serving.Async = -1, nil
		if slices.Contains(names(s), name) {
			t.Errorf("%s is there", name)
		}
	}
}
