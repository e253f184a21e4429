package node

import (
	"context"
	"time"

	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/cmd/internal/metrics"
	"hacluster/replication/link"
	"hacluster/replication/shape"
)

// lineLook is how often the calendars of lines are looked at, and so by how much at most another rate holds later than they say.
const lineLook = 5 * time.Second

// followLines keeps the lines to other nodes as the configuration, and its calendar, has them at the moment.
func (n *Node) followLines(ctx context.Context) error {
	tick := time.NewTicker(lineLook)
	defer tick.Stop()
	for {
		_, cfg, configured := n.run.watch()
		n.peers.setLines(n.me.Name, cfg, minuteOfWeek(wallClock()))
		select {
		case <-ctx.Done():
			return nil
		case <-configured:
		case <-tick.C:
		}
	}
}

// lineBeyond is the line on which by sends on what this node has it carry to name.
func (p *peers) lineBeyond(by, name string) *link.Line {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.beyond[[2]string{by, name}]
	if l == nil {
		l = link.NewLine()
		set, _ := p.conf().Link(by, name)
		l.Set(settingsOf(set), minuteOfWeek(wallClock()))
		p.beyond[[2]string{by, name}] = l
	}
	return l
}

// setLines puts the settings of cfg in force. One that does not change changes nothing.
func (p *peers) setLines(me string, cfg *config.Config, at shape.Minute) {
	for name, line := range p.lines {
		l, _ := cfg.Link(me, name)
		line.Set(settingsOf(l), at)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for pair, line := range p.beyond {
		l, _ := cfg.Link(pair[0], pair[1])
		line.Set(settingsOf(l), at)
	}
}

// settingsOf is what is configured for two nodes, as their line takes it.
func settingsOf(l config.Link) shape.Settings {
	s := shape.Settings{Rate: l.Rate, Reserve: l.Reserve, Compress: compressOf(l.Compress)}
	for _, w := range l.Calendar {
		out := shape.Window{From: shape.Minute(w.From), To: shape.Minute(w.To), Rate: w.Rate}
		for day, on := range w.Days {
			if on {
				out.Days |= 1 << day
			}
		}
		s.Calendar = append(s.Calendar, out)
	}
	return s
}

// compressOf: nothing set is off.
func compressOf(c config.Compress) shape.Compress {
	switch c {
	case config.CompressAuto:
		return shape.Auto
	case config.CompressOn:
		return shape.On
	}
	return shape.Off
}

func minuteOfWeek(t time.Time) shape.Minute {
	t = t.UTC()
	day := (int(t.Weekday()) + 6) % 7 // from Monday on
	return shape.Minute(day)*shape.Day + shape.Minute(60*t.Hour()+t.Minute())
}

// lineTo is what is told of the line to another node; nil: nothing is set for it.
func (n *Node) lineTo(node string) *control.Line {
	if _, ok := n.conf().Link(n.me.Name, node); !ok {
		return nil
	}
	f := n.peers.lines[node].Figures()
	return &control.Line{RateBytesPerSec: f.Rate, PlainBytes: f.Plain, SentBytes: f.Sent, WaitedMs: f.Waited.Milliseconds()}
}

// lineFigures are those of the lines to the nodes that hold data.
func (n *Node) lineFigures(s *metrics.Snapshot) {
	for _, node := range n.cfg.Nodes {
		if node.Name == n.me.Name || node.Role == config.RoleWitness {
			continue
		}
		f := n.peers.lines[node.Name].Figures()
		s.Lines = append(s.Lines, metrics.Line{Peer: node.Name, Rate: f.Rate, Plain: f.Plain, Sent: f.Sent, Waited: f.Waited})
	}
}
