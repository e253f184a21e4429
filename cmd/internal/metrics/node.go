package metrics

import "runtime"

var (
	buildInfo     = gauge("build_info", "1; the labels tell which program runs.", "version", "go_version")
	ready         = gauge("node_ready", "1 once this node has joined and caught up.")
	lease         = gauge("node_lease_remaining_seconds", "What is left of this node's lease; 0 without one.")
	configVersion = gauge("config_version", "Version of the applied configuration that this node runs with.")

	serviceState = gauge("service_state", "1 for the state that a service has on this node: stopped, starting, running, stopping, failed or blocked.", "service", "state")

	linkUp    = gauge("link_up", "1 while the heartbeat link carries packets there and back.", "peer", "link")
	linkRTT   = gauge("link_round_trip_seconds", "Smoothed round-trip time of the heartbeat link.", "peer", "link")
	linkSent  = counter("link_probes_total", "Probes sent over the heartbeat link.", "peer", "link")
	linkLost  = counter("link_probes_unanswered_total", "Probes of the heartbeat link without an answer; the last ones may still be on their way.", "peer", "link")
	gossipBad = counter("gossip_packets_dropped_total", "Packets of the heartbeat links that were not taken, by reason.", "reason")
	gossipDup = counter("gossip_packet_copies_total", "Gossip packets that had come over another link already.")

	lineRate   = gauge("line_rate_limit_bytes_per_second", "What block data for this peer may take in all; 0: no limit.", "peer")
	linePlain  = counter("line_plain_bytes_total", "Bytes of messages with block data for this peer, of all volumes, before some were compressed.", "peer")
	lineSent   = counter("line_sent_bytes_total", "The same as they were sent, before TLS.", "peer")
	lineWaited = counter("line_waited_seconds_total", "How long messages waited for their turn under the limit, all together.", "peer")

	nbdConns   = gauge("nbd_connections", "Connections of NBD clients.")
	nbdBytes   = gauge("nbd_in_flight_bytes", "Data of the requests that NBD clients have under way.")
	nbdRefused = counter("nbd_refusals_total", "Connections of NBD clients that were closed, by reason.", "reason")
	handshakes = counter("handshake_refusals_total", "Connections to the node's port that were refused, by reason.", "reason")

	queueLength = gauge("queue_length", "How full what is bounded is; empty volume: the node's own.", "queue", "volume")
	queueLimit  = gauge("queue_limit", "The bound of the same queue.", "queue", "volume")
	certificate = gauge("certificate_expiry_timestamp_seconds", "When a certificate of this node ends, Unix time.", "certificate")
)

func (e emitter) node(s *Snapshot) {
	e.set(buildInfo, 1, s.Version, runtime.Version())
	e.flag(ready, s.Ready)
	e.seconds(lease, s.Lease)
	e.set(configVersion, float64(s.ConfigVersion))
	for _, v := range s.Services {
		e.set(serviceState, 1, v.Name, v.State)
	}
	for _, l := range s.Links {
		e.flag(linkUp, l.Up, l.Peer, l.Address)
		e.seconds(linkRTT, l.RTT, l.Peer, l.Address)
		e.set(linkSent, float64(l.ProbesSent), l.Peer, l.Address)
		e.set(linkLost, float64(l.ProbesLost), l.Peer, l.Address)
	}
	for _, l := range s.Lines {
		e.set(lineRate, float64(l.Rate), l.Peer)
		e.set(linePlain, float64(l.Plain), l.Peer)
		e.set(lineSent, float64(l.Sent), l.Peer)
		e.seconds(lineWaited, l.Waited, l.Peer)
	}
	e.set(gossipDup, float64(s.Gossip.Copies))
	e.set(gossipBad, float64(s.Gossip.Unsent), "unsent")
	e.set(gossipBad, float64(s.Gossip.Dropped), "queue full")
	e.set(gossipBad, float64(s.Gossip.Garbage), "garbage")
	e.set(gossipBad, float64(s.Gossip.Foreign), "foreign")
	e.set(nbdConns, float64(s.NBD.Connections))
	e.set(nbdBytes, float64(s.NBD.BytesInFlight))
	e.set(nbdRefused, float64(s.NBD.Refused), "too many connections")
	e.set(nbdRefused, float64(s.NBD.Slow), "slow reader")
	for reason, n := range s.HandshakeRefusals {
		e.set(handshakes, float64(n), reason)
	}
	for _, q := range s.Queues {
		e.set(queueLength, q.Length, q.Name, q.Volume)
		e.set(queueLimit, q.Limit, q.Name, q.Volume)
	}
	for _, c := range s.Certificates {
		e.set(certificate, float64(c.NotAfter.Unix()), c.Name)
	}
}
