package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/api/apitest"
	"hacluster/cmd/internal/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// outcome is all that a caller of ha-admin sees.
type outcome struct {
	code     int
	out, err string
}

// admin runs one command line, as main does.
func admin(t *testing.T, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out, errOut bytes.Buffer
	code := run(ctx, args, &out, &errOut)
	return outcome{code, out.String(), errOut.String()}
}

// wantFailure checks the promise for everything that fails: the code of its kind and one line on standard error.
func (o outcome) wantFailure(t *testing.T, code int, texts ...string) {
	t.Helper()
	if o.code != code {
		t.Errorf("exit code %d, want %d (%s)", o.code, code, o.err)
	}
	if o.out != "" {
		t.Errorf("standard output of a failure: %s", o.out)
	}
	if !strings.HasPrefix(o.err, "ha-admin: ") || strings.Count(o.err, "\n") != 1 || !strings.HasSuffix(o.err, "\n") {
		t.Errorf("standard error is not one line: %q", o.err)
	}
	for _, text := range texts {
		if !strings.Contains(o.err, text) {
			t.Errorf("standard error lacks %q: %s", text, o.err)
		}
	}
}

func (o outcome) wantSuccess(t *testing.T, texts ...string) {
	t.Helper()
	if o.code != 0 || o.err != "" {
		t.Errorf("exit code %d, standard error %q", o.code, o.err)
	}
	for _, text := range texts {
		if !strings.Contains(o.out, text) {
			t.Errorf("standard output lacks %q:\n%s", text, o.out)
		}
	}
}

func TestEveryCommandAsksWhatItSays(t *testing.T) {
	node := &apitest.Node{Moved: api.Failover{Volume: "pgdata", To: "beta"}, Rescued: []api.RescueImage{{Volume: "pgdata", ID: "alpha-e5"}}}
	server := "unix://" + apitest.Serve(t, node)
	tests := []struct{ line, call string }{
		{"status", "Status "},
		{"status pgdata", "Status pgdata"},
		{"failover pgdata", "Failover {Volume:pgdata To: Force:false AcceptDataLoss:false Epoch:0}"},
		{"failover pgdata --to beta", "Failover {Volume:pgdata To:beta Force:false AcceptDataLoss:false Epoch:0}"},
		{"failover --force pgdata --accept-data-loss --to=beta", "Failover {Volume:pgdata To:beta Force:true AcceptDataLoss:true Epoch:0}"},
		{"failover pgdata --force", "Failover {Volume:pgdata To: Force:true AcceptDataLoss:false Epoch:0}"},
		{"failovers", "Failovers"},
		{"volume list", "VolumeList"},
		{"volume create pgdata", "VolumeCreate {Volume:pgdata InitialFrom: DiscardData:false}"},
		{"volume create pgdata --initial-from alpha", "VolumeCreate {Volume:pgdata InitialFrom:alpha DiscardData:false}"},
		{"volume create --discard-data pgdata", "VolumeCreate {Volume:pgdata InitialFrom: DiscardData:true}"},
		{"volume resync pgdata --target alpha", "VolumeResync {Volume:pgdata Replica:alpha Full:false DiscardTargetData:false DropMember:false}"},
		{"volume resync pgdata --target alpha --discard-target-data", "VolumeResync {Volume:pgdata Replica:alpha Full:false DiscardTargetData:true DropMember:false}"},
		{"volume resync pgdata --replica alpha --full --drop-member", "VolumeResync {Volume:pgdata Replica:alpha Full:true DiscardTargetData:false DropMember:true}"},
		{"volume pause pgdata", "VolumePause {Volume:pgdata Replica: Paused:true}"},
		{"volume verify pgdata --detach --repair", "VolumeVerify {Volume:pgdata Repair:true Stop:false}"},
		{"volume verify pgdata --stop", "VolumeVerify {Volume:pgdata Repair:false Stop:true}"},
		{"volume rescue list", "RescueList "},
		{"volume rescue list pgdata", "RescueList pgdata"},
		{"volume rescue show pgdata alpha-e5", "RescueList pgdata"},
		{"volume resume pgdata --replica beta", "VolumePause {Volume:pgdata Replica:beta Paused:false}"},
		{"node list", "NodeList"},
		{"node add delta", "NodeAdd delta"},
		{"node remove delta", "NodeRemove delta"},
		{"node drain alpha", "NodeDrain alpha true"},
		{"node undrain alpha", "NodeDrain alpha false"},
		{"maintenance on", "Maintenance true"},
		{"maintenance off", "Maintenance false"},
		{"events", "Events false"},
		{"config show", "ConfigShow"},
		{"config export", "ConfigExport"},
	}
	for i, tt := range tests {
		for _, output := range []string{"table", "json"} {
			before := append([]string{"--server", server, "-o", output}, strings.Fields(tt.line)...)
			after := append(strings.Fields(tt.line), "--server="+server, "--output="+output, "--timeout", "20s")
			for _, args := range [][]string{before, after} {
				admin(t, args...).wantSuccess(t)
				calls := node.Calls()
				if got := calls[len(calls)-1]; got != tt.call {
					t.Errorf("%q asks %q, want %q", args, got, tt.call)
				}
			}
		}
		if n := len(node.Calls()); n != 4*(i+1) {
			t.Fatalf("%d calls after %q, want %d", n, tt.line, 4*(i+1))
		}
	}
}

// What is done to one volume of a group is done to all of it, and the answer says so.
func TestAnswersSayThatTheWholeGroupIsMeant(t *testing.T) {
	at := time.Unix(1, 0).UTC()
	found := func(volume string) *api.VerifyStatus {
		return &api.VerifyStatus{Group: "pg", State: api.VerifyDone, StartedAt: at, EndedAt: &at, Complete: true, DifferentBlocks: 2, Primary: "alpha",
			Ranges: []api.VerifyRange{{Volume: volume, Node: "beta", Offset: 4096, Length: 4096, Kind: "different"}}}
	}
	node := &apitest.Node{Group: "pg", Begun: api.VerifyBegun{Primary: "alpha", StartedAt: at, Group: "pg"},
		Doc: api.Status{Volumes: []api.VolumeStatus{{Name: "data", Group: "pg", Verify: found("data")}, {Name: "wal", Group: "pg", Verify: found("wal")}}}}
	server := "unix://" + apitest.Serve(t, node)
	const whole = "group pg, which volume wal is part of, as a whole"
	for _, line := range []string{"pause wal", "resume wal", "resync wal --replica beta", "verify wal --stop", "verify wal --detach"} {
		admin(t, append([]string{"--server", server, "volume"}, strings.Fields(line)...)...).wantSuccess(t, whole)
	}
	for _, name := range []string{"wal", "pg"} {
		o := admin(t, "--server", server, "volume", "verify", name)
		if o.code != 1 || !strings.Contains(o.err, "2 blocks of group pg differ") || !strings.Contains(o.err, "volume verify pg --repair") {
			t.Errorf("verify of %s ends with %d: %s", name, o.code, o.err)
		}
		if !strings.Contains(o.out, "all of group pg: done") || !strings.Contains(o.out, "data    beta") || !strings.Contains(o.out, "wal     beta") {
			t.Errorf("verify of %s says:\n%s", name, o.out)
		}
		calls := node.Calls()
		if last := calls[len(calls)-1]; last != "Status pg" {
			t.Errorf("verify of %s asks %q: the differences of the other volumes are not shown", name, last)
		}
	}
}

func TestExitCodeTellsTheKindOfAnError(t *testing.T) {
	for code, err := range map[int]error{
		1: api.Failed("the disk of beta is broken"),
		2: api.BadRequest("the disk of beta is broken"),
		3: api.Refused("the disk of beta is broken"),
		4: api.Unavailable("the disk of beta is broken"),
	} {
		server := apitest.Serve(t, &apitest.Node{Err: err})
		for _, line := range []string{"status", "failover v", "failovers", "volume list", "volume create v", "volume resync v --target b",
			"node list", "node add b", "node remove b", "events", "events --follow", "config show", "config export", "volume delete v", "status -o json"} {
			admin(t, append(strings.Fields(line), "--server", server)...).wantFailure(t, code, "the disk of beta is broken")
		}
	}
}

func TestWrongUsageEndsWithTwoAndAsksNobody(t *testing.T) {
	node := &apitest.Node{}
	server := apitest.Serve(t, node)
	for line, want := range map[string]string{
		"statsu":                        `unknown command "statsu"`,
		"status a b":                    `one argument too many, "b"`,
		"failover":                      "missing argument",
		"failover a --too b":            "unknown flag",
		"failover a --accept-data-loss": "--force",
		"volume":                        "no command",
		"volume remove":                 `unknown command "remove"`,
		"volume create v --initial-from a --discard-data": "contradict",
		"volume create":                        "missing argument",
		"volume resync v":                      "--replica",
		"node add":                             "missing argument",
		"node add a b":                         "one argument too many",
		"node list all":                        "one argument too many",
		"events pgdata":                        "one argument too many",
		"status -o yaml":                       "unknown output",
		"status --timeout 10":                  "invalid argument",
		"status --timeout -1s":                 "more than zero",
		"status --insecure --pki /etc/x":       "contradict",
		"status --server ,":                    "empty address",
		"status --server localhost --insecure": "host:port",
		"config":                               "no command",
		"config check":                         "missing argument",
		"config show a b":                      "one argument too many",
	} {
		args := strings.Fields(line)
		if !strings.Contains(line, "--server") {
			args = append(args, "--server", server)
		}
		admin(t, args...).wantFailure(t, 2, want)
	}
	admin(t, "status", "", "--server", server).wantFailure(t, 2, "empty argument")
	if calls := node.Calls(); len(calls) != 0 {
		t.Errorf("asked: %v", calls)
	}
}

func TestNoCommandAtAllShowsHelp(t *testing.T) {
	o := admin(t)
	if o.code != 2 || !strings.Contains(o.out, "Available Commands") {
		t.Errorf("%+v", o)
	}
	admin(t, "failover", "--help").wantSuccess(t, "--accept-data-loss", "--server")
}

func TestNobodyAnswers(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "admin.sock")
	admin(t, "status", "--server", absent).wantFailure(t, 4, "nobody answers at "+absent, "no such file", "is haclusterd running")
	admin(t, "status", "--server", "127.0.0.1:1", "--insecure").wantFailure(t, 4, "127.0.0.1:1", "refused")
}

func TestNoAnswerInTime(t *testing.T) {
	node := &apitest.Node{Block: make(chan struct{}), Entered: make(chan struct{}, 1)}
	server := apitest.Serve(t, node)
	admin(t, "node", "remove", "beta", "--server", server, "--timeout", "300ms").wantFailure(t, 4, "whether it was done is unknown")
}

func TestFirstServerThatAnswersIsAsked(t *testing.T) {
	node := &apitest.Node{}
	servers := "unix:///nowhere/admin.sock," + apitest.Serve(t, node)
	admin(t, "--server", servers, "node", "add", "x").wantSuccess(t)
	admin(t, "node", "add", "x", "--server", "/nowhere/admin.sock", "--server", servers).wantSuccess(t)
	if len(node.Calls()) != 2 {
		t.Errorf("asked: %v", node.Calls())
	}
}

// A socket is named by any path, as everywhere; what is neither that nor host:port is told what would be.
func TestSocketIsNamedByARelativePath(t *testing.T) {
	node := &apitest.Node{}
	path := strings.TrimPrefix(apitest.Serve(t, node), "unix://")
	t.Chdir(filepath.Dir(path))
	for _, server := range []string{"./" + filepath.Base(path), "unix://" + filepath.Base(path)} {
		admin(t, "node", "add", "x", "--server", server).wantSuccess(t)
	}
	if len(node.Calls()) != 2 {
		t.Errorf("asked: %v", node.Calls())
	}
	for _, server := range []string{filepath.Base(path), "http://127.0.0.1:7480", "alpha"} {
		admin(t, "status", "--server", server).wantFailure(t, 2, server, "is no address", "./admin.sock")
	}
}

// The node's port is shared by several protocols, told apart by a preface.
func TestNodesPortIsAskedWithInsecureOnly(t *testing.T) {
	transport, err := identity.New(identity.Config{Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	mux, err := transport.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mux.Close()
	node := &apitest.Node{}
	defer apitest.ServeOn(t, node, mux.Listener(identity.ProtoGRPC))()
	addr := mux.Addr().String()
	admin(t, "status", "--insecure", "--server", addr).wantSuccess(t)
	admin(t, "status", "--server", addr).wantFailure(t, 1, "TLS", "/etc/hacluster/pki/ca.crt", "ha-admin pki init", "--insecure")
	admin(t, "status", "--server", addr, "--pki", "/nowhere").wantFailure(t, 1, "/nowhere/ca.crt", "no such file")
	admin(t, "status", "--insecure", "--server", "10.255.255.1:7400").wantFailure(t, 3, "only loopback addresses")
	if len(node.Calls()) != 1 {
		t.Errorf("asked: %v", node.Calls())
	}
}

// oneNode writes a file whose data_dir lies in a folder of the test.
func oneNode(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "cluster.hcl")
	src := "cluster \"lab\" {\n  data_dir = \"" + dir + "/${node.name}\"\n  mistake = 1\n}\nnode \"alpha\" {\n  address = \"127.0.0.1:7400\"\n}\n"
	if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLocalDaemonIsFoundThroughTheFile(t *testing.T) {
	dir := t.TempDir()
	path := oneNode(t, dir) // with a mistake that does not matter here
	if err := os.Mkdir(filepath.Join(dir, "alpha"), 0o700); err != nil {
		t.Fatal(err)
	}
	node := &apitest.Node{}
	apitest.ServeAt(t, node, filepath.Join(dir, "alpha", "admin.sock"))
	admin(t, "node", "add", "x", "--config", path, "--node", "alpha").wantSuccess(t)
	if len(node.Calls()) != 1 {
		t.Errorf("asked: %v", node.Calls())
	}
	admin(t, "status", "--config", path, "--node", "beta").wantFailure(t, 1, "cluster.hcl:2: unknown variable ${node.name}", "--server", "--node")
	admin(t, "status", "--config", filepath.Join(dir, "absent.hcl")).wantFailure(t, 1, "no such file", "--server")
}

func TestWhatANodeSaysCannotReachTheTerminalAsIs(t *testing.T) {
	hostile := "evil\x1b[2Jtext\nand\ta second line"
	o := admin(t, "status", "--server", apitest.Serve(t, &apitest.Node{Err: api.Failed("%s", hostile)}))
	o.wantFailure(t, 1, "evil?[2Jtext and a second line")
	doc := api.Status{Cluster: hostile, Leader: hostile, Nodes: []api.NodeStatus{{Name: hostile}},
		Volumes:      []api.VolumeStatus{{Name: hostile, Primary: hostile, State: hostile, Mode: hostile, Device: hostile, InSync: []string{hostile}, Promotable: []string{hostile}, Replicas: []api.ReplicaStatus{{Node: hostile}}}},
		LastFailover: &api.Failover{Volume: hostile, Reason: hostile}}
	events := []api.Event{{Text: hostile, Node: hostile, Kind: hostile}}
	server := apitest.Serve(t, &apitest.Node{Doc: doc, Journal: events, Members: []api.Member{{Name: hostile}}, Volumes: []api.Volume{{Name: hostile}}, Past: []api.Failover{*doc.LastFailover}})
	for _, line := range []string{"status", "events", "node list", "volume list", "failovers", "status -o json", "events -o json"} {
		if o := admin(t, append(strings.Fields(line), "--server", server)...); o.code != 0 || strings.Contains(o.out, "\x1b") {
			t.Errorf("%s: code %d, %q", line, o.code, o.out)
		}
	}
}

// stopAfter cancels when n lines were written.
type stopAfter struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	text   string
	cancel context.CancelFunc
	seen   map[string]func() // called once, when their text was printed
}

func (w *stopAfter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	if strings.Contains(w.buf.String(), w.text) {
		w.cancel()
	}
	for text, f := range w.seen {
		if strings.Contains(w.buf.String(), text) {
			delete(w.seen, text)
			f()
		}
	}
	return len(p), nil
}

// until runs a command that ends only when interrupted, and interrupts it when it has printed a text.
func until(t *testing.T, text string, args ...string) (code int, out string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w := &stopAfter{text: text, cancel: cancel}
	code = run(ctx, args, w, w)
	return code, w.buf.String()
}

func TestEventsAreFollowedUntilInterrupted(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	node := &apitest.Node{More: make(chan api.Event, 1), Journal: []api.Event{{Seq: 1, At: at, Node: "alpha", Kind: "primary", Volume: "pgdata", Text: "first"}}}
	server := apitest.Serve(t, node)
	node.More <- api.Event{Seq: 2, At: at, Node: "alpha", Kind: "leader", Text: "second"}
	code, out := until(t, "second", "events", "--follow", "--server", server)
	const want = "2026-11-22T10:00:00Z  alpha pgdata  primary  first\n2026-11-22T10:00:00Z  alpha  leader  second\n"
	if code != 0 || out != want {
		t.Errorf("code %d, output\n%swant\n%s", code, out, want)
	}
	node = &apitest.Node{More: make(chan api.Event, 1), Journal: node.Journal}
	server = apitest.Serve(t, node)
	node.More <- api.Event{Seq: 3, At: at}
	code, out = until(t, `"seq":3`, "events", "--follow", "--server", server, "-o", "json")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); code != 0 || len(lines) != 2 ||
		lines[0] != `{"seq":1,"number":0,"at":"2026-11-22T10:00:00Z","node":"alpha","kind":"primary","volume":"pgdata","text":"first"}` {
		t.Errorf("code %d, output\n%s", code, out)
	}
	admin(t, "events", "--follow", "--server", "/nowhere/admin.sock").wantFailure(t, 4, "nobody answers")
}

// A follower that is told the same history by another node prints what is new in it.
func TestEventsAreFollowedOnTheNextServerWithoutRepeating(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	event := func(number uint64, second int, text string) api.Event {
		return api.Event{Number: number, At: at.Add(time.Duration(second) * time.Second), Node: "n", Kind: "k", Text: text}
	}
	first := &apitest.Node{More: make(chan api.Event), Journal: []api.Event{event(1, 0, "one"), event(0, 1, "seen by the first"), event(2, 2, "two")}}
	close(first.More) // it ends the stream
	next := &apitest.Node{More: make(chan api.Event), Journal: []api.Event{event(1, 0, "one"), event(0, 1, "old, seen by the next"), event(2, 2, "two"),
		event(0, 3, "new, seen by the next"), event(3, 1, "three")}}
	code, out := until(t, "three", "events", "--follow", "--server", apitest.Serve(t, first)+","+apitest.Serve(t, next))
	var told []string
	for line := range strings.Lines(out) {
		if i := strings.LastIndex(line, "  "); i > 0 && !strings.HasPrefix(line, "ha-admin") {
			told = append(told, strings.TrimSpace(line[i:]))
		}
	}
	if want := []string{"one", "seen by the first", "two", "new, seen by the next", "three"}; code != 0 || !slices.Equal(told, want) {
		t.Errorf("code %d, told %q, want %q\n%s", code, told, want, out)
	}
	if !strings.Contains(out, "ended the events") {
		t.Errorf("the change of server is not mentioned:\n%s", out)
	}
}

func TestWatchGoesOnWithTheNextServer(t *testing.T) {
	dir := t.TempDir()
	stop := apitest.ServeAt(t, &apitest.Node{Doc: api.Status{Cluster: "first"}}, filepath.Join(dir, "a"))
	apitest.ServeAt(t, &apitest.Node{Doc: api.Status{Cluster: "second"}}, filepath.Join(dir, "b"))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w := &stopAfter{text: "cluster second", cancel: cancel, seen: map[string]func(){"cluster first": stop}}
	if code := run(ctx, []string{"status", "--watch", "--interval", "100ms", "--server", filepath.Join(dir, "a") + "," + filepath.Join(dir, "b")}, w, w); code != 0 {
		t.Errorf("code %d, output\n%s", code, w.buf.String())
	}
	if out := w.buf.String(); !strings.Contains(out, "cluster second") || strings.Contains(out, "\x1b") {
		t.Errorf("output\n%q", out)
	}
}

func TestTerminalIsRedrawnInPlace(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out, redraw: true}
	for _, text := range []string{"one\ntwo\n", "three\n"} {
		fmt.Fprint(s, text)
		if err := s.show(); err != nil {
			t.Fatal(err)
		}
	}
	if want := "\x1b[2J\x1b[Hone\x1b[K\ntwo\x1b[K\n\x1b[J" + "\x1b[Hthree\x1b[K\n\x1b[J"; out.String() != want {
		t.Errorf("wrote %q, want %q", out.String(), want)
	}
}

func TestStatusIsWatchedUntilInterrupted(t *testing.T) {
	admin(t, "status", "--watch", "--interval", "1ms", "--server", "/nowhere").wantFailure(t, 2, "100ms or more")
	server := apitest.Serve(t, &apitest.Node{Doc: api.Status{Cluster: "shop"}})
	code, out := until(t, "shop", "status", "--watch", "--server", server)
	if code != 0 || !strings.Contains(out, "cluster shop") {
		t.Errorf("code %d, output\n%s", code, out)
	}
	// A node that is away is what one watches for; a command that makes no sense is not.
	code, out = until(t, "nobody answers", "status", "--watch", "--server", "/nowhere/admin.sock")
	if code != 0 || !strings.Contains(out, "nobody answers") {
		t.Errorf("code %d, output\n%s", code, out)
	}
	admin(t, "status", "x", "--watch", "--server", apitest.Serve(t, &apitest.Node{Err: api.Failed("no volume x")})).wantFailure(t, 1, "no volume x")
}
