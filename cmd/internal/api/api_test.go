package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/api/apitest"
	"hacluster/cmd/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for; nothing waits for it when all is well.
const patience = 20 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func dial(t *testing.T, sockets ...string) *api.Client {
	t.Helper()
	c, err := api.Dial(within(t), sockets, api.DialSocket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// contractStatus is the document of the contract as a value.
func contractStatus() api.Status {
	replica := func(node, role string) api.ReplicaStatus {
		return api.ReplicaStatus{Node: node, Role: role, State: api.ReplicaInSync}
	}
	return api.Status{
		Cluster: "shop", Quorum: true, Leader: "gamma", ConfigVersion: 3,
		Nodes: []api.NodeStatus{{Name: "alpha", Role: "data", State: "alive", Voter: true, LeaseMs: 412,
			Links: []api.LinkStatus{{Address: "10.0.0.1:7401", State: "up", RTTMs: 0.2}}}},
		Volumes: []api.VolumeStatus{{Name: "pgdata", Size: 20 << 30, Mode: "sync", Epoch: 7, Primary: "alpha", State: api.VolumeHealthy,
			InSync: []string{"alpha", "beta"}, Promotable: []string{"beta"},
			Replicas: []api.ReplicaStatus{replica("alpha", api.RolePrimary), replica("beta", api.RoleStandby)},
			Device:   "/dev/hacluster/pgdata", IO: api.IOStatus{ReadOps: 1, WriteOps: 1, ReadBytes: 1, WriteBytes: 1}}},
		Services: []api.ServiceStatus{{Name: "postgres", Node: "alpha", State: "running"}},
		LastFailover: &api.Failover{Volume: "pgdata", From: "beta", To: "alpha", Reason: "lease expired", Epoch: 7,
			At:    time.Date(2026, 11, 22, 11, 0, 0, 0, time.FixedZone("CET", 3600)),
			RTOMs: 640, RTOTargetMs: 3000, Stages: []api.Stage{{Name: "detect", Ms: 420}, {Name: "decide", Ms: 8}, {Name: "promote", Ms: 15}}},
	}
}

func TestStatusDocumentIsThatOfTheContractByteForByte(t *testing.T) {
	text, err := os.ReadFile("testdata/status.json")
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if err := json.Compact(&want, text); err != nil {
		t.Fatal(err)
	}
	st, doc, err := dial(t, apitest.Serve(t, &apitest.Node{Doc: contractStatus()})).Status(within(t), "pgdata")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(want.String(), ","), strings.Split(string(doc), ",")); diff != "" {
		t.Errorf("the document differs (-contract +got):\n%s", diff)
	}
	if !st.Quorum || st.Volumes[0].Replicas[1].Node != "beta" || st.LastFailover.Stages[2].Ms != 15 {
		t.Errorf("the client reads it as %+v", st)
	}
}

func TestStatusDocumentHasNoNullLists(t *testing.T) {
	eta := int64(9)
	node := &apitest.Node{Doc: api.Status{Nodes: []api.NodeStatus{{}}, LastFailover: &api.Failover{},
		Volumes: []api.VolumeStatus{{}, {Replicas: []api.ReplicaStatus{{Resync: &api.ResyncStatus{ETASeconds: &eta}}}}}}}
	_, doc, err := dial(t, apitest.Serve(t, node)).Status(within(t), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"links":[]`, `"in_sync":[]`, `"promotable":[]`, `"replicas":[]`, `"services":[]`, `"stages":[]`,
		`"resync":{"source":"","done_bytes":0,"total_bytes":0,"rate_bytes_per_s":0,"eta_seconds":9}`} {
		if !strings.Contains(string(doc), want) {
			t.Errorf("%s is missing in %s", want, doc)
		}
	}
	if strings.Contains(string(doc), "null") {
		t.Errorf("something is null: %s", doc)
	}
	_, doc, err = dial(t, apitest.Serve(t, &apitest.Node{})).Status(within(t), "")
	if err != nil {
		t.Fatal(err)
	}
	const empty = `{"cluster":"","quorum":false,"leader":"","config_version":0,"nodes":[],"volumes":[],"services":[],"last_failover":null}`
	if string(doc) != empty {
		t.Errorf("the empty document is %s", doc)
	}
}

func TestEveryCallArrivesAsItWasMade(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 5, time.UTC)
	moved := api.Failover{Volume: "v", From: "a", To: "b", Reason: "asked", Epoch: 1 << 40, At: at, RTOMs: 1, RTOTargetMs: 2, RPOBytes: 3, RPOMs: 5,
		Lag: &api.FailoverLag{Bytes: 6, Ms: 7, AgeMs: 8}, Stages: []api.Stage{{Name: "decide", Ms: 4}}}
	node := &apitest.Node{
		Moved: moved, Past: []api.Failover{moved, {Volume: "w", At: at, Stages: []api.Stage{}}},
		Volumes:  []api.Volume{{Name: "v", Size: 1 << 50, Mode: "sync", State: "healthy", Primary: "a", Epoch: 3, Replicas: []string{"a", "b"}}},
		Members:  []api.Member{{Name: "a", Role: "data", State: "alive", Voter: true, Address: "127.0.0.1:1"}},
		Rescued:  []api.RescueImage{{Volume: "v", ID: "a-e5", Node: "a", Epoch: 5, Member: &at, Bytes: 8192, Blocks: 2, Size: 1 << 30, File: 9000, Whole: true}},
		Parts:    []api.RescuePart{{Size: 1 << 30}, {Off: 4096, Len: 4, Data: []byte("data")}, {Off: 1 << 20, Len: 1 << 20}},
		Fenced:   api.FenceRecord{Word: "off", Attempt: 3, At: at, By: "a", Person: "bob", Process: 4, Off: true, Level: 2, Unverified: true, Failed: 1, Text: "x"},
		Tested:   api.FenceTested{Node: "d", From: "a", Agents: []api.FenceTestedWith{{Level: 1, Agent: "fence_x", OK: true, State: "on", Ms: 3}}},
		Text:     api.ConfigText{Version: 7, Text: []byte("cluster {}")},
		Settings: config.Document{Cluster: "lab", Nodes: []config.DocumentNode{}, Volumes: []config.DocumentVolume{}},
	}
	c, ctx := dial(t, apitest.Serve(t, node)), within(t)
	check := func(what string, got, want any, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	f, err := c.Failover(ctx, api.FailoverRequest{Volume: "v", To: "b", Force: true, AcceptDataLoss: true, Epoch: 7})
	check("failover", f, moved, err)
	past, err := c.Failovers(ctx)
	check("failovers", past, node.Past, err)
	volumes, err := c.VolumeList(ctx)
	check("volumes", volumes, node.Volumes, err)
	members, err := c.NodeList(ctx)
	check("nodes", members, node.Members, err)
	text, err := c.ConfigExport(ctx)
	check("text", text, node.Text, err)
	settings, _, err := c.ConfigShow(ctx)
	check("config", settings, node.Settings, err)
	check("create", nil, nil, c.VolumeCreate(ctx, api.VolumeCreateRequest{Volume: "v", InitialFrom: "a"}))
	check("create", nil, nil, c.VolumeCreate(ctx, api.VolumeCreateRequest{Volume: "v", DiscardData: true}))
	of, err := c.VolumeResync(ctx, api.VolumeResyncRequest{Volume: "v", Replica: "b", Full: true, DiscardTargetData: true, DropMember: true})
	check("resync", of, node.Group, err)
	of, err = c.VolumePause(ctx, api.VolumePauseRequest{Volume: "v", Replica: "b", Paused: true})
	check("pause", of, node.Group, err)
	images, err := c.RescueList(ctx, "v")
	check("rescue images", images, node.Rescued, err)
	var parts []api.RescuePart
	err = c.RescueExport(ctx, api.RescueExportRequest{Volume: "v", ID: "a-e5", Partial: true}, func(p api.RescuePart) error { parts = append(parts, p); return nil })
	check("export", parts, node.Parts, err)
	check("delete", nil, nil, c.RescueDelete(ctx, "v", "a-e5"))
	check("add", nil, nil, c.NodeAdd(ctx, "d"))
	check("remove", nil, nil, c.NodeRemove(ctx, "d"))
	check("drain", nil, nil, c.NodeDrain(ctx, "d", true))
	check("maintenance", nil, nil, c.Maintenance(ctx, true))
	fenced, err := c.Fence(ctx, "d", "bob")
	check("fence", fenced, node.Fenced, err)
	check("confirm", nil, nil, c.FenceConfirm(ctx, "d"))
	tested, err := c.FenceTest(ctx, "d")
	check("test", tested, node.Tested, err)
	want := []string{
		"Failover {Volume:v To:b Force:true AcceptDataLoss:true Epoch:7}", "Failovers", "VolumeList", "NodeList", "ConfigExport", "ConfigShow",
		"VolumeCreate {Volume:v InitialFrom:a DiscardData:false}", "VolumeCreate {Volume:v InitialFrom: DiscardData:true}",
		"VolumeResync {Volume:v Replica:b Full:true DiscardTargetData:true DropMember:true}", "VolumePause {Volume:v Replica:b Paused:true}",
		"RescueList v", "RescueExport {Volume:v ID:a-e5 Partial:true}", "RescueDelete v a-e5", "NodeAdd d", "NodeRemove d",
		"NodeDrain d true", "Maintenance true", "Fence d bob", "FenceConfirm d", "FenceTest d",
	}
	check("calls", node.Calls(), want, nil)
}

func TestSenselessRequestsNeverReachTheNode(t *testing.T) {
	node := &apitest.Node{}
	c, ctx := dial(t, apitest.Serve(t, node)), within(t)
	_, noVolume := c.Failover(ctx, api.FailoverRequest{})
	_, noForce := c.Failover(ctx, api.FailoverRequest{Volume: "v", AcceptDataLoss: true})
	for what, err := range map[string]error{
		"failover of nothing": noVolume, "consent without force": noForce,
		"create of nothing": c.VolumeCreate(ctx, api.VolumeCreateRequest{}),
		"keep and discard":  c.VolumeCreate(ctx, api.VolumeCreateRequest{Volume: "v", InitialFrom: "a", DiscardData: true}),
		"resync of nothing": func() error { _, err := c.VolumeResync(ctx, api.VolumeResyncRequest{Replica: "a"}); return err }(),
		"resync to nobody":  func() error { _, err := c.VolumeResync(ctx, api.VolumeResyncRequest{Volume: "v"}); return err }(),
		"verify of nothing": func() error { _, err := c.VolumeVerify(ctx, api.VolumeVerifyRequest{}); return err }(),
		"pause of nothing":  func() error { _, err := c.VolumePause(ctx, api.VolumePauseRequest{Replica: "a"}); return err }(),
		"add nobody":        c.NodeAdd(ctx, ""), "remove nobody": c.NodeRemove(ctx, ""), "drain nobody": c.NodeDrain(ctx, "", true),
		"fence nobody":   func() error { _, err := c.Fence(ctx, "", ""); return err }(),
		"confirm nobody": c.FenceConfirm(ctx, ""),
		"test nobody":    func() error { _, err := c.FenceTest(ctx, ""); return err }(),
	} {
		if api.KindOf(err) != api.KindUsage {
			t.Errorf("%s: %v", what, err)
		}
	}
	if calls := node.Calls(); len(calls) != 0 {
		t.Errorf("the node was asked %v", calls)
	}
}

func TestErrorsKeepTheirKindAcrossTheWire(t *testing.T) {
	tests := []struct {
		err  error
		kind api.Kind
		text string
	}{
		{errors.New("disk is broken"), api.KindFailed, "disk is broken"},
		{api.Failed("no volume %q", "x"), api.KindFailed, `no volume "x"`},
		{api.BadRequest("which?"), api.KindUsage, "which?"},
		{api.Refused("would lose 5 blocks: --accept-data-loss consents"), api.KindRefused, "would lose 5 blocks: --accept-data-loss consents"},
		{fmt.Errorf("promote: %w", api.Refused("no")), api.KindRefused, "promote: no"},
		{api.Unavailable("no quorum: 1 of 3 voters answers"), api.KindUnavailable, "no quorum: 1 of 3 voters answers"},
		{api.NotSupported("drain"), api.KindFailed, "drain: not supported yet"},
		{fmt.Errorf("ask: %w", context.DeadlineExceeded), api.KindUnavailable, "whether it was done is unknown"},
		{api.Failed("ünïcode\nand lines"), api.KindFailed, "ünïcode\nand lines"},
		{api.Failed("%s", strings.Repeat("x", 1<<20)), api.KindFailed, "xxx ..."},
	}
	for _, tt := range tests {
		c := dial(t, apitest.Serve(t, &apitest.Node{Err: tt.err}))
		err := c.NodeAdd(within(t), "a")
		if err == nil || api.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%.60v arrives as kind %d, %.200v", tt.err, api.KindOf(err), err)
		}
		if err := c.Events(within(t), true, nil); api.KindOf(err) != tt.kind {
			t.Errorf("%.60v arrives from a stream as kind %d, %.200v", tt.err, api.KindOf(err), err)
		}
	}
}

func TestTimeOutSaysThatTheOutcomeIsUnknown(t *testing.T) {
	node := &apitest.Node{Block: make(chan struct{}), Entered: make(chan struct{}, 1)}
	c := dial(t, apitest.Serve(t, node))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	err := c.NodeAdd(ctx, "a")
	if api.KindOf(err) != api.KindUnavailable || !strings.Contains(err.Error(), "unknown") {
		t.Errorf("%v", err)
	}
}

func TestLostConnectionSaysThatTheOutcomeIsUnknown(t *testing.T) {
	node := &apitest.Node{Block: make(chan struct{}), Entered: make(chan struct{}, 1)}
	socket := t.TempDir() + "/s"
	stop := apitest.ServeAt(t, node, socket)
	c := dial(t, socket)
	result := make(chan error, 1)
	go func() { result <- c.NodeAdd(context.Background(), "a") }()
	<-node.Entered
	stop()
	err := <-result
	if api.KindOf(err) != api.KindUnavailable || !strings.Contains(err.Error(), "was lost") || !strings.Contains(err.Error(), "unknown") {
		t.Errorf("%v", err)
	}
}

// faults.md G47: refused before the node is asked, and before memory is taken for it.
func TestG47OversizeRequestIsRefused(t *testing.T) {
	node := &apitest.Node{}
	c := dial(t, apitest.Serve(t, node))
	if err := c.NodeAdd(within(t), strings.Repeat("x", 2<<20)); err == nil {
		t.Error("a name of two mebibytes was taken")
	}
	if _, err := c.Apply(within(t), api.ApplyRequest{File: make([]byte, config.MaxFile+1)}); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("a file that is too long: %v", err)
	}
	if calls := node.Calls(); len(calls) != 0 {
		t.Errorf("the node was asked %d times", len(calls))
	}
}

func TestEventsComeInOrderAndEnd(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	node := &apitest.Node{More: make(chan api.Event, 1), Journal: []api.Event{
		{Seq: 1, At: at, Node: "a", Kind: "primary", Volume: "v", Text: "one"}, {Seq: 2, At: at, Text: "two"}}}
	c := dial(t, apitest.Serve(t, node))
	var got []api.Event
	collect := func(e api.Event) error { got = append(got, e); return nil }
	if err := c.Events(within(t), false, collect); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(node.Journal, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	node.More <- api.Event{Seq: 3, At: at}
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	got = nil
	err := c.Events(ctx, true, func(e api.Event) error {
		got = append(got, e)
		if e.Seq == 3 {
			cancel()
		}
		return nil
	})
	if err != nil || len(got) != 3 {
		t.Errorf("follow ends with %v after %d events", err, len(got))
	}

	stop := errors.New("enough")
	if err := c.Events(within(t), true, func(api.Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the reader's own error became %v", err)
	}
	close(node.More)
	if err := c.Events(within(t), true, collect); err != nil {
		t.Errorf("a node that ends the stream: %v", err)
	}
}
