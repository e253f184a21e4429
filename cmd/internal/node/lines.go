package node

import (
	"context"
	"time"

	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/cmd/internal/metrics"
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
		n.setLines(cfg)
		select {
		case <-ctx.Done():
			return nil
		case <-configured:
		case <-tick.C:
		}
	}
}

// setLines puts the settings of cfg in force. One that does not change changes nothing.
func (n *Node) setLines(cfg *config.Config) {
	at := minuteOfWeek(wallClock())
	for name, line := range n.peers.lines {
		l, _ := cfg.Link(n.me.Name, name)
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
