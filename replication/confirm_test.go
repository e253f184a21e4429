package replication

import (
	"errors"
	"testing"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
	"hacluster/replication/wire"
)

// R2, R25: a new process of a member answers no stream before the set names it, so that the set always says who
// acknowledges.
func TestNewProcessOfAMemberAnswersNobodyBeforeTheSetNamesIt(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	a.serving()
	a.connected("b")
	asked := make(chan struct{}, 1)
	l.decide(func(c cluster.Command) error {
		if c.Rejoin != nil {
			select {
			case asked <- struct{}{}:
			default:
			}
		}
		return errors.New("nobody decides at the moment")
	})
	b.crash()
	b.start()
	<-asked
	greet := func() wire.Refusal {
		s, reply, err := a.dial(t.Context(), b, wire.Hello{Cluster: wire.ID{15: 1}, Volume: wire.ID{15: 7}, VolumeName: "v", Size: volumeSize,
			BlockSize: blockdev.BlockSize, Epoch: uint64(l.volume().Epoch), Primary: "a", Process: 1, Stream: 1000, Target: "b"})
		if s != nil {
			s.Close()
		}
		var no *link.RefusedError
		if err != nil && !errors.As(err, &no) {
			t.Fatal(err)
		}
		return reply.Code
	}
	if got := greet(); got != wire.RefusedNotReady {
		t.Errorf("answered %v before its process is confirmed", got)
	}
	l.decide(nil)
	l.await("the process to be confirmed", func() bool {
		b.get().LeaseChanged() // it looks anew, as it would after a while by itself
		return l.volume().Members["b"].Process == b.process
	})
	a.connected("b")
}
