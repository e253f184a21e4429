package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"hacluster/blockdev/frontend/nbd/nbdclient"
)

// use is what a process holds.
type use struct {
	goroutines, descriptors int
	peakMiB                 int // most memory ever, resident
}

func (r *rig) use(node string) (u use) {
	r.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.Pid(node)))
	if err != nil {
		r.t.Fatal(err)
	}
	u.descriptors = len(entries)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.Pid(node)))
	if err != nil {
		r.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		r.t.Fatal(err)
	}
	u.peakMiB = kib >> 10
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + r.HTTP(node) + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		return use{goroutines: 1 << 30, descriptors: u.descriptors, peakMiB: u.peakMiB} // the attack is still in its way
	}
	defer resp.Body.Close()
	head := make([]byte, 64)
	io.ReadFull(resp.Body, head)
	if _, err := fmt.Sscanf(string(head), "goroutine profile: total %d", &u.goroutines); err != nil {
		r.t.Fatalf("%q: %v", head, err)
	}
	return u
}

// faults.md G41, G56, N13, N14 on all ports at once: ten thousand connections of a stranger while a client writes. The
// client sees no error, no role moves, nothing is left of them, and memory stays within bounds.
func TestTenThousandConnectionsOfAStranger(t *testing.T) {
	r := healthy(t, Config{RTO: "10s", TLS: true}) // a busy machine alone must move no role here
	l := r.load()
	before, was := map[string]use{}, r.vol()
	for _, n := range Nodes {
		before[n] = r.use(n)
	}
	ctx, cancel := r.within()
	defer cancel()
	acks := l.acks.Load()
	done := make(chan Result, 1)
	go func() { done <- r.AttackOn(10000).Run(ctx) }()
	res, welcomed := r.whileAttacked(done)
	during := l.acks.Load() - acks
	if welcomed == 0 {
		t.Error("nobody new got through during the attack")
	}
	if res.Made+res.Refused != 10000 || res.Refused > 100 {
		t.Errorf("the attack did not bite: %+v", res)
	}
	if during == 0 {
		t.Error("no write was acknowledged during the attack")
	}
	l.more(50)
	if s := l.dev.Stats(); s.Reconnects != 0 {
		t.Errorf("the client lost its connection %d times", s.Reconnects)
	}
	if v := r.vol(); v.Epoch != was.Epoch || len(v.InSync) != 2 {
		t.Errorf("epoch %d became %d, members %v", was.Epoch, v.Epoch, v.InSync)
	}
	for _, n := range Nodes {
		r.leavesNothing(n, before[n])
	}
	t.Logf("%+v, meanwhile %d writes, %d new clients", res, during, welcomed)
	l.stop()
	r.same()
}

// whileAttacked comes as a new client, by TLS and by NBD, until the attack is over, and counts how often both worked.
func (r *rig) whileAttacked(done <-chan Result) (res Result, welcomed int) {
	primary := r.vol().Primary
	for {
		ctx, cancel := r.within()
		_, _, code := r.AdminAt(ctx, r.Address(primary), "status", "--pki", r.PKI())
		c, err := nbdclient.Dial(ctx, "nbd://"+r.NBD(primary)+"/"+Volume)
		if err == nil {
			_, err = c.ReadAt(make([]byte, 4096), 0)
			c.Close()
		}
		cancel()
		if code == 0 && err == nil {
			welcomed++
		}
		select {
		case res := <-done:
			return res, welcomed
		default:
		}
	}
}

// leavesNothing waits until a node holds what it held before, save a few that come and go by themselves.
func (r *rig) leavesNothing(node string, before use) {
	r.t.Helper()
	const slack, mostMiB = 24, 256
	deadline := time.Now().Add(patience)
	for {
		now := r.use(node)
		if now.peakMiB > mostMiB {
			r.t.Errorf("%s took up to %d MiB of memory, %d before", node, now.peakMiB, before.peakMiB)
			return
		}
		if now.goroutines <= before.goroutines+slack && now.descriptors <= before.descriptors+slack {
			r.t.Logf("%s: %+v, before %+v", node, now, before)
			return
		}
		if time.Now().After(deadline) {
			r.t.Errorf("%s holds %+v, before the attack %+v", node, now, before)
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
}
