package scenario

import (
	"fmt"
	"path/filepath"

	"hacluster/blockdev/meta"
	"hacluster/cmd/internal/lab/topology"
)

func superblock(l *topology.Lab, node string) string {
	return filepath.Join(l.DataDir(node), "volumes", topology.Volume, "superblock")
}

// storedEpochs looks at what the replicas keep on stable storage: each is a member by now, so it answered in the last
// epoch, and stored it before (R2). A replica that only remembered it would take the stream of a past primary after its
// next start.
func (r *Run) storedEpochs(last View) {
	for _, n := range r.Replicas() {
		sb, err := meta.Read(superblock(r.Lab, n))
		switch {
		case err != nil:
			r.res.fail(err.Error())
		case sb.Epoch < last.Epoch:
			r.res.fail(fmt.Sprintf("%s is a member in epoch %d, and its superblock names epoch %d: it answered before it stored it (R2)", n, last.Epoch, sb.Epoch))
		}
	}
}
