package consensus

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"
)

// thinLine is a network of its own in which what goes to 127.0.0.3 passes a line of 4 Mbit/s, as to a witness far away.
const thinLine = `(set -e
ip link set lo mtu 1500 up
tc qdisc add dev lo root handle 1: htb default 1
tc class add dev lo parent 1: classid 1:1 htb rate 10gbit quantum 60000
tc class add dev lo parent 1: classid 1:3 htb rate 4mbit burst 16kb
tc qdisc add dev lo parent 1:3 handle 30: tbf rate 4mbit burst 16kb latency 400ms
tc filter add dev lo parent 1: protocol ip u32 match ip dst 127.0.0.3/32 flowid 1:3) || exit 77
exec "$0" -test.run '^TestThinLineCarriesAnEntryInTime$' -test.v`

// An append request that is not through in its time is sent again for ever, with all that comes behind it: an entry as large as
// several commands make one (GoodCommand) gets over a thin line at the first try.
func TestThinLineCarriesAnEntryInTime(t *testing.T) {
	if os.Getenv("HACLUSTER_THIN_LINE") == "" {
		inThinLine(t)
		return
	}
	at := []string{"127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0"}
	group := newGroup(t, len(at), calm, func(c *Config) {
		_ = c.Stream.Close()
		l := listen(t, at[0])
		at = at[1:]
		c.Stream, c.Address = l, l.Addr().String()
	})
	thin := group[2]
	if leads := leader(t, group...); leads == thin {
		if err := leads.TransferLeadership(t.Context(), group[0].cfg.ID); err != nil {
			t.Fatal(err)
		}
	}
	leads := leader(t, group[:2]...)
	_, term := leads.State()
	eventually(t, "the follower on the thin line to be there", func() bool { return thin.node.LastContact().After(time.Now().Add(-time.Second)) })
	for i := range 5 {
		entry := make([]byte, GoodCommand)
		for j := range entry {
			entry[j] = byte('a' + rand.IntN(26))
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		_, _, err := leads.Propose(ctx, entry)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		for !has(thin, string(entry)) {
			if time.Since(began) > 2*time.Second {
				t.Fatalf("entry %d of %d bytes has not come in two seconds", i, len(entry))
			}
			time.Sleep(time.Millisecond)
		}
		took := time.Since(began)
		t.Logf("entry %d came after %v", i, took.Round(time.Millisecond))
		if least := time.Duration(len(entry)-32<<10) * time.Second / (4e6 / 8); took < least {
			t.Fatalf("after %v: the line is not thin", took)
		}
	}
	if _, now := leads.State(); now != term {
		t.Errorf("term %d became %d", term, now)
	}
}

// inThinLine runs the test once more where the line is thin.
func inThinLine(t *testing.T) {
	for _, tool := range []string{"unshare", "ip", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("a network of its own needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := exec.CommandContext(ctx, "unshare", "--net", "sh", "-c", thinLine, self)
	run.Env = append(os.Environ(), "HACLUSTER_THIN_LINE=1")
	out, err := run.CombinedOutput()
	if run.ProcessState != nil && run.ProcessState.ExitCode() == 77 {
		t.Skipf("no line can be made thin here: %s", out)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
