package identity

import (
	"crypto/x509"
	"net"
	"slices"
	"time"
)

// Reload reads the PKI folder again. What it finds counts for every handshake from now on; connections go on. When it
// is unusable, nothing changes and the error says why. Connections whose certificate hangs on an authority that was
// removed are closed after Config.Grace.
func (t *Transport) Reload() error {
	if t.cfg.Insecure {
		return nil
	}
	m, err := load(t.cfg, time.Now())
	if err != nil {
		return err
	}
	t.material.Store(m)
	t.mu.Lock()
	defer t.mu.Unlock()
	if stale := t.staleLocked(); len(stale) > 0 && !t.sweeping && !t.closed {
		t.sweeping = true
		t.cfg.Logger.Warn("connections with certificates of a removed authority will be closed", "connections", len(stale), "in", t.cfg.Grace)
		t.wg.Go(t.sweep)
	}
	return nil
}

// sweep waits, then closes what still hangs on a removed authority.
func (t *Transport) sweep() {
	wait := time.NewTimer(t.cfg.Grace)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-t.done:
	}
	t.mu.Lock()
	t.sweeping = false
	stale := t.staleLocked()
	t.mu.Unlock()
	for _, c := range stale {
		c.Close()
	}
	if len(stale) > 0 {
		t.cfg.Logger.Warn("closed connections with certificates of a removed authority", "connections", len(stale))
	}
}

func (t *Transport) staleLocked() (stale []net.Conn) {
	m := t.material.Load()
	for c, leaf := range t.open {
		if !m.trusts(leaf) {
			stale = append(stale, c)
		}
	}
	return stale
}

// track remembers by which certificate a connection was made, until forget. One that was made with an authority which
// a reload removed meanwhile is found by the next sweep.
func (t *Transport) track(c net.Conn, leaf *x509.Certificate) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[c] = leaf
}

func (t *Transport) forget(c net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
}

// Close ends the Transport's own work. Connections and ports belong to those who have them.
func (t *Transport) Close() {
	t.mu.Lock()
	if !t.closed {
		t.closed = true
		close(t.done)
	}
	t.mu.Unlock()
	t.wg.Wait()
}

// GossipKeys are the keys of gossip.key, the one that seals first; none without TLS.
func (t *Transport) GossipKeys() [][]byte {
	if t.cfg.Insecure {
		return nil
	}
	return slices.Clone(t.material.Load().gossip)
}

// Expiry is until when a certificate is valid.
type Expiry struct {
	File     string // as "node-alpha.crt" or "ca.crt"
	Subject  string
	NotAfter time.Time
}

// Expiries are those of the node's own certificate and of the authorities that it trusts; none without TLS.
func (t *Transport) Expiries() (all []Expiry) {
	if t.cfg.Insecure {
		return nil
	}
	m := t.material.Load()
	all = append(all, Expiry{string(m.self.Kind) + "-" + m.self.Name + ".crt", m.self.String(), m.cert.Leaf.NotAfter})
	for _, c := range m.cas {
		all = append(all, Expiry{"ca.crt", c.Subject.CommonName, c.NotAfter})
	}
	return all
}

// Expiry is when the first of Expiries ends; zero without TLS.
func (t *Transport) Expiry() (first time.Time) {
	for _, e := range t.Expiries() {
		if first.IsZero() || e.NotAfter.Before(first) {
			first = e.NotAfter
		}
	}
	return first
}

// Warnings are at which distances before the end of a certificate somebody is told.
var Warnings = []time.Duration{30 * 24 * time.Hour, 7 * 24 * time.Hour, 24 * time.Hour}

// Warning is the shortest of Warnings that is reached; ok: one is. What has ended already has reached all.
func (e Expiry) Warning(now time.Time) (w time.Duration, ok bool) {
	for _, d := range Warnings {
		if e.NotAfter.Sub(now) <= d {
			w, ok = d, true
		}
	}
	return w, ok
}
