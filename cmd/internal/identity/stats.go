package identity

// Stats is what a port holds and has refused.
type Stats struct {
	// Handshakes are connections that owe their first word, Established those that have said it, with their limits.
	Handshakes, MaxHandshakes   int
	Established, MaxEstablished int
	// Refusals counts what was closed or went wrong, by the text that the log has for it: constants of this package.
	// Connections that end before their first word are not counted: health checks do that all the time.
	Refusals map[string]uint64
}

// Stats reads the present figures.
func (m *Mux) Stats() Stats {
	s := Stats{Established: int(m.established.Load()), MaxHandshakes: m.cfg.MaxHandshakes, MaxEstablished: m.cfg.MaxConns, Refusals: m.log.totals()}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Handshakes = m.owing.Len()
	return s
}

func (l *limitedLog) totals() map[string]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]uint64, len(l.lines))
	for reason, line := range l.lines {
		out[reason] = line.total
	}
	return out
}
