package node

import (
	"fmt"

	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
)

// A rescue image may be the only copy of acknowledged writes (R19). So a plan that has the data of a volume deleted names each
// one that goes with it.

// deletedImages are the steps about what is kept aside of volumes that next has no more, by node and image.
func (v *view) deletedImages(next *config.Config) (steps []config.Step) {
	for _, name := range sortedKeys(v.state.Volumes) {
		if _, stays := next.Mirror(name); stays {
			continue
		}
		vol := v.state.Volumes[name]
		steps = append(steps, v.imagesOf(&vol)...)
	}
	return steps
}

func (v *view) imagesOf(vol *cluster.Volume) (steps []config.Step) {
	add := func(what, text string) {
		steps = append(steps, config.Step{Kind: config.StepRemove, What: fmt.Sprintf("volume %s: %s", vol.Name, what), Text: text})
	}
	for _, r := range vol.Replicas {
		if v.local[r.Node] == nil {
			add("rescue images on "+r.Node, "that node does not answer, so they are not known: those that lie there are deleted when it runs again")
			continue
		}
		for _, i := range v.rescued(vol.Name, r.Node) {
			add("rescue image "+i.Image.ID, fmt.Sprintf("deleted with the data: on %s, %d bytes that it held and epoch %d lacks, in a file of %d bytes: `ha-admin volume rescue export %s %s --out FILE` keeps them",
				r.Node, i.Image.Bytes, i.Image.Epoch, i.Image.File, vol.Name, i.Image.ID))
		}
	}
	return steps
}
