package nbdtest

import (
	"fmt"
	"slices"
	"sync"

	"hacluster/blockdev/frontend/nbd"
)

// Exports is one node's set of volumes; a volume's role can come and go.
type Exports struct {
	mu      sync.Mutex
	volumes map[string]entry
}

type entry struct {
	export  *Export // nil: this node is a standby
	primary string
}

var _ nbd.Exports = (*Exports)(nil)

// NewExports returns an empty set.
func NewExports() *Exports { return &Exports{volumes: make(map[string]entry)} }

// Serve makes this node the volume's primary.
func (x *Exports) Serve(name string, e *Export) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.volumes[name] = entry{export: e}
}

// Leave makes this node a standby of the volume and ends the tenure that it had.
func (x *Exports) Leave(name, primary string) {
	x.mu.Lock()
	old := x.volumes[name].export
	x.volumes[name] = entry{primary: primary}
	x.mu.Unlock()
	if old != nil {
		old.Move()
	}
}

// Lookup finds a volume.
func (x *Exports) Lookup(name string) (nbd.Export, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	v, ok := x.volumes[name]
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: %.100q", nbd.ErrUnknownExport, name)
	case v.export == nil:
		return nil, &nbd.NotPrimaryError{Volume: name, Primary: v.primary}
	}
	return v.export, nil
}

// Names lists the volumes that are served, in order.
func (x *Exports) Names() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var names []string
	for n, v := range x.volumes {
		if v.export != nil {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}
