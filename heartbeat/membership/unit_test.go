package membership

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hacluster/heartbeat"
)

var update = flag.Bool("update", false, "write testdata anew")

func testCodec(t testing.TB, cluster string, keys ...[]byte) *codec {
	t.Helper()
	c, err := newCodec(cluster, keys)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var testProbe = probe{from: idOf("alpha"), to: idOf("beta"), instance: 0x0102030405060708, seq: 9, link: 1}

func TestFramesOnTheWireStayAsTheyAre(t *testing.T) {
	c := testCodec(t, "shop")
	got := ""
	for _, f := range [][]byte{
		c.encodeGossip(7, []byte("payload")), c.encodeProbe(framePing, testProbe),
		c.encodeProbe(frameEcho, testProbe.echo()), c.encodeProbe(frameStream, testProbe),
	} {
		got += hex.EncodeToString(f) + "\n"
	}
	path := filepath.Join("testdata", "frames.hex")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("frames changed; a new format needs a new version:\n%s\nwant\n%s", got, want)
	}
}

func TestProbesSurviveTheWire(t *testing.T) {
	k1, k2 := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 16)
	for name, c := range map[string][2]*codec{
		"plain":        {testCodec(t, "shop"), testCodec(t, "shop")},
		"sealed":       {testCodec(t, "shop", k1), testCodec(t, "shop", k1)},
		"second key":   {testCodec(t, "shop", k2), testCodec(t, "shop", k1, k2)},
		"key rotation": {testCodec(t, "shop", k1, k2), testCodec(t, "shop", k2, k1)},
	} {
		f := c[0].encodeProbe(framePing, testProbe)
		if len(f) != c[1].probeLen() {
			t.Errorf("%s: %d bytes, probeLen says %d", name, len(f), c[1].probeLen())
		}
		kind, err := c[1].check(f)
		if err != nil || kind != framePing {
			t.Fatalf("%s: kind %d, err %v", name, kind, err)
		}
		if got, err := c[1].decodeProbe(f); err != nil || got != testProbe {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestWrongFramesAreRefusedWithTheirReason(t *testing.T) {
	k1, k2 := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	plain, sealed := testCodec(t, "shop"), testCodec(t, "shop", k1)
	ping := plain.encodeProbe(framePing, testProbe)
	change := func(at int, b byte) []byte {
		f := bytes.Clone(ping)
		f[at] = b
		return finish(f)
	}
	flip := func(f []byte, at int) []byte {
		f = bytes.Clone(f)
		f[at] ^= 1
		return f
	}
	// A forger knows everything but the key, the checksum too.
	forged := sealed.encodeProbe(framePing, testProbe)
	forged[3] = byte(frameEcho)
	cases := map[string]struct {
		c    *codec
		f    []byte
		want error
	}{
		"nothing":               {plain, nil, errGarbage},
		"a byte":                {plain, []byte("H"), errGarbage},
		"text":                  {plain, []byte("GET / HTTP/1.1\r\n\r\n"), errGarbage},
		"cut":                   {plain, ping[:len(ping)-1], errGarbage},
		"cut, checksum right":   {plain, finish(bytes.Clone(ping[:len(ping)-1])), errGarbage},
		"longer":                {plain, finish(append(bytes.Clone(ping), 0)), errGarbage},
		"reserved bytes set":    {plain, change(50, 1), errGarbage},
		"damaged":               {plain, flip(ping, 30), errGarbage},
		"newer version":         {plain, change(2, 2), errVersion},
		"no such kind":          {plain, change(3, 9), errGarbage},
		"kind zero":             {plain, change(3, 0), errGarbage},
		"gossip without words":  {plain, plain.encodeGossip(1, nil), errGarbage},
		"another cluster":       {plain, testCodec(t, "other").encodeProbe(framePing, testProbe), errCluster},
		"plain to keyed":        {sealed, ping, errSeal},
		"sealed to plain":       {plain, sealed.encodeProbe(framePing, testProbe), errGarbage},
		"other key":             {sealed, testCodec(t, "shop", k2).encodeProbe(framePing, testProbe), errSeal},
		"ping forged to echo":   {sealed, finish(forged), errSeal},
		"sealed, damaged":       {sealed, finish(flip(sealed.encodeProbe(framePing, testProbe), 40)), errSeal},
		"sealed, nothing in it": {sealed, finish(sealed.header(framePing)), errSeal},
	}
	for name, tc := range cases {
		_, err := tc.c.check(tc.f)
		if err == nil {
			_, err = tc.c.decodeProbe(tc.f)
		}
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: err = %v, want %v", name, err, tc.want)
		}
	}
}

func FuzzFrame(f *testing.F) {
	plain, sealed := testCodec(f, "shop"), testCodec(f, "shop", bytes.Repeat([]byte{1}, 32))
	f.Add(plain.encodeGossip(1, []byte("x")))
	f.Add(plain.encodeProbe(framePing, testProbe))
	f.Add(sealed.encodeProbe(frameEcho, testProbe))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range []*codec{plain, sealed} {
			// Also with the checksum and the cluster right, or nothing would get past them.
			for _, b := range [][]byte{b, repaired(c, b)} {
				kind, err := c.check(b)
				if err != nil {
					continue
				}
				if kind == frameGossip {
					gossipOf(b)
				} else if p, err := c.decodeProbe(b); err == nil && c == plain {
					if again := c.encodeProbe(kind, p); !bytes.Equal(again, b) {
						t.Errorf("%x decodes to %+v, which encodes to %x", b, p, again)
					}
				}
			}
		}
	})
}

func repaired(c *codec, b []byte) []byte {
	if len(b) < headerLen {
		return b
	}
	b = bytes.Clone(b)
	b[0], b[1], b[2] = 'H', 'B', frameVersion
	copy(b[8:], c.cluster[:])
	return finish(b)
}

func TestOnlyTheFirstEchoOfAPingOfOursCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(Node{Name: "beta", Links: []string{"10.0.0.2:1", "10.0.1.2:1"}}, 2)
		p := newProber(42)
		ping := func() uint64 { return p.next(r, 1) }
		answer := func(seq uint64) (time.Duration, bool) {
			return p.answered(echo{from: r, link: 1, instance: 42, seq: seq, at: time.Now()})
		}
		seq := ping()
		time.Sleep(3 * time.Millisecond)
		for name, e := range map[string]echo{
			"of a process before this one": {from: r, link: 1, instance: 41, seq: seq},
			"over a link never pinged":     {from: r, link: 0, instance: 42, seq: seq},
			"over a link that is not":      {from: r, link: 7, instance: 42, seq: seq},
			"to a ping not sent yet":       {from: r, link: 1, instance: 42, seq: seq + 1},
			"to a ping of long ago":        {from: r, link: 1, instance: 42, seq: seq - window},
		} {
			e.at = time.Now()
			if _, ok := p.answered(e); ok {
				t.Errorf("echo %s was accepted", name)
			}
		}
		if rtt, ok := answer(seq); !ok || rtt != 3*time.Millisecond {
			t.Errorf("true echo: %v, %v", rtt, ok)
		}
		if _, ok := answer(seq); ok {
			t.Error("the copy of an echo was accepted")
		}
		late := ping()
		for range window - 1 {
			ping()
		}
		if _, ok := answer(late); !ok {
			t.Error("an echo within the window was refused")
		}
		forgotten := ping()
		for range window {
			ping()
		}
		if _, ok := answer(forgotten); ok {
			t.Error("an echo beyond the window was accepted")
		}
	})
}

func TestAnswersToTheGossipReachTheDetector(t *testing.T) {
	m, err := New(Config{Cluster: "shop", Node: "alpha", Nodes: memoryNodes()})
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	m.gossipConfig().Ping.NotifyPingComplete(gossipNode("beta"), time.Millisecond, nil)
	m.gossipConfig().Ping.NotifyPingComplete(gossipNode("stranger"), time.Millisecond, nil)
	facts := m.facts(newProber(1))
	if len(facts) != 1 {
		t.Fatalf("facts %+v", facts)
	}
	if a, ok := facts[0].(heartbeat.Answer); !ok || a.Peer != "beta" || a.At.Before(before) || a.At.After(time.Now()) {
		t.Errorf("fact %+v", facts[0])
	}
	if facts := m.facts(newProber(1)); len(facts) != 0 {
		t.Errorf("told twice: %+v", facts)
	}
}

func TestCopiesAreKnownAndOldOnesForgotten(t *testing.T) {
	c := newCopies()
	packet := func(i int) []byte { return []byte{byte(i), byte(i >> 8), byte(i >> 16)} }
	for i := range 3 * rememberedPackets {
		if c.before(packet(i)) {
			t.Fatalf("packet %d is new", i)
		}
		if !c.before(packet(i)) {
			t.Fatalf("packet %d is a copy", i)
		}
	}
	if len(c.set) > rememberedPackets {
		t.Errorf("%d packets remembered, limit %d", len(c.set), rememberedPackets)
	}
	if !c.before(packet(2*rememberedPackets)) || c.before(packet(0)) {
		t.Error("the last packets must be known, the first forgotten")
	}
}

func TestConfigurationErrorsAreAllNamed(t *testing.T) {
	good := Config{Cluster: "shop", Node: "a", Nodes: []Node{{Name: "a", Links: []string{"127.0.0.1:1"}}, {Name: "b", Links: []string{"b.example:1"}}}}
	if _, err := New(good); err != nil {
		t.Fatalf("a good configuration was refused: %v", err)
	}
	bad := Config{
		Cluster: "", Node: "c", Base: time.Microsecond, Keys: [][]byte{{1}},
		Nodes: []Node{
			{Name: "a/b", Links: []string{"127.0.0.1"}}, {Name: "d"}, {Name: "d", Links: []string{":1"}},
			{Name: "e", Links: []string{"127.0.0.1:5", "127.0.0.1:5"}}, {Name: "f", Links: []string{"127.0.0.1:5", "127.0.0.1:0"}},
		},
	}
	_, err := New(bad)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"cluster name", `node name "a/b"`, `link "127.0.0.1"`, `node "d" has 0`, `"d" is listed twice`, `link ":1"`,
		`link "127.0.0.1:0"`, `node "e": link "127.0.0.1:5" is also a link of node "e"`,
		`node "f": link "127.0.0.1:5" is also`, `this node, "c"`, "base interval", "gossip key 1",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not mention %q:\n%v", want, err)
		}
	}
}

func TestStreamsTryTheBestLinkFirst(t *testing.T) {
	r := newRemote(Node{Links: []string{"0", "1", "2", "3"}}, 4)
	r.note(heartbeat.Peer{Links: []heartbeat.Link{
		{State: heartbeat.Down, RTT: time.Microsecond},
		{State: heartbeat.Up, RTT: 5 * time.Millisecond},
		{State: heartbeat.Up, RTT: 300 * time.Microsecond},
		{State: heartbeat.Up, RTT: 100 * time.Microsecond},
	}})
	got := ""
	for _, l := range r.byPromise() {
		got += l.address
	}
	if got != "2310" {
		t.Errorf("order %s, want 2310", got)
	}
}

func TestLinksWithoutACableOfOurOwnLeaveFromTheFirst(t *testing.T) {
	r := newRemote(Node{Links: []string{"10.0.0.1:1", "10.0.1.1:1", "name.example:1"}}, 2)
	if r.links[0].port != 0 || r.links[1].port != 1 || r.links[2].port != 0 {
		t.Errorf("ports %d %d %d, want 0 1 0", r.links[0].port, r.links[1].port, r.links[2].port)
	}
	if r.links[2].addr.Load() != nil {
		t.Error("a name has an address before it was resolved")
	}
}

func TestChangesMergeAndVanish(t *testing.T) {
	var told []string
	n := newNotifier(func(c heartbeat.Change) {
		told = append(told, c.After.Name+" "+c.Before.State.String()+">"+c.After.State.String())
	})
	add := func(name string, from, to heartbeat.State) {
		n.add(heartbeat.Change{Before: heartbeat.Peer{Name: name, State: from}, After: heartbeat.Peer{Name: name, State: to}})
	}
	add("a", heartbeat.Alive, heartbeat.Suspect)
	add("b", heartbeat.Alive, heartbeat.Suspect)
	add("a", heartbeat.Suspect, heartbeat.Dead)
	add("b", heartbeat.Suspect, heartbeat.Alive)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n.run(ctx)
	if got := strings.Join(told, ", "); got != "a alive>dead" {
		t.Errorf("told %q", got)
	}
}

func TestGossipCannotFloodTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out logBuffer
		l := newGossipLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
		for range 100 {
			l.Printf("[ERR] memberlist: nasty \x1b[31m\n text")
			l.Printf("[DEBUG] memberlist: chatter")
			l.Printf("no level at all")
		}
		if got := strings.Count(out.String(), "\n"); got != maxGossipLines {
			t.Errorf("%d lines, want %d:\n%s", got, maxGossipLines, out.String())
		}
		if strings.Contains(out.String(), "\x1b") {
			t.Error("the log is not escaped")
		}
		time.Sleep(logInterval)
		l.Printf("[ERR] memberlist: later")
		if !strings.Contains(out.String(), "said=later suppressed=97") {
			t.Errorf("suppressed lines are not counted:\n%s", out.String())
		}
	})
}

func TestVirtualAddressesDiffer(t *testing.T) {
	seen := map[netip.Addr]string{}
	for _, name := range []string{"alpha", "beta", "gamma", "Alpha", "a"} {
		a := virtualAddress(idOf(name))
		if other, taken := seen[a]; taken || !a.IsPrivate() {
			t.Errorf("%s: %v (also of %q)", name, a, other)
		}
		seen[a] = name
	}
}

func TestProbesAndTheirAnswersAreCountedPerLink(t *testing.T) {
	r := newRemote(Node{Name: "b", Links: []string{"192.0.2.1:1", "192.0.2.2:1"}}, 2)
	m := &Membership{remotes: []*remote{r}}
	p := newProber(7)
	first, second := p.next(r, 0), p.next(r, 0)
	p.next(r, 1)
	for _, seq := range []uint64{first, first, second + 5} { // answered, answered twice, never asked
		p.answered(echo{from: r, link: 0, instance: 7, seq: seq, at: time.Now()})
	}
	want := []LinkCounts{{"b", "192.0.2.1:1", 2, 1}, {"b", "192.0.2.2:1", 1, 0}}
	if got := m.LinkCounts(); !slices.Equal(got, want) {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}
