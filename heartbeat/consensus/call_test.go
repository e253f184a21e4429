package consensus

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// answered is a future of raft with its answer in.
type answered struct {
	index uint64
	err   error
}

func (a answered) Error() error  { return a.err }
func (a answered) Index() uint64 { return a.index }

// What raft answers before and after it appended, by its source (v1.8.0). The same error can mean either.
func TestOutcomeIsUnknownOnceAppended(t *testing.T) {
	disk := errors.New("disk full")
	for name, c := range map[string]struct {
		future answered
		want   error
		not    error
	}{
		"committed":                     {answered{7, nil}, nil, nil},
		"leadership lost":               {answered{7, raft.ErrLeadershipLost}, ErrUnknown, ErrNotLeader},
		"append failed":                 {answered{7, disk}, ErrUnknown, nil},
		"shut down after the commit":    {answered{7, raft.ErrRaftShutdown}, ErrUnknown, ErrClosed},
		"shut down before":              {answered{0, raft.ErrRaftShutdown}, ErrClosed, ErrUnknown},
		"never leader":                  {answered{0, raft.ErrNotLeader}, ErrNotLeader, ErrUnknown},
		"handing over":                  {answered{0, raft.ErrLeadershipTransferInProgress}, ErrNotLeader, ErrUnknown},
		"main loop busy":                {answered{0, raft.ErrEnqueueTimeout}, raft.ErrEnqueueTimeout, ErrUnknown},
		"members would lose last voter": {answered{0, disk}, disk, ErrUnknown},
	} {
		index, err := outcome("x", c.future)
		if !errors.Is(err, c.want) || c.not != nil && errors.Is(err, c.not) {
			t.Errorf("%s: %v", name, err)
		}
		if index != c.future.index {
			t.Errorf("%s: index %d", name, index)
		}
	}
}

func TestConfigurationNamesAllProblems(t *testing.T) {
	_, err := Open(Config{Heartbeat: 1, LeaderLease: 2})
	if err == nil {
		t.Fatal("an empty configuration was accepted")
	}
	for _, want := range []string{"ID", "Address", "Dir", "Stream", "Machine", "LeaderLease"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named in: %v", want, err)
		}
	}
}
