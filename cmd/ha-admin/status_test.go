package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/api/apitest"
	adminv1 "hacluster/proto/admin/v1"
)

// contract is the document of the contract.
func contract(t *testing.T) (api.Status, string) {
	t.Helper()
	text, err := os.ReadFile("../internal/api/testdata/status.json")
	if err != nil {
		t.Fatal(err)
	}
	var st api.Status
	if err := json.Unmarshal(text, &st); err != nil {
		t.Fatal(err)
	}
	return st, string(text)
}

func TestStatusPrintsTheDocumentOfTheContract(t *testing.T) {
	st, text := contract(t)
	o := admin(t, "status", "-o", "json", "--server", apitest.Serve(t, &apitest.Node{Doc: st}))
	o.wantSuccess(t)
	var got, want any
	if err := json.Unmarshal([]byte(o.out), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestStatusTable(t *testing.T) {
	st, _ := contract(t)
	eta := int64(90)
	st.Volumes[0].Replicas[0].Mode, st.Volumes[0].Replicas[1].Mode = "sync", "sync"
	st.Volumes[0].Replicas[1].State = api.ReplicaResyncing
	st.Volumes[0].Replicas[1].Resync = &api.ResyncStatus{Source: "alpha", DoneBytes: 1 << 30, TotalBytes: 20 << 30, RateBytesPerSec: 5 << 20, ETASeconds: &eta}
	st.Nodes = append(st.Nodes, api.NodeStatus{Name: "gamma", Role: "witness", State: "dead", ConfigDiffers: true})
	o := admin(t, "status", "--server", apitest.Serve(t, &apitest.Node{Doc: st}))
	o.wantSuccess(t)
	const want = `cluster shop: quorum yes, leader gamma

NODE   ROLE     STATE  VOTER  LEASE  LINKS             CONFIG
alpha  data     alive  yes    412ms  10.0.0.1:7401 up  same
gamma  witness  dead   no     -      -                 differs

volume pgdata: healthy, 20 GiB, sync, primary alpha, epoch 7
  promotable: beta
  device: /dev/hacluster/pgdata
  REPLICA  ROLE     MODE  STATE      LAG  DIRTY  RESYNC
  alpha    primary  sync  in_sync    0 B  0 B    -
  beta     standby  sync  resyncing  0 B  0 B    1 GiB of 20 GiB from alpha, 5 MiB/s, 1m30s left

SERVICE   NODE   STATE    REASON
postgres  alpha  running  -

last failover: pgdata from beta to alpha, epoch 7, at 2026-11-22T10:00:00Z (lease expired): 640 ms, target 3000 ms met, 0 B lost; detect 420 ms, decide 8 ms, promote 15 ms
`
	if diff := cmp.Diff(want, o.out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Who chose the weaker mode sees what it does not protect.
func TestStatusSaysWhatSemisyncProtects(t *testing.T) {
	for mode, told := range map[string]bool{"sync": false, "semisync": true} {
		st, _ := contract(t)
		st.Volumes[0].Mode = mode
		o := admin(t, "status", "--server", apitest.Serve(t, &apitest.Node{Doc: st}))
		o.wantSuccess(t)
		if !strings.Contains(o.out, ", "+mode+", primary") || strings.Contains(o.out, "  semisync: one lost node loses no write") != told {
			t.Errorf("%s:\n%s", mode, o.out)
		}
	}
}

// Nobody is to wonder why a volume that was resized has its old size.
func TestStatusTellsOfASizeThatWaits(t *testing.T) {
	doc := api.Status{Cluster: "shop", Volumes: []api.VolumeStatus{{Name: "pgdata", Size: 1 << 30, NextSize: 2 << 30, NextSizeWaitsFor: "its next promotion"}}}
	server := apitest.Serve(t, &apitest.Node{Doc: doc})
	admin(t, "status", "--server", server).wantSuccess(t, "grows to 2 GiB: waits for its next promotion")
	admin(t, "status", "--server", server, "-o", "json").wantSuccess(t, `"next_size": 2147483648`, `"next_size_waits_for": "its next promotion"`)
	doc.Volumes[0].NextSize = 1 << 29
	admin(t, "status", "--server", apitest.Serve(t, &apitest.Node{Doc: doc})).wantSuccess(t, "shrinks to 512 MiB: waits for its next promotion")
	doc.Volumes[0].NextSize, doc.Volumes[0].NextSizeWaitsFor = 0, ""
	if o := admin(t, "status", "--server", apitest.Serve(t, &apitest.Node{Doc: doc})); strings.Contains(o.out, "grows") {
		t.Errorf("of one that stays: %s", o.out)
	}
}

// Nobody is to wonder why a volume whose mode was changed has its old one.
func TestStatusTellsOfAModeThatWaits(t *testing.T) {
	doc := api.Status{Cluster: "shop", Volumes: []api.VolumeStatus{{Name: "pgdata", Mode: "sync", NextMode: "semisync", NextModeWaitsFor: "beta is being admitted"}}}
	server := apitest.Serve(t, &apitest.Node{Doc: doc})
	admin(t, "status", "--server", server).wantSuccess(t, "mode sync is to become semisync, both count until then; it waits: beta is being admitted")
	admin(t, "status", "--server", server, "-o", "json").wantSuccess(t, `"next_mode": "semisync"`, `"next_mode_waits_for": "beta is being admitted"`)
	doc.Volumes[0].NextMode, doc.Volumes[0].NextModeWaitsFor = "", ""
	if o := admin(t, "status", "--server", apitest.Serve(t, &apitest.Node{Doc: doc})); strings.Contains(o.out, "become") {
		t.Errorf("of one that stays: %s", o.out)
	}
}

// Nobody is to wonder why there is no device.
func TestStatusTellsWhyThereIsNoDevice(t *testing.T) {
	doc := api.Status{Cluster: "shop", Volumes: []api.VolumeStatus{{Name: "pgdata", DeviceReason: "FUSE is not available"}}}
	server := apitest.Serve(t, &apitest.Node{Doc: doc})
	admin(t, "status", "--server", server).wantSuccess(t, "device: none: FUSE is not available")
	admin(t, "status", "--server", server, "-o", "json").wantSuccess(t, `"device": ""`, `"device_reason": "FUSE is not available"`)
	doc.Volumes[0].DeviceReason = ""
	if o := admin(t, "status", "--server", apitest.Serve(t, &apitest.Node{Doc: doc})); strings.Contains(o.out, "device") {
		t.Errorf("of a volume that is to have none: %s", o.out)
	}
}

func TestStatusWithoutQuorumIsNoFailure(t *testing.T) {
	server := apitest.Serve(t, &apitest.Node{Doc: api.Status{Cluster: "shop"}})
	admin(t, "status", "--server", server).wantSuccess(t, "quorum no, leader none", "nothing can be changed")
	admin(t, "status", "--server", server, "-o", "json").wantSuccess(t, `"quorum": false`)
}

// newer is a node of a later version: its document has more keys, and of the other calls it knows none.
type newer struct {
	adminv1.UnimplementedAdminServer
}

func (newer) Status(context.Context, *adminv1.StatusRequest) (*adminv1.StatusReply, error) {
	return &adminv1.StatusReply{Document: []byte(`{"cluster":"shop","quorum":true,"nodes":[],"volumes":[],"moons":[{"name":"luna"}]}`)}, nil
}

func TestDocumentOfANewerNodeIsPrintedInFull(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	adminv1.RegisterAdminServer(s, newer{})
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	defer func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	admin(t, "status", "-o", "json", "--server", socket).wantSuccess(t, `"luna"`)
	admin(t, "status", "--server", socket).wantSuccess(t, "cluster shop")
	admin(t, "node", "list", "--server", socket).wantFailure(t, 1, "not supported yet", socket)
}

func TestListsAreTablesOrJSON(t *testing.T) {
	st, _ := contract(t)
	node := &apitest.Node{
		Past:    []api.Failover{*st.LastFailover},
		Volumes: []api.Volume{{Name: "pgdata", Size: 1 << 20, Mode: "sync", State: "degraded", Primary: "alpha", Epoch: 7, Replicas: []string{"alpha", "beta"}}},
		Members: []api.Member{{Name: "gamma", Role: "witness", State: "alive", Voter: true, Address: "127.0.0.3:7400"}},
	}
	server := apitest.Serve(t, node)
	tests := []struct{ line, table, json string }{
		{"volume list", "pgdata  degraded  1 MiB  sync  alpha    7      alpha, beta", `"epoch": 7`},
		{"node list", "gamma  witness  alive  yes    127.0.0.3:7400", `"voter": true`},
		{"failovers", "detect 420 ms, decide 8 ms, promote 15 ms", `"rto_target_ms": 3000`},
	}
	for _, tt := range tests {
		args := append(strings.Fields(tt.line), "--server", server)
		admin(t, args...).wantSuccess(t, tt.table)
		o := admin(t, append(args, "-o", "json")...)
		o.wantSuccess(t, tt.json)
		var list []any
		if err := json.Unmarshal([]byte(o.out), &list); err != nil || len(list) != 1 {
			t.Errorf("%s: %v, %d elements", tt.line, err, len(list))
		}
	}
	empty := apitest.Serve(t, &apitest.Node{})
	for _, tt := range tests {
		if o := admin(t, append(strings.Fields(tt.line), "--server", empty, "-o", "json")...); o.out != "[]\n" {
			t.Errorf("%s of nothing is %q", tt.line, o.out)
		}
	}
}
