package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// figures is what a node's /metrics shows, by name with labels as Prometheus writes them.
type figures map[string]float64

func (r *rig) scrape(node string) figures {
	r.t.Helper()
	c := http.Client{Timeout: patience}
	defer c.CloseIdleConnections()
	resp, err := c.Get("http://" + r.HTTP(node) + "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		r.t.Fatalf("/metrics of %s: %d, %v\n%s", node, resp.StatusCode, err, body)
	}
	all := figures{}
	for s := bufio.NewScanner(strings.NewReader(string(body))); s.Scan(); {
		if i := strings.LastIndexByte(s.Text(), ' '); i > 0 && s.Text()[0] != '#' {
			if all[s.Text()[:i]], err = strconv.ParseFloat(s.Text()[i+1:], 64); err != nil {
				r.t.Fatalf("a line of /metrics: %q", s.Text())
			}
		}
	}
	return all
}

// want compares figures with what they must be.
func (r *rig) want(node string, got figures, want figures) {
	r.t.Helper()
	for name, value := range want {
		if v, ok := got[name]; !ok || v != value {
			r.t.Errorf("%s: %s is %v (shown: %t), want %v", node, name, v, ok, value)
		}
	}
}

func TestMetricsAgreeWithWhatClientsDid(t *testing.T) {
	r := healthy(t, Config{RTO: "6s"})
	primary := r.vol().Primary
	standby := other(primary)
	dev := r.dial(r.URI(primary))
	const writes, size = 64, 16 << 10
	buf := make([]byte, size)
	for i := range writes {
		if _, err := dev.WriteAt(buf, int64(i)*size); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		if _, err := dev.ReadAt(buf, int64(i)*size); err != nil {
			t.Fatal(err)
		}
	}
	if err := dev.Flush(); err != nil {
		t.Fatal(err)
	}
	got := r.scrape(primary)
	r.want(primary, got, figures{
		`hacluster_io_operations_total{op="write",volume="vol"}`:                        writes,
		`hacluster_io_bytes_total{op="write",volume="vol"}`:                             writes * size,
		`hacluster_io_operations_total{op="read",volume="vol"}`:                         3,
		`hacluster_io_bytes_total{op="read",volume="vol"}`:                              3 * size,
		`hacluster_io_operations_total{op="flush",volume="vol"}`:                        1,
		`hacluster_io_errors_total{volume="vol"}`:                                       0,
		`hacluster_io_stage_duration_seconds_count{stage="write",volume="vol"}`:         writes / 8,
		`hacluster_io_stage_duration_seconds_count{stage="local_write",volume="vol"}`:   writes / 8,
		`hacluster_io_stage_duration_seconds_count{stage="flush",volume="vol"}`:         1,
		`hacluster_volume_epoch{volume="vol"}`:                                          1,
		fmt.Sprintf(`hacluster_volume_primary{replica=%q,volume="vol"}`, primary):       1,
		fmt.Sprintf(`hacluster_volume_primary{replica=%q,volume="vol"}`, standby):       0,
		fmt.Sprintf(`hacluster_volume_in_sync{replica=%q,volume="vol"}`, standby):       1,
		fmt.Sprintf(`hacluster_replica_connected{replica=%q,volume="vol"}`, standby):    1,
		fmt.Sprintf(`hacluster_replica_dirty_bytes{replica=%q,volume="vol"}`, standby):  0,
		`hacluster_volume_suspended{volume="vol"}`:                                      0,
		`hacluster_nbd_connections`:                                                     1,
		`hacluster_queue_length{queue="nbd connections",volume=""}`:                     1,
		`hacluster_volume_promotions_total{basis="first start",volume="vol"}`:           1,
		`hacluster_volume_promotions_total{basis="unchanged incarnation",volume="vol"}`: 0,
		`hacluster_node_ready`: 1,
	})
	if n := got[fmt.Sprintf(`hacluster_peer_ack_duration_seconds_count{replica=%q,volume="vol"}`, standby)]; n == 0 {
		t.Error("no acknowledgement was timed")
	}
	if lease := got["hacluster_node_lease_remaining_seconds"]; lease <= 0 || lease > 2.52 {
		t.Errorf("%v s are left of a lease of 2.52 s", lease)
	}
	r.want("gamma", r.scrape("gamma"), figures{`hacluster_volume_epoch{volume="vol"}`: 1, "hacluster_node_ready": 1})

	_, _, after := r.struck(blow{what: "the primary dies", node: primary, strike: func(node string) { r.Kill(node) }, undo: func(node string) { r.start(node) }})
	r.awaitFigures(standby, figures{
		`hacluster_volume_epoch{volume="vol"}`:                                          float64(after.Epoch),
		fmt.Sprintf(`hacluster_volume_in_sync{replica=%q,volume="vol"}`, primary):       0,
		`hacluster_volume_promotions_total{basis="unchanged incarnation",volume="vol"}`: float64(after.Epoch - 1),
		`hacluster_last_failover_rto_target_seconds{volume="vol"}`:                      6,
		fmt.Sprintf(`hacluster_replica_dirty_bytes{replica=%q,volume="vol"}`, primary):  64 << 20,
	})
}

// awaitFigures waits until a node shows these.
func (r *rig) awaitFigures(node string, want figures) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got, all := r.scrape(node), true
		for name, value := range want {
			v, ok := got[name]
			all = all && ok && v == value
		}
		if all {
			return
		}
		if time.Now().After(deadline) {
			r.want(node, got, want)
			r.t.FailNow()
		}
	}
}
