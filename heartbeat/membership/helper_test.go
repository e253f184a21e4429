package membership

import (
	"testing"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func gossipNode(name string) *memberlist.Node { return &memberlist.Node{Name: name} }
