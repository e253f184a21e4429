package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hacluster/cmd/internal/api"
)

// agentText is a fence agent for daemons of this machine: NODE.pid says whom it ends, and LEVEL.NODE how it behaves: ok, fail, hang or
// lie. What it leaves running notes its number in left.
const agentText = `#!/bin/sh
level='' action='' nodename='' dir=''
while read -r l; do case $l in level=*) level=${l#*=};; action=*) action=${l#*=};; nodename=*) nodename=${l#*=};; dir=*) dir=${l#*=};; esac; done
how=$(cat "$dir/$level.$nodename")
pid=$(cat "$dir/$nodename.pid")
echo "$action $nodename level $level: $how" >>"$dir/asked"
case $action in
metadata) echo '<resource-agent name="fence_e2e"><actions><action name="off"/><action name="status"/><action name="monitor"/><action name="metadata"/></actions></resource-agent>';;
monitor) [ "$how" != fail ] || { echo "no such plug" >&2; exit 1; };;
status) [ "$how" != lie ] || exit 2; kill -0 "$pid" 2>/dev/null || exit 2;;
off) case $how in
  ok) kill -9 "$pid"; while kill -0 "$pid" 2>/dev/null; do :; done;;
  fail) echo "no such plug" >&2; exit 1;;
  hang) setsid sleep 1000 & echo $! >>"$dir/left"; wait;;
  esac;;
esac
exit 0
`

// fenced starts a cluster whose data nodes can be turned off at two levels.
func fenced(t *testing.T, cluster string) *rig {
	t.Helper()
	var blocks strings.Builder
	for _, n := range []string{"alpha", "beta"} {
		for level := 1; level <= 2; level++ {
			fmt.Fprintf(&blocks, "fence %q {\n  level   = %d\n  agent   = \"${dir}/fence_e2e\"\n  timeout = \"3s\"\n  tries   = 1\n  options = { level = \"%[2]d\", dir = \"${dir}\" }\n}\n", n, level)
		}
	}
	r := newRig(t, Config{RTO: "3s", Cluster: cluster, Blocks: blocks.String()})
	r.put("fence_e2e", agentText)
	for _, n := range []string{"alpha", "beta"} {
		r.behave(n, "ok", "ok")
	}
	r.start()
	r.notePids()
	r.until("the volume is healthy", Healthy)
	return r
}

func (r *rig) put(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.cfg.Dir, name), []byte(text), 0o700); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) behave(node string, levels ...string) {
	for i, how := range levels {
		r.put(fmt.Sprintf("%d.%s", i+1, node), how)
	}
}

func (r *rig) notePids() {
	for _, n := range r.DataNodes() {
		r.put(n+".pid", strconv.Itoa(r.Pid(n)))
	}
}

func (r *rig) text(name string) string {
	b, _ := os.ReadFile(filepath.Join(r.cfg.Dir, name))
	return string(b)
}

// lives reports whether a process runs; one that nobody has waited for yet is dead.
func lives(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	state := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	return err == nil && len(state) > 0 && state[0] != "Z"
}

// fenceOf is what the status says of a node's fencing.
func fenceOf(s *api.Status, node string) *api.FenceStatus {
	for _, n := range s.Nodes {
		if n.Name == node && n.Fence != nil {
			return n.Fence
		}
	}
	return &api.FenceStatus{}
}

func lastWord(node, word string) func(*api.Status) bool {
	return func(s *api.Status) bool {
		f := fenceOf(s, node)
		return s.Quorum && f.Last != nil && f.Last.Word == word
	}
}

const required = "  fencing = \"required\"\n"

// faults.md F115: an agent fails, so nobody follows until a person says that the old primary is off.
func TestWhereFencingIsRequiredNobodyFollowsBeforeAPersonSaysSo(t *testing.T) {
	r := fenced(t, required)
	l := r.load()
	old := r.vol().Primary
	heir := other(old)
	r.behave(old, "fail", "fail")
	epoch := r.vol().Epoch
	r.Kill(old)
	s := r.until("its fencing failed twice", func(s *api.Status) bool {
		f := fenceOf(s, old).Last
		return s.Quorum && f != nil && f.Word == "failed" && f.Failed >= 2
	})
	if v := s.Volumes[0]; v.Epoch != epoch || v.State != api.VolumeUnavailable || !strings.Contains(v.Reason, "ha-admin fence confirm "+old) || !strings.Contains(v.Reason, "no such plug") {
		t.Errorf("%+v", v)
	}
	if f := fenceOf(s, old); len(f.Devices) != 2 || len(f.Waits) != 1 || f.Last.Off || s.Fencing != "required" {
		t.Errorf("%+v", f)
	}
	_, errs := r.admin(3, "failover", "vol")
	r.says(errs, "fencing is required", "fence confirm "+old)
	_, errs = r.admin(3, "failover", "vol", "--to", heir, "--force", "--accept-data-loss")
	r.says(errs, "fencing is required")
	_, errs = r.admin(3, "fence", "confirm", heir)
	r.says(errs, heir+" answers")
	if out, _ := r.admin(0, "status"); !strings.Contains(out, "fencing is required") || !strings.Contains(out, "nobody serves vol until then") {
		t.Errorf("the table does not tell: %s", out)
	}
	r.admin(0, "fence", "confirm", old)
	r.until("the other follows", PrimaryIs(heir))
	l.more(50)
	out, _ := r.admin(0, "events")
	r.says(out, "fencing begun", "fencing failed", "fencing confirmed", "no such plug")
	r.start(old)
	s = r.until("healthy again", Healthy)
	if f := fenceOf(s, old); f.Last.Off || len(f.Waits) != 0 {
		t.Errorf("a node that runs counts as off: %+v", f)
	}
	l.end()
	r.same()
}

// faults.md F116, F94: an agent hangs and leaves children; it is killed with them, and the next level turns the node off, whose process was
// only paused and could have gone on.
func TestHungAgentIsKilledAndTheNextLevelFences(t *testing.T) {
	r := fenced(t, required)
	l := r.load()
	old := r.vol().Primary
	r.behave(old, "hang", "ok")
	r.signal(syscall.SIGSTOP, old)
	r.until("it is being fenced", lastWord(old, "begun"))
	_, errs := r.admin(3, "fence", "test", old)
	r.says(errs, old+" is being turned off")
	s := r.until("the other follows", PrimaryIs(other(old)))
	if f := fenceOf(s, old).Last; f == nil || f.Word != "off" || f.Level != 2 || !strings.Contains(f.Text, "took longer than 3s") {
		t.Errorf("%+v", f)
	}
	if pid := r.Pid(old); pid != 0 {
		t.Errorf("%s runs as %d", old, pid)
	}
	left := strings.Fields(r.text("left"))
	if len(left) == 0 {
		t.Error("no agent hung")
	}
	for _, p := range left {
		if lives(p) {
			t.Errorf("process %s of the hung agent lives", p)
		}
	}
	l.more(50)
	l.end()
	r.start(old)
	r.same()
}

// faults.md F117: the agents say that a paused primary is off. It is followed, for nobody can know better; when it wakes it must not serve.
func TestAgentThatLiesCostsNoData(t *testing.T) {
	r := fenced(t, required)
	l := r.load()
	old := r.vol().Primary
	r.behave(old, "lie", "lie")
	r.signal(syscall.SIGSTOP, old)
	r.until("the other follows", PrimaryIs(other(old)))
	l.more(50)
	r.signal(syscall.SIGCONT, old)
	r.until("what was said of it is refuted", lastWord(old, "refuted"))
	l.more(50)
	l.end()
	r.until("healthy", Healthy)
	r.same()
}

// faults.md F118 and what people ask for.
func TestFenceCommands(t *testing.T) {
	r := fenced(t, "")
	r.admin(1, "fence", "nobody")
	r.admin(1, "fence", "confirm", "nobody")
	r.admin(1, "fence", "test", "nobody")
	_, errs := r.admin(1, "fence", "gamma")
	r.says(errs, "no fence agent is configured for gamma")
	r.admin(2, "fence")
	r.admin(2, "fence", "confirm")
	primary := r.vol().Primary
	standby := other(primary)
	out, _ := r.admin(0, "fence", "test", standby, "-o", "json")
	var tested api.FenceTested
	if err := json.Unmarshal([]byte(out), &tested); err != nil || len(tested.Agents) != 2 || !tested.OK() || tested.Agents[0].State != "on" {
		t.Errorf("%v: %s", err, out)
	}
	r.behave(standby, "fail", "ok")
	out, errs = r.admin(1, "fence", "test", standby)
	r.says(out, "monitor: exit code 1: no such plug")
	r.says(errs, "could not be turned off by all")
	if r.Pid(standby) == 0 {
		t.Fatal("a test turned it off")
	}
	r.behave(standby, "fail", "fail")
	_, errs = r.admin(1, "fence", standby)
	r.says(errs, "was not turned off", "no such plug")
	r.behave(standby, "fail", "ok")
	out, _ = r.admin(0, "fence", standby, "-o", "json")
	var rec api.FenceRecord
	if err := json.Unmarshal([]byte(out), &rec); err != nil || rec.Word != "off" || rec.Level != 2 || !rec.Off || rec.Person == "" {
		t.Errorf("%v: %s", err, out)
	}
	if r.Pid(standby) != 0 {
		t.Error("it runs")
	}
	out, _ = r.admin(0, "events")
	r.says(out, "node fenced", "asked for by "+rec.Person)
	r.start(standby)
	r.notePids()
	r.until("healthy", Healthy)
	leader := r.until("a leader", func(s *api.Status) bool { return s.Quorum && s.Leader != "" }).Leader
	if leader == "gamma" {
		return
	}
	ctx, cancel := r.within()
	defer cancel()
	if _, errs, code := r.Admin(ctx, "fence", leader); code != 4 || !strings.Contains(errs, "passed that on") {
		t.Errorf("the leader turns itself off: %d, %s", code, errs)
	}
}

// The leader ends in the middle of it: the agent ends with it, and the next leader begins again.
func TestNextLeaderGoesOnWithTheFence(t *testing.T) {
	r := fenced(t, required)
	old := r.vol().Primary
	r.behave(old, "hang", "hang")
	r.until("somebody else leads", func(s *api.Status) bool { return s.Quorum && s.Leader != "" && s.Leader != old })
	r.signal(syscall.SIGSTOP, old)
	s := r.until("it is being fenced", lastWord(old, "begun"))
	deadline := time.Now().Add(patience)
	for r.text("left") == "" {
		if time.Now().After(deadline) {
			t.Fatal("no agent is asked")
		}
		time.Sleep(20 * time.Millisecond)
	}
	leader, by := s.Leader, fenceOf(s, old).Last.By
	if by != leader {
		t.Errorf("%s fences, %s leads", by, leader)
	}
	r.behave(old, "ok", "ok")
	r.Kill(leader)
	for _, p := range strings.Fields(r.text("left")) {
		for lives(p) {
			if time.Now().After(deadline) {
				t.Fatalf("process %s of the agent outlives the leader that asked it", p)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	r.start(leader)
	r.until("the next leader has it off", lastWord(old, "off"))
	if r.Pid(old) != 0 {
		t.Error("it runs")
	}
	r.until("the other follows", PrimaryIs(other(old)))
}

// An agent that is not installed keeps no node from running, and is told of.
func TestMissingAgentKeepsNobodyFromStarting(t *testing.T) {
	r := healthy(t, Config{RTO: "3s", Blocks: "fence \"alpha\" {\n  agent = \"fence_nowhere\"\n}\n"})
	s := r.until("it is told of", func(s *api.Status) bool {
		f := fenceOf(s, "alpha")
		return s.Quorum && len(f.Devices) == 1 && f.Devices[0].Missing
	})
	if len(s.Nodes) != 3 {
		t.Errorf("%+v", s.Nodes)
	}
	out, _ := r.admin(0, "status")
	r.says(out, "fence_nowhere (not installed on this server)")
	out, _ = r.admin(0, "events")
	r.says(out, "fence agent missing", "fence_nowhere is not installed on ")
	_, errs := r.admin(1, "config", "check", "--node", "alpha", r.File())
	r.says(errs, "agent is not installed on this machine")
	r.admin(0, "config", "check", "--start", "--insecure", "--node", "alpha", r.File())
}

// `ha-admin apply` brings agents and the demand for them to a running cluster.
func TestFencingIsAppliedOnline(t *testing.T) {
	r := healthy(t, Config{RTO: "3s"})
	text := r.text("cluster.hcl")
	r.put("cluster.hcl", strings.Replace(text, "cluster \"e2e\" {\n", "cluster \"e2e\" {\n  fencing = \"required\"\n", 1))
	_, errs := r.admin(1, "apply", r.File(), "--yes")
	r.says(errs, "node alpha has no fence agent")
	r.put("cluster.hcl", r.text("cluster.hcl")+"fence \"alpha\" { agent = \"fence_nowhere\" }\nfence \"beta\" { agent = \"fence_nowhere\" }\n")
	_, errs = r.admin(3, "apply", r.File(), "--yes")
	r.says(errs, "agent is not installed on this machine")
	r.put("fence_e2e", agentText)
	r.put("cluster.hcl", strings.ReplaceAll(r.text("cluster.hcl"), "fence_nowhere\"", filepath.Join(r.cfg.Dir, "fence_e2e")+"\"\n options = { level = \"1\", dir = \""+r.cfg.Dir+"\" }\n"))
	r.put("cluster.hcl", strings.NewReplacer("{ agent =", "{\n agent =").Replace(r.text("cluster.hcl")))
	r.behave("alpha", "ok")
	r.behave("beta", "ok")
	r.notePids()
	out, _ := r.admin(0, "apply", r.File(), "--yes")
	r.says(out, "fencing", "lease -> required", "fence alpha")
	old := r.until("it is required", func(s *api.Status) bool { return s.Quorum && s.Fencing == "required" }).Volumes[0].Primary
	r.signal(syscall.SIGSTOP, old)
	r.until("it was fenced", lastWord(old, "off"))
	r.until("the other follows", PrimaryIs(other(old)))
	r.start(old)
	r.same()
}

// Without fencing required nobody waits for the agents, and whoever serves again when their delay is over must not be turned off.
func TestWhoServesAgainIsNotTurnedOffLate(t *testing.T) {
	var blocks strings.Builder
	for _, n := range []string{"alpha", "beta"} {
		fmt.Fprintf(&blocks, "fence %q {\n  level   = 1\n  agent   = \"${dir}/fence_e2e\"\n  timeout = \"3s\"\n  delay   = \"15s\"\n  tries   = 1\n  options = { level = \"1\", dir = \"${dir}\" }\n}\n", n)
	}
	r := newRig(t, Config{RTO: "3s", Blocks: blocks.String()})
	r.put("fence_e2e", agentText)
	r.behave("alpha", "ok")
	r.behave("beta", "ok")
	r.start()
	r.notePids()
	r.until("the volume is healthy", Healthy)
	old := r.vol().Primary
	r.signal(syscall.SIGSTOP, old)
	r.until("the other follows", PrimaryIs(other(old)))
	r.until("it is to be turned off", lastWord(old, "begun"))
	r.signal(syscall.SIGCONT, old)
	r.until("it is spared", lastWord(old, "ended"))
	r.until("all is well", Healthy)
	if asked := r.text("asked"); asked != "" {
		t.Fatalf("asked %q", asked)
	}
}
