package e2e

import "testing"

// R3, R25: no acknowledged write is lost by a primary that is killed, nor by a standby that is killed with writes in memory.
func TestSemisyncMirrorsAndFailsOver(t *testing.T) {
	r := healthy(t, Config{Mode: "semisync"})
	if v := r.vol(); v.Mode != "semisync" {
		t.Fatalf("the volume's mode is %q", v.Mode)
	}
	l := r.load()
	l.more(300)
	victim := r.vol().Primary
	r.Kill(victim)
	r.until("the other took over", PrimaryIs(other(victim)))
	l.more(300)
	r.start(victim)
	r.until("the killed node is resynced", Healthy)
	l.more(300)
	r.Kill(victim) // a standby by now
	r.start(victim)
	l.more(300) // what waits for it goes on when it has been dropped
	r.until("the killed standby is resynced", Healthy)
	l.more(300)
	r.Kill(other(victim))
	r.until("it takes over", PrimaryIs(victim))
	l.more(300)
	r.start(other(victim))
	r.until("all is well again", Healthy)
	l.stop()
	r.same()
}
