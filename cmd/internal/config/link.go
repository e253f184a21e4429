package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Link is what holds for the block data that two nodes send to each other, of all volumes together, in either direction. What
// the file does not set has no limit.
type Link struct {
	Nodes    [2]string // in alphabetical order
	Rate     int64     // bytes a second; 0: no limit
	Reserve  int       // hundredths of the rate that a resync never takes
	Calendar []Window  `json:",omitempty"`
	Compress Compress

	at pos
}

// Compress is whether what is sent is compressed.
type Compress string

// The choices: auto compresses as long as that takes less time than it saves.
const (
	CompressAuto Compress = "auto"
	CompressOn   Compress = "on"
	CompressOff  Compress = "off"
)

// Window is a part of the week, in UTC, in which another rate holds; of several the first.
type Window struct {
	Days     [7]bool // on which it begins, from Monday on
	From, To int     // minutes of the day; a To that is not behind From is one of the next day
	Rate     int64   // bytes a second; 0: no limit
}

const (
	defaultReserve = "20%"
	// minRate: with less, one request of a client would take minutes, and the question whether somebody is alive too long.
	minRate     = 1e6 / 8
	wantRate    = `a rate is wanted, such as "80Mbit" (kbit, Mbit, Gbit a second) or "10MiB" (bytes a second), or "none"`
	wantClock   = `a time of the day in UTC is wanted, such as "08:00", up to "24:00"`
	wantDays    = `days are wanted, such as "mon-fri" or "sat,sun" (mon, tue, wed, thu, fri, sat, sun)`
	wantPercent = `a percentage from "0%" to "90%" is wanted`
)

var days = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

// Link is what is set for two nodes; ok is false when nothing is.
func (c *Config) Link(a, b string) (l Link, ok bool) {
	pair := pairOf(a, b)
	i := slices.IndexFunc(c.Links, func(l Link) bool { return l.Nodes == pair })
	if i < 0 {
		return l, false
	}
	return c.Links[i], true
}

func pairOf(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

func (r *reader) links(root *body, nodes []Node) []Link {
	var out []Link
	first := map[[2]string]int{}
	for _, b := range root.pairs("link") {
		l := r.link(b, nodes)
		if line, twice := first[l.Nodes]; twice {
			r.add(b.at, "duplicate link", fmt.Sprintf("one for each two nodes is wanted, in whatever order; theirs stands in line %d", line))
			continue
		}
		first[l.Nodes] = b.at.line
		out = append(out, l)
	}
	return out
}

func (r *reader) link(b *body, nodes []Node) Link {
	defer b.finish()
	l := Link{Nodes: pairOf(b.label, b.second), at: b.at}
	for _, name := range l.Nodes {
		if n, ok := findNode(nodes, name); !ok {
			r.add(b.at, "unknown node", "two of these are wanted: "+known(nodeNames(nodes)))
		} else if n.Role == RoleWitness {
			r.add(b.at, "link to a witness", name+" holds no data and is sent none: two nodes with replicas are wanted")
		}
	}
	if l.Nodes[0] == l.Nodes[1] {
		r.add(b.at, "link of a node to itself", "two nodes are wanted")
	}
	l.Rate = b.rate("rate")
	l.Reserve = b.percent("reserve", defaultReserve)
	compress, _ := b.choice("compress", string(CompressAuto), string(CompressOn), string(CompressOff))
	l.Compress = Compress(compress)
	for _, w := range b.blocks(false, "calendar") {
		l.Calendar = append(l.Calendar, r.window(w))
	}
	return l
}

func (r *reader) window(b *body) (w Window) {
	defer b.finish()
	if v := b.str("days", "mon-fri"); v.set {
		var ok bool
		if w.Days, ok = parseDays(v.s); !ok {
			r.addValue(v, "not days of the week", wantDays)
		}
	} else {
		w.Days = [7]bool{true, true, true, true, true, true, true}
	}
	w.From, w.To = b.clock("from", "00:00"), b.clock("to", "24:00")
	if w.Rate = b.rate("rate"); b.hcl.Attributes["rate"] == nil {
		b.r.add(b.at, "missing key rate", `it needs one such as rate = "20Mbit", or "none"`)
	}
	return w
}

// rate reads a rate in bytes a second; 0 where there is none.
func (b *body) rate(key string) int64 {
	v := b.str(key, "80Mbit")
	if !v.set || v.s == "none" {
		return 0
	}
	rate, ok := parseRate(v.s)
	switch {
	case !ok:
		b.r.addValue(v, "not a rate", wantRate)
	case rate < minRate:
		b.r.addValue(v, "too slow", fmt.Sprintf("%s or more is wanted: with less, a standby that is sent a large write would pass for one that is lost", rateText(minRate)))
	}
	return rate
}

var bitUnits = map[string]int64{"kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9}

func parseRate(s string) (bytesPerSec int64, ok bool) {
	for unit, factor := range bitUnits {
		if digits, cut := strings.CutSuffix(s, unit); cut {
			n, err := strconv.ParseUint(digits, 10, 31)
			return int64(n) * factor / 8, err == nil && n > 0
		}
	}
	return ParseSize(s)
}

// rateText is a rate as the file has it.
func rateText(bytesPerSec int64) string {
	switch bits := bytesPerSec * 8; {
	case bytesPerSec == 0:
		return "none"
	case bytesPerSec%1024 == 0, bits%1e3 != 0:
		return bytesText(bytesPerSec) + "/s"
	case bits%1e9 == 0:
		return fmt.Sprintf("%dGbit/s", bits/1e9)
	case bits%1e6 == 0:
		return fmt.Sprintf("%dMbit/s", bits/1e6)
	default:
		return fmt.Sprintf("%dkbit/s", bits/1e3)
	}
}

func (b *body) percent(key, otherwise string) int {
	text := otherwise
	v := b.str(key, otherwise)
	if v.set {
		text = v.s
	}
	digits, cut := strings.CutSuffix(text, "%")
	n, err := strconv.ParseUint(digits, 10, 8)
	if !cut || err != nil || n > 90 {
		b.r.addValue(v, "not a share", wantPercent)
		return 0
	}
	return int(n)
}

// clock reads a time of the day, in minutes.
func (b *body) clock(key, otherwise string) int {
	text := otherwise
	v := b.str(key, otherwise)
	if v.set {
		text = v.s
	}
	hour, minute, cut := strings.Cut(text, ":")
	h, errH := strconv.ParseUint(hour, 10, 8)
	m, errM := strconv.ParseUint(minute, 10, 8)
	if !cut || len(hour) != 2 || len(minute) != 2 || errH != nil || errM != nil || m > 59 || 60*h+m > 24*60 {
		b.r.addValue(v, "not a time of the day", wantClock)
		return 0
	}
	return int(60*h + m)
}

func parseDays(s string) (on [7]bool, ok bool) {
	for part := range strings.SplitSeq(s, ",") {
		from, to, through := strings.Cut(strings.TrimSpace(part), "-")
		if !through {
			to = from
		}
		a, b := slices.Index(days, from), slices.Index(days, to)
		if a < 0 || b < 0 {
			return on, false
		}
		for d := a; ; d = (d + 1) % 7 {
			on[d] = true
			if d == b {
				break
			}
		}
	}
	return on, true
}

// String is a link as plans and tables show it.
func (l Link) String() string { return l.document().String() }

// String shows a link to people.
func (d DocumentLink) String() string {
	text := "rate " + rateText(d.RateBytesPerS)
	if d.RateBytesPerS != 0 || len(d.Calendar) > 0 {
		text += fmt.Sprintf(", reserve %d%%", d.ReservePercent)
	}
	for _, w := range d.Calendar {
		on := strings.Join(w.Days, " ")
		if len(w.Days) == len(days) {
			on = "daily"
		}
		text += fmt.Sprintf(", %s %s-%s %s", on, w.From, w.To, rateText(w.RateBytesPerS))
	}
	return text + ", compress " + d.Compress
}

func (w Window) days() (on []string) {
	for i, yes := range w.Days {
		if yes {
			on = append(on, days[i])
		}
	}
	return on
}

func clockText(minutes int) string { return fmt.Sprintf("%02d:%02d", minutes/60, minutes%60) }

// links adds what changes between two nodes.
func (p *plan) links(old, next *Config) {
	const when = "for what is sent from then on, also by streams that are up"
	for _, l := range next.Links {
		what := "link " + l.Nodes[0] + " " + l.Nodes[1]
		was, ok := old.Link(l.Nodes[0], l.Nodes[1])
		if !ok {
			p.add(StepChange, l.at, what, "none -> %s: %s", l, when)
			continue
		}
		differs(p, StepChange, l.at, what, was.String(), l.String(), when)
	}
	for _, was := range old.Links {
		if _, ok := next.Link(was.Nodes[0], was.Nodes[1]); !ok {
			p.add(StepChange, next.Cluster.at, "link "+was.Nodes[0]+" "+was.Nodes[1], "%s -> none: %s", was, when)
		}
	}
}

func (l Link) document() DocumentLink {
	d := DocumentLink{Nodes: l.Nodes[:], RateBytesPerS: l.Rate, ReservePercent: l.Reserve, Compress: string(l.Compress), Calendar: []DocumentWindow{}}
	for _, w := range l.Calendar {
		d.Calendar = append(d.Calendar, DocumentWindow{Days: w.days(), From: clockText(w.From), To: clockText(w.To), RateBytesPerS: w.Rate})
	}
	return d
}
