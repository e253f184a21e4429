package config

import (
	"strings"
	"testing"
)

// linked is the file with a link block of this content.
func linked(t *testing.T, content string) string {
	return changed(t, loopback(t), "volume \"pgdata\"", "link \"beta\" \"alpha\" {\n"+content+"\n}\nvolume \"pgdata\"")
}

func TestLinkIsReadWhicheverNodeComesFirst(t *testing.T) {
	c := running(t, linked(t, `
  rate    = "80Mbit"
  reserve = "30%"
  calendar {
    days = "mon-wed,fri"
    from = "08:00"
    to   = "18:30"
    rate = "20Mbit"
  }
  calendar {
    days = "sat-mon"
    from = "22:00"
    to   = "06:00"
    rate = "none"
  }
  calendar { rate = "10MiB" }`))
	l, ok := c.Link("alpha", "beta")
	if other, also := c.Link("beta", "alpha"); !ok || !also || other.String() != l.String() {
		t.Fatalf("%v %v, %v %v", l, ok, other, also)
	}
	if l.Rate != 10_000_000 || l.Reserve != 30 || len(l.Calendar) != 3 || l.Calendar[0].Rate != 2_500_000 || l.Calendar[1].Days != [7]bool{0: true, 5: true, 6: true} {
		t.Fatalf("%+v", l)
	}
	want := "rate 80Mbit/s, reserve 30%, mon tue wed fri 08:00-18:30 20Mbit/s, mon sat sun 22:00-06:00 none, daily 00:00-24:00 10MiB/s, compress auto"
	if l.String() != want {
		t.Fatalf("shown as %q, want %q", l, want)
	}
	if text := c.Document().Table(); !strings.Contains(text, "\nlink alpha beta: "+want+"\n") {
		t.Errorf("the table does not show it:\n%s", text)
	}
	if _, ok := c.Link("alpha", "gamma"); ok {
		t.Error("two nodes without a block have one")
	}
}

func TestLinkIsChangedOnline(t *testing.T) {
	none, slow, slower := loopback(t), linked(t, `rate = "80Mbit"`), linked(t, "rate = \"20Mbit\"\ncompress = \"off\"\ncalendar {\n from = \"08:00\"\n rate = \"1Mbit\"\n}")
	for _, c := range []struct{ from, to, want string }{
		{none, slow, "change online|link alpha beta|none -> rate 80Mbit/s, reserve 20%, compress auto: for what is sent from then on"},
		{slow, slower, "change online|link alpha beta|rate 80Mbit/s, reserve 20%, compress auto -> rate 20Mbit/s, reserve 20%, daily 08:00-24:00 1Mbit/s, compress off: for"},
		{slower, none, "change online|link alpha beta|rate 20Mbit/s, reserve 20%, daily 08:00-24:00 1Mbit/s, compress off -> none"},
	} {
		if steps := running(t, c.from).Plan(running(t, c.to)); !matches(steps, []string{c.want}) {
			t.Errorf("planned %+v, want %q", steps, c.want)
		}
	}
	if a, b := running(t, none).Hash(), running(t, slow).Hash(); a == b {
		t.Error("the hash does not see a link")
	}
}
